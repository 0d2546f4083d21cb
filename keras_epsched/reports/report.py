"""The result of an evaluation: which image is correct at which epsilon."""

import datetime
import functools
import os
import pathlib
from dataclasses import dataclass, field

import numpy as np

from keras_epsched.epsilons import check_norm
from keras_epsched.reports import fields, storage
from keras_epsched.reports.consistency import check_rows, check_settings
from keras_epsched.reports.examples import Examples
from keras_epsched.reports.fields import (
    ALWAYS,
    DERIVED,
    FIRST,
    LATER,
    ROWS,
    SAME,
    SUM,
    role,
)
from keras_epsched.reports.measures import Measures
from keras_epsched.reports.table import report_table
from keras_epsched.versions import package_versions


def _array(dtype):
    return functools.partial(np.asarray, dtype=dtype)


def _json(name):
    return functools.partial(storage.plain, name=name)


def _each(kind, sequence):
    """A converter to a sequence whose elements all have one type."""
    return lambda values: sequence(kind(value) for value in values)


@dataclass(kw_only=True, eq=False, repr=False)
class Report(Measures):
    """Robustness of one classifier on one dataset, image by image.

    `keras_epsched.evaluate` returns a report. `print(report)` shows the
    accuracy at each epsilon, `plot` draws the curve and `save` writes the
    report to a folder.

    A report stores, for each image and each epsilon, whether the image was
    still classified correctly after the attack. Expected robustness under
    another distribution of epsilon, and other confidence intervals, are
    computed from this table. They need no new attack.

    Reference:
    - [Ngnawé et al., 2026](https://arxiv.org/abs/2509.23325)

    Args:
        epsilons: Floats of shape `(num_epsilons,)`, on the [0, 1] scale,
            ascending from 0.
        correct: Booleans of shape `(num_images, num_epsilons)`: whether the
            image is classified correctly after the attack at that epsilon.
            Column 0 holds the result without an attack.
        labels: Ints of shape `(num_images,)`, the true classes.
        predictions: Ints of shape `(num_images,)`, the predicted classes of
            the clean images.
        image_ids: Ints of shape `(num_images,)`, all different.
        broken_by: Optional ints of shape `(num_images, num_epsilons)`: the
            index in `attack_members` of the attack that broke the image. It
            is -1 if no attack broke it or if the image was misclassified
            without an attack.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        protocol: String. `"nested"`: an image that is broken at one epsilon
            counts as broken at every larger epsilon. `"independent"`: each
            epsilon is attacked from scratch.
        attack: Dict, the serialised attack: `"class_name"` and `"config"`.
        attack_name: String, the attack with all its arguments.
        attack_members: Strings, each attack of an ensemble with all its
            arguments. Defaults to `attack_name` alone.
        attack_title: Optional string, the short name of the attack in tables
            and pages, see `Attack.title`. Defaults to `attack_name`.
        member_titles: Optional strings, the short names of `attack_members`.
            Defaults to `attack_members`.
        bisect: Boolean. Whether the nested sweep used bisection.
        shard: Optional pair `(index, count)`: the report covers only every
            `count`-th image, starting at image `index`.
        model_fingerprint: Optional string, a checksum of the classifier.
        target_epsilon: Optional float, a point of the grid: the upper end of
            expected robustness. The grid may contain larger epsilons.
            Defaults to the largest epsilon of the grid.
        dataset: Optional dict that says which images were evaluated:
            `"dataset"` (name and version), `"split"`, `"base"`, `"start"`,
            `"stop"` and `"num_examples"`.
        value_range: Pair of floats, the pixel range of the classifier.
            Defaults to `(0, 255)`.
        seed: Int, the seed of the attacks. Defaults to `0`.
        forward_passes: Int. Forward passes, counted per image.
        backward_passes: Int. Backward passes, counted per image.
        naive_forward_passes: Int. Forward passes of a naive evaluation, which
            attacks each correctly classified image from scratch at each
            epsilon above 0, with one attack after the other until the image
            is broken. For a nested sweep this is an estimate. For an ensemble
            the estimate is somewhat too high.
        naive_backward_passes: Int. Backward passes of a naive evaluation.
        check_forward_passes: Int. Forward passes of the self-checks.
            `forward_passes` does not include them.
        check_backward_passes: Int. Backward passes of the self-checks.
        seconds: Float. Wall time of the evaluation, in seconds.
        zero_gradient_images: Int. Number of images whose gradient vanished.
            A gradient attack cannot work on them. Defaults to `0`.
        checks: Dicts, the outcomes of the self-checks, each with `"name"`,
            `"status"` (`"passed"`, `"fired"` if the check failed, or
            `"not run"`), `"message"` and `"estimate"`. For the check
            "stronger attack" the estimate is a dict of numbers, for all
            others it is `None`.
        examples: Optional `Examples`, a few adversarial images.
        model_name: Optional string, the name of the classifier.
        notes: Strings, the warnings raised during the evaluation.
        created: Optional string, the time of the evaluation in ISO format.
            Defaults to now.
        versions: Optional dict of the versions of the packages in use.
            Defaults to the installed versions.
        precision: Optional string, the dtypes in which the layers of the
            classifier computed, for example `"float16, float32"`.
        device: Optional string, `"CPU"`, `"GPU"` or `"TPU"`.

    Raises:
        ValueError: If shapes or values do not fit together.

    Example:
    ```python
    report = keras_epsched.evaluate(
        model, data.test, epsilons=keras_epsched.epsilon_grid(4 / 255)
    )
    print(report)
    report.accuracy_at(4 / 255)
    report.expected_robustness()
    report.expected_robustness(scipy.stats.beta(2, 5, scale=4 / 255))
    report.plot("curve.png")
    report.save("runs/first")
    ```
    """

    epsilons: np.ndarray = field(metadata=role(_array("float64"), merge=SAME))
    correct: np.ndarray = field(metadata=role(np.asarray, merge=ROWS))
    labels: np.ndarray = field(metadata=role(_array("int64"), merge=ROWS))
    predictions: np.ndarray = field(metadata=role(_array("int64"), merge=ROWS))
    image_ids: np.ndarray = field(metadata=role(_array("int64"), merge=ROWS))
    broken_by: np.ndarray = field(
        default=DERIVED, metadata=role(_array("int8"), merge=ROWS)
    )
    examples: Examples | None = field(
        default=None, metadata=role(None, merge=FIRST)
    )
    # In the order of `report.json`.
    created: str = field(default=DERIVED, metadata=role(str, ALWAYS))
    model_name: str | None = field(
        default=None, metadata=role(str, ALWAYS, SAME)
    )
    dataset: dict | None = field(
        default=None, metadata=role(_json("dataset"), ALWAYS, SAME)
    )
    value_range: tuple[float, float] = field(
        default=(0, 255), metadata=role(_each(float, tuple), ALWAYS, SAME)
    )
    norm: str = field(metadata=role(check_norm, ALWAYS, SAME))
    protocol: str = field(metadata=role(str, ALWAYS, SAME))
    attack: dict = field(metadata=role(_json("attack"), ALWAYS, SAME))
    attack_name: str = field(metadata=role(str, ALWAYS, FIRST))
    attack_members: list[str] = field(
        default=DERIVED, metadata=role(list, ALWAYS, FIRST)
    )
    bisect: bool = field(default=False, metadata=role(bool, ALWAYS, SAME))
    shard: list[int] | None = field(
        default=None, metadata=role(_each(int, list), ALWAYS)
    )
    model_fingerprint: str | None = field(
        default=None, metadata=role(str, ALWAYS, SAME)
    )
    target_epsilon: float = field(
        default=DERIVED, metadata=role(float, ALWAYS, SAME)
    )
    seed: int = field(default=0, metadata=role(int, ALWAYS, SAME))
    forward_passes: int = field(default=0, metadata=role(int, ALWAYS, SUM))
    backward_passes: int = field(default=0, metadata=role(int, ALWAYS, SUM))
    naive_forward_passes: int = field(
        default=0, metadata=role(int, ALWAYS, SUM)
    )
    naive_backward_passes: int = field(
        default=0, metadata=role(int, ALWAYS, SUM)
    )
    check_forward_passes: int = field(
        default=0, metadata=role(int, ALWAYS, SUM)
    )
    check_backward_passes: int = field(
        default=0, metadata=role(int, ALWAYS, SUM)
    )
    seconds: float = field(default=0.0, metadata=role(float, ALWAYS, SUM))
    zero_gradient_images: int = field(
        default=0, metadata=role(int, ALWAYS, SUM)
    )
    checks: list[dict] = field(
        default_factory=list, metadata=role(_json("checks"), ALWAYS)
    )
    notes: list[str] = field(
        default_factory=list, metadata=role(_each(str, list), ALWAYS)
    )
    versions: dict = field(default=DERIVED, metadata=role(dict, ALWAYS, SAME))
    attack_title: str = field(default=DERIVED, metadata=role(str, LATER, FIRST))
    member_titles: list[str] = field(
        default=DERIVED, metadata=role(list, LATER, FIRST)
    )
    precision: str | None = field(default=None, metadata=role(str, LATER, SAME))
    device: str | None = field(default=None, metadata=role(str, LATER))

    def __post_init__(self):
        fields.convert_all(self)
        if self.broken_by is None:
            attacked = self.correct[:, :1] & ~self.correct
            self.broken_by = np.where(attacked, 0, -1).astype("int8")
        if self.target_epsilon is None:
            self.target_epsilon = float(self.epsilons[-1])
        self.attack_members = self.attack_members or [self.attack_name]
        self.attack_title = self.attack_title or self.attack_name
        self.member_titles = self.member_titles or list(self.attack_members)
        self.versions = self.versions or package_versions()
        if not self.created:
            now = datetime.datetime.now(datetime.UTC)
            self.created = now.isoformat(timespec="seconds")
        check_settings(self)
        target = self._place(self.target_epsilon, "target_epsilon")
        self.target_epsilon = float(self.epsilons[target])
        check_rows(self)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `report.json` and `per_image.parquet` to a folder.

        If the report has examples, `examples.npz` is written as well. An
        interruption never leaves a half-written file.

        Args:
            folder: Path of a folder. It is created if it does not exist.
        """
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.examples is not None:
            self.examples.save(folder)
        storage.save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Report":
        """Reads a report that `save` wrote.

        Args:
            folder: Path of the folder given to `save`.

        Returns:
            A `Report` equal to the saved one.

        Raises:
            FileNotFoundError: If one of the two files is missing.
            ValueError: If they were not written by `save`, or not together.
        """
        folder = pathlib.Path(folder)
        return cls(**storage.load(cls, folder), examples=Examples.load(folder))

    def plot(self, path=None, ax=None, label: str | None = None, **kwargs):
        """Draws accuracy against epsilon, with the 95 % Wilson intervals.

        Args:
            path: Optional path, or list of paths, that ends in `.png` or
                `.svg`. The figure is saved there.
            ax: Optional `matplotlib` axes to draw on. Defaults to a new
                figure, which is `plot(...).figure`.
            label: Optional string, the name of the curve in the legend.
                Defaults to `model_name`.
            **kwargs: Passed on to `Axes.plot`, for example `color`.

        Returns:
            The `matplotlib` axes.

        Example:
        ```python
        axes = first.plot(label="fixed")
        second.plot("both.png", ax=axes, label="scheduled")
        ```
        """
        from keras_epsched.reports import curves

        return curves.plot_report(self, path, ax, label, **kwargs)

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return self.examples == other.examples and all(
            np.array_equal(value, vars(other)[name])
            for name, value in vars(self).items()
            if name != "examples"
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self):
        return (
            f"<Report model={self.model_name!r} num_images={self.num_images} "
            f"clean_accuracy={self.clean_accuracy:.4f} "
            f"expected_robustness={self.expected_robustness():.4f}>"
        )

    def __str__(self):
        return report_table(self)
