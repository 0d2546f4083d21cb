"""What an evaluation found: accuracy of every image at every epsilon."""

import datetime
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from keras_epsched.epsilons import (
    SAME_EPSILON,
    check_epsilon,
    check_norm,
    format_epsilon,
)
from keras_epsched.evaluation import report_files, report_text
from keras_epsched.evaluation.examples import Examples
from keras_epsched.evaluation.statistics import (
    bootstrap_interval,
    density_weights,
    wilson_interval,
)


class Report:
    """Robustness of one classifier on one dataset, image by image.

    `keras_epsched.evaluate` returns it. Because it keeps whether each image
    survived at each epsilon, any density over epsilon and any confidence
    interval is computed from it later, without attacking again. `print` it
    for the table, `plot` it for the curve, `save` it for the record.

    Reference:
    - [Ngnawé et al., 2026](https://arxiv.org/abs/2509.23325)

    Args:
        epsilons: Floats of shape `(num_epsilons,)`, on the [0, 1] scale,
            ascending from 0.
        correct: Booleans of shape `(num_images, num_epsilons)`: whether the
            image is classified correctly after the attack at that epsilon.
            Column 0 is clean.
        labels: Ints of shape `(num_images,)`, the true classes.
        predictions: Ints of shape `(num_images,)`, predictions on clean
            images.
        image_ids: Ints of shape `(num_images,)`, all different.
        broken_by: Optional ints of shape `(num_images, num_epsilons)`: the
            number of the attack of `attack_members` that broke the image, or
            -1 if none did, because it stands or was misclassified anyway.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        protocol: String. `"nested"`, where an image broken at one epsilon
            counts as broken at every larger one, or `"independent"`, where
            each epsilon is attacked afresh.
        attack: Dict, the serialised attack: `"class_name"` and `"config"`.
        attack_name: String, the attack with all its arguments.
        attack_members: Strings, the same of each attack of an ensemble.
            Defaults to `attack_name` alone.
        attack_title: Optional string, by which tables and pages name the
            attack, see `Attack.title`. Defaults to `attack_name`.
        member_titles: Optional strings, the same of each of `attack_members`.
            Defaults to `attack_members`.
        bisect: Boolean. Whether the nested sweep bisected.
        shard: Optional pair `(index, count)`: these are only every `count`-th
            of the images.
        model_fingerprint: Optional string, a checksum of the classifier.
        target_epsilon: Optional float, a point of the grid: the end of expected
            robustness, beyond which the curve may go on. Defaults to the end
            of the grid.
        dataset: Optional dict that says which images these are: `"dataset"`
            (name and version), `"split"`, `"base"`, `"start"`, `"stop"` and
            `"num_examples"`.
        value_range: Pair of floats, the pixel range of the classifier.
            Defaults to `(0, 255)`.
        seed: Int, the seed of the attacks. Defaults to `0`.
        forward_passes: Int. Forward passes, counted image by image.
        backward_passes: Int. Backward passes, counted image by image.
        naive_forward_passes: Int. Forward passes that attacking every image
            that is correct without attack at every epsilon above 0 afresh
            would have taken; by one attack after the other until it is broken.
            Of a nested sweep an estimate, for an ensemble somewhat too high.
        naive_backward_passes: Int. The same for backward passes.
        check_forward_passes: Int. Forward passes of the self-checks, which
            `forward_passes` does not contain.
        check_backward_passes: Int. The same for backward passes.
        seconds: Float. Wall time of the evaluation.
        zero_gradient_images: Int. Images whose gradient vanished, on which
            a gradient attack is blind. Defaults to `0`.
        checks: Dicts, the outcomes of the self-checks, each with `"name"`,
            `"status"` (`"passed"`, `"fired"` or `"not run"`), `"message"` and
            `"estimate"`: of the check "stronger attack" a dict of numbers.
        examples: Optional `Examples`, a few adversarial images.
        model_name: Optional string, the name of the classifier.
        notes: Strings, the warnings raised while evaluating.
        created: Optional string, the time of the evaluation in ISO format.
            Defaults to now.
        versions: Optional dict of the package versions it ran with.
            Defaults to the running ones.
        precision: Optional string, the dtypes that the layers of the
            classifier computed in, as `"float16, float32"`.
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

    def __init__(
        self,
        *,
        epsilons: Sequence[float],
        correct: np.ndarray,
        labels: np.ndarray,
        predictions: np.ndarray,
        image_ids: np.ndarray,
        broken_by: np.ndarray | None = None,
        norm: str,
        protocol: str,
        attack: dict,
        attack_name: str,
        attack_members: Sequence[str] | None = None,
        attack_title: str | None = None,
        member_titles: Sequence[str] | None = None,
        bisect: bool = False,
        shard: Sequence[int] | None = None,
        model_fingerprint: str | None = None,
        target_epsilon: float | None = None,
        dataset: dict | None = None,
        value_range: tuple[float, float] = (0, 255),
        seed: int = 0,
        forward_passes: int = 0,
        backward_passes: int = 0,
        naive_forward_passes: int = 0,
        naive_backward_passes: int = 0,
        check_forward_passes: int = 0,
        check_backward_passes: int = 0,
        seconds: float = 0.0,
        zero_gradient_images: int = 0,
        checks: Sequence[dict] = (),
        examples: Examples | None = None,
        model_name: str | None = None,
        notes: Sequence[str] = (),
        created: str | None = None,
        versions: dict | None = None,
        precision: str | None = None,
        device: str | None = None,
    ):
        self.epsilons = np.asarray(epsilons, "float64")
        self.correct = np.asarray(correct)
        self.labels = np.asarray(labels, "int64")
        self.predictions = np.asarray(predictions, "int64")
        self.image_ids = np.asarray(image_ids, "int64")
        if broken_by is None:
            attacked = self.correct[:, :1] & ~self.correct
            broken_by = np.where(attacked, 0, -1)
        self.broken_by = np.asarray(broken_by, "int8")
        self.norm = check_norm(norm)
        self.protocol = protocol
        self.attack = report_files.plain(attack, "attack")
        self.attack_name = str(attack_name)
        self.attack_members = list(attack_members or [self.attack_name])
        self.attack_title = str(attack_title or self.attack_name)
        self.member_titles = list(member_titles or self.attack_members)
        self.bisect = bool(bisect)
        self.shard = None if shard is None else [int(each) for each in shard]
        self.model_fingerprint = model_fingerprint
        end = self.epsilons[-1] if target_epsilon is None else target_epsilon
        self.target_epsilon = float(end)
        self.dataset = report_files.plain(dataset, "dataset")
        self.value_range = tuple(float(edge) for edge in value_range)
        self.seed = int(seed)
        self.forward_passes = int(forward_passes)
        self.backward_passes = int(backward_passes)
        self.naive_forward_passes = int(naive_forward_passes)
        self.naive_backward_passes = int(naive_backward_passes)
        self.check_forward_passes = int(check_forward_passes)
        self.check_backward_passes = int(check_backward_passes)
        self.seconds = float(seconds)
        self.zero_gradient_images = int(zero_gradient_images)
        self.checks = report_files.plain(list(checks), "checks")
        self.examples = examples
        self.model_name = None if model_name is None else str(model_name)
        self.notes = [str(note) for note in notes]
        now = datetime.datetime.now(datetime.UTC)
        self.created = created or now.isoformat(timespec="seconds")
        self.versions = versions or report_files.package_versions()
        self.precision = precision
        self.device = device
        self._validate()

    def _validate(self) -> None:
        if self.protocol not in report_text.PROTOCOLS:
            raise ValueError(
                f"`protocol` must be one of {tuple(report_text.PROTOCOLS)}. "
                f"Received: {self.protocol!r}"
            )
        density_weights(self.epsilons)  # Checks that the grid ascends from 0.
        check_epsilon(self.epsilons[-1], self.norm, "epsilons[-1]")
        self.target_epsilon = float(
            self.epsilons[self._index(self.target_epsilon, "target_epsilon")]
        )
        shape = (self.labels.size, self.epsilons.size)
        if not self.labels.size or self.correct.shape != shape:
            raise ValueError(
                "`correct` must have shape (num_images, num_epsilons) = "
                f"{shape} with at least one image. Received shape "
                f"{self.correct.shape}."
            )
        if self.correct.dtype != bool:
            raise ValueError(
                "`correct` must be boolean. Received dtype "
                f"{self.correct.dtype}."
            )
        for name in ("labels", "predictions", "image_ids"):
            if getattr(self, name).shape != shape[:1]:
                raise ValueError(
                    f"`{name}` must have shape {shape[:1]}. Received shape "
                    f"{getattr(self, name).shape}."
                )
        if not np.array_equal(
            self.broken_by >= 0, self.correct[:, :1] & ~self.correct
        ) or self.broken_by.max() >= len(self.attack_members):
            raise ValueError(
                "`broken_by` must name an attack of `attack_members` exactly "
                "where an image that is correct without attack is not any more"
            )
        if len(self.member_titles) != len(self.attack_members):
            raise ValueError(
                "`member_titles` must name each of `attack_members`. Received: "
                f"{len(self.member_titles)} titles of "
                f"{len(self.attack_members)} attacks"
            )
        if np.unique(self.image_ids).size != self.num_images:
            raise ValueError("`image_ids` must all be different.")
        if (self.correct[:, 0] & (self.labels != self.predictions)).any():
            raise ValueError(
                "Column 0 of `correct` must be clean: an image counts as "
                "correct there although its prediction is not its label."
            )
        if self.protocol == "nested" and self.violations:
            raise ValueError(
                'With protocol="nested" an image that is wrong at one '
                "epsilon must be wrong at every larger one, but "
                f"{self.violations} entries of `correct` are not. Use "
                '`protocol="independent"`, or accumulate the failures.'
            )

    @property
    def num_images(self) -> int:
        """Number of images evaluated."""
        return self.labels.size

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy at each epsilon, fractions of shape `(num_epsilons,)`."""
        return self.correct.mean(axis=0)

    @property
    def clean_accuracy(self) -> float:
        """Accuracy on the images as they are, a fraction."""
        return float(self.accuracy[0])

    @property
    def critical_epsilon(self) -> np.ndarray:
        """Smallest epsilon of the grid that broke each image.

        Shape `(num_images,)`: 0 for an image misclassified without any
        attack, infinity for one that survived the whole grid.
        """
        broken = ~self.correct
        first = self.epsilons[broken.argmax(axis=1)]
        return np.where(broken.any(axis=1), first, np.inf)

    @property
    def violations(self) -> int:
        """Entries that are correct though a smaller epsilon broke the image.

        The perturbation that broke it is allowed at the larger epsilon too,
        so each is a failure of the attack. Always 0 when nested; for an
        independent sweep it tells how far from monotone that was.
        """
        broken_so_far = np.logical_or.accumulate(~self.correct, axis=1)
        return int((self.correct & broken_so_far).sum())

    @property
    def broken_counts(self) -> np.ndarray:
        """Images that each attack broke at each epsilon.

        Shape `(num_attacks, num_epsilons)`. An attack sees only what those
        before it have left standing; when nested, an image that is broken at
        a smaller epsilon counts for the attack that did it there.
        """
        return np.stack(
            [
                (self.broken_by == number).sum(axis=0)
                for number in range(len(self.attack_members))
            ]
        )

    @property
    def saving_factor(self) -> float:
        """Passes of the naive sweep for each pass made (NaN if unknown)."""
        passes = self.forward_passes + self.backward_passes
        naive = self.naive_forward_passes + self.naive_backward_passes
        return naive / passes if passes and naive else float("nan")

    def _index(self, epsilon: float, name: str = "epsilon") -> int:
        close = np.isclose(self.epsilons, epsilon, rtol=SAME_EPSILON, atol=0)
        if not close.any():
            grid = ", ".join(
                format_epsilon(e, self.norm) for e in self.epsilons
            )
            raise ValueError(
                f"`{name}` must be a point of the grid that was evaluated: "
                f"{grid}. Received: {name}={epsilon}"
            )
        return int(close.argmax())

    def accuracy_at(self, epsilon: float) -> float:
        """Accuracy at one epsilon of the grid, a fraction.

        Args:
            epsilon: Float, on the [0, 1] scale.

        Returns:
            A float.

        Raises:
            ValueError: If `epsilon` is not on the grid.
        """
        return float(self.accuracy[self._index(epsilon)])

    def accuracy_interval(
        self, epsilon: float, confidence: float = 0.95
    ) -> tuple[float, float]:
        """Wilson interval of the accuracy at one epsilon of the grid.

        Args:
            epsilon: Float, on the [0, 1] scale.
            confidence: Float between 0 and 1. Defaults to `0.95`.

        Returns:
            A pair of floats `(low, high)`.

        Raises:
            ValueError: If `epsilon` is not on the grid.
        """
        successes = self.correct[:, self._index(epsilon)].sum()
        return wilson_interval(successes, self.num_images, confidence)

    def weights(
        self, density=None, target_epsilon: float | None = None
    ) -> np.ndarray:
        """Weights of the grid's points in `expected_robustness`.

        Args:
            density: As in `expected_robustness`.
            target_epsilon: As in `expected_robustness`.

        Returns:
            A float64 array of shape `(num_epsilons,)` with sum 1.
        """
        # A point mass, or weights, may lie beyond the target.
        spread = density is None or callable(getattr(density, "pdf", density))
        if target_epsilon is None and spread:
            target_epsilon = self.target_epsilon
        return density_weights(self.epsilons, density, target_epsilon)

    def expected_robustness(
        self, density=None, target_epsilon: float | None = None
    ) -> float:
        """Mean accuracy under a distribution of epsilon.

        Args:
            density: `None` for the uniform distribution (the paper's), a
                number for a point mass, a density function, a frozen
                `scipy.stats` distribution, or weights of the grid's points.
                See `density_weights`.
            target_epsilon: Optional float, the upper end of the interval.
                Defaults to that of the report.

        Returns:
            A float, a fraction.
        """
        weights = self.weights(density, target_epsilon)
        return float(self.accuracy @ weights)

    def expected_robustness_interval(
        self,
        density=None,
        target_epsilon: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Bootstrap interval of expected robustness, over the images.

        It is the uncertainty that comes from the images of the test set,
        not from the seed of the training run.

        Args:
            density: As in `expected_robustness`.
            target_epsilon: As in `expected_robustness`.
            confidence: Float between 0 and 1. Defaults to `0.95`.
            seed: Int, the seed of the resamples. Defaults to `0`.

        Returns:
            A pair of floats `(low, high)`.
        """
        weights = self.weights(density, target_epsilon)
        return bootstrap_interval(self.correct @ weights, confidence, seed)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `report.json` and `per_image.parquet`, each by a rename.

        And `examples.npz`, if there are examples.

        Args:
            folder: Path of a folder, created if need be.
        """
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.examples is not None:
            self.examples.save(folder)
        report_files.save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Report":
        """Reads what `save` wrote.

        Args:
            folder: Path of the folder given to `save`.

        Returns:
            A `Report` equal to the saved one.

        Raises:
            FileNotFoundError: If one of the two files is missing.
            ValueError: If they were not written by `save`, or not together.
        """
        folder = pathlib.Path(folder)
        return cls(**report_files.load(folder), examples=Examples.load(folder))

    def plot(self, path=None, ax=None, label: str | None = None, **kwargs):
        """Draws accuracy against epsilon with the 95 % Wilson band.

        Args:
            path: Optional path ending in `.png` or `.svg`, or a list of such
                paths, to which the figure is saved.
            ax: Optional `matplotlib` axes to draw on. Defaults to a new
                figure, which is `plot(...).figure`.
            label: Optional string, the name of the curve in the legend.
                Defaults to `model_name`.
            **kwargs: Passed on to `Axes.plot`, such as `color`.

        Returns:
            The `matplotlib` axes.

        Example:
        ```python
        axes = first.plot(label="fixed")
        second.plot("both.png", ax=axes, label="scheduled")
        ```
        """
        from keras_epsched.evaluation import plots

        return plots.plot_report(self, path, ax, label, **kwargs)

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
        return report_text.table(self)
