"""The function that evaluates a classifier on a dataset."""

import itertools
import pathlib
import warnings
from dataclasses import asdict, is_dataclass

import keras
import numpy as np

from keras_epsched import checks, provenance
from keras_epsched.attacks.apgd import APGD
from keras_epsched.attacks.base import Attack, check_count
from keras_epsched.attacks.ensemble import AttackEnsemble, MarginEnsemble
from keras_epsched.evaluation import inputs, parts
from keras_epsched.evaluation.attack_runner import AttackRunner
from keras_epsched.evaluation.progress import Progress
from keras_epsched.evaluation.sweep import Sweep
from keras_epsched.evaluation.windows import Evaluation
from keras_epsched.reports.report import Report

_PROTOCOLS = ("nested", "independent", "paper")
# Number of batches in a window: enough to keep the batches of attacks full.
_WINDOW = 8


def evaluate(
    classifier: keras.Model,
    dataset,
    epsilons,
    attack: Attack | AttackEnsemble | None = None,
    *,
    protocol: str = "nested",
    bisect: bool | None = None,
    target_epsilon: float | None = None,
    value_range: tuple[float, float] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    image_ids=None,
    shard: tuple[int, int] | None = None,
    folder=None,
    resume: bool = False,
    self_check: bool = True,
    jit_compile: bool | str = "auto",
    trained_on=(),
    model_name: str | None = None,
    verbose: int = 1,
) -> Report:
    """Measures the accuracy of a classifier at every epsilon of a grid.

    Use it after training, or on any Keras classifier from pixels to logits.
    The mean accuracy over the grid is *expected robustness* (arXiv
    2509.23325).

    There are three protocols:

    - `"nested"` (the default) looks for the smallest epsilon that breaks each
      image. The image then counts as broken at every larger epsilon, because
      the perturbation is allowed there too. The search uses bisection: the
      first attack halves the range of epsilons that are left, and the other
      attacks try the next smaller epsilon. With `bisect=False` the epsilons
      are tried in ascending order, each from the best point of the epsilon
      before. For an ensemble that takes about three times the passes.
    - `"independent"` attacks each epsilon from scratch.
    - `"paper"` is the protocol of the paper: `"independent"`, with 10 steps of
      Auto-PGD on cross-entropy. Use it to reproduce published numbers. They
      are up to 14 points higher than the expected robustness that stronger
      attacks measure.

    An image that is misclassified without an attack counts as wrong at every
    epsilon and is not attacked. The random numbers for an image depend on the
    seed, on the image's position in the dataset (or its id) and on the
    position of epsilon in the grid. They do not depend on batches or shards,
    and with `image_ids` they do not depend on the order of the images.

    With a `folder`, the results of each window of 8 batches are written to it
    as soon as the window is finished. If the evaluation is interrupted, call
    it again with `resume=True`. The report is saved to the folder at the end.

    At the end the evaluation runs self-checks (`Report.checks`), which look
    for signs of a failed attack: vanishing gradients, accuracy above chance
    under an unbounded attack, more images broken by an attack without
    gradients or by a stronger attack, and invalid adversarial images. The
    checks cost at most a tenth of the passes. A failed check raises a warning.

    An attack on a classifier is compiled once. Later calls use it again, with
    other data, arguments and weights. As with `predict` of Keras, some changes
    to a classifier are not noticed, see
    `keras_epsched.evaluation.forget_compiled`.

    Args:
        classifier: `keras.Model` from pixels to logits. Pass `trainer.model`,
            not an `AdversarialTrainer`.
        dataset: Batches of `(images, labels)` in a fixed order, for example
            `data.test` of `keras_epsched.datasets.load`, or a pair of arrays.
        epsilons: Ascending floats on the [0, 1] scale, see `epsilon_grid`. 0
            is added if it is missing. They are measured in the norm of
            `attack`.
        attack: `Attack` or `AttackEnsemble`, for example
            `AutoAttack("standard")`. Defaults to `MarginEnsemble()`, which
            uses l-infinity.
        protocol: String. `"nested"`, `"independent"` or `"paper"`. Defaults
            to `"nested"`.
        bisect: Boolean or `None`. Whether the nested protocol uses bisection.
            `None` means yes.
        target_epsilon: Float, one of `epsilons`: the upper end of expected
            robustness. `epsilons` may contain larger values. Defaults to the
            last of `epsilons`.
        value_range: Pair. Lowest and highest pixel value. Defaults to the
            range of the `AdversarialTrainer` that trained the classifier, or
            of `keras_epsched.models.classifier` that made it, in this process.
            Otherwise it defaults to (0, 255).
        batch_size: Int. Number of images to attack together. Defaults to the
            size of the dataset's first batch.
        seed: Int. Seed of the random numbers.
        image_ids: Integers, one different id for each image of the dataset.
            Random numbers then depend on the id instead of the position in
            the dataset.
        shard: Pair `(index, count)`. Evaluates only every `count`-th image,
            starting at image `index`. `keras_epsched.evaluation.merge` joins
            the reports of all shards.
        folder: Path of a folder for intermediate results and the report.
        resume: Boolean. Whether to resume the evaluation in `folder`.
        self_check: Boolean. Whether to run the self-checks.
        jit_compile: Boolean or `"auto"`. Whether to compile the attack with
            XLA. `"auto"` takes XLA on a GPU. On a CPU, `True` may be faster
            for a transformer with many images.
        trained_on: Splits (`SplitInfo`) on which the classifier was trained.
            An overlap with `dataset` raises a warning. Splits used by
            `AdversarialTrainer.fit` in this process are known and need not be
            passed.
        model_name: String, the name of the classifier in reports. Defaults to
            `classifier.name`.
        verbose: Int. 0 prints nothing. Any other value shows a progress bar in
            a terminal or a notebook, and elsewhere prints a line about every
            half minute. The cost of an expensive attack is printed before it
            starts.

    Returns:
        A `Report`.

    Raises:
        ValueError: If an argument, the data or the output of the classifier is
            not valid, or if `folder` has another evaluation.

    Example:
    ```python
    report = keras_epsched.evaluate(
        classifier,
        data.test,
        epsilons=keras_epsched.epsilon_grid(4 / 255),
        attack=keras_epsched.attacks.AutoAttack("standard"),
        folder="runs/autoattack",
    )
    print(report)
    report.expected_robustness()
    ```
    """
    if protocol == "paper":
        attack, protocol = _paper_attack(attack), "independent"
    attack = MarginEnsemble() if attack is None else attack
    if not isinstance(attack, (Attack, AttackEnsemble)):
        raise ValueError(
            "`attack` must be an attack of `keras_epsched.attacks`, for "
            f"example `AutoAttack()`. Received: attack={attack!r}"
        )
    if batch_size is not None:
        batch_size = check_count(batch_size, "batch_size")
    if hasattr(classifier, "attack") and hasattr(classifier, "model"):
        raise ValueError(
            "`classifier` must be the classifier. Received: a trainer. Pass "
            "`trainer.model`."
        )
    checks.check_takes_pixels(classifier)
    if value_range is None:
        value_range = provenance.value_range_of(classifier) or (0, 255)
    if protocol not in _PROTOCOLS:
        raise ValueError(
            f"`protocol` must be one of {_PROTOCOLS}. Received: "
            f"protocol={protocol!r}"
        )
    bisect = protocol == "nested" if bisect is None else bool(bisect)
    if bisect and protocol != "nested":
        raise ValueError(
            '`bisect=True` needs protocol="nested". Received: '
            'protocol="independent", which attacks every epsilon'
        )
    if resume and folder is None:
        raise ValueError(
            "`resume=True` needs the folder of the evaluation. Received: "
            "folder=None"
        )
    ids = inputs.check_ids(image_ids)
    split = provenance.split_of(dataset)
    grid = inputs.check_grid(epsilons, attack.norm)
    settings = {
        "epsilons": grid,
        "attack": keras.saving.serialize_keras_object(attack),
        "protocol": protocol,
        "bisect": bisect,
        "target_epsilon": inputs.check_target(target_epsilon, grid),
        "value_range": checks.check_value_range(value_range),
        "precision": inputs.precision(classifier),
        "device": inputs.device(),
        "seed": inputs.check_seed(seed),
        "shard": inputs.check_shard(shard),
        "self_check": bool(self_check),
        "dataset": _description(split),
        "model": inputs.fingerprint(classifier),
    }
    stream = inputs.batches(dataset, batch_size)
    first = next(stream, None)
    if first is None:
        raise ValueError("`dataset` must have images. Received: no images")
    members: tuple = getattr(attack, "members", (attack,))
    for each in members:
        if not each.can_evaluate:
            raise ValueError(
                "`attack` must be an attack for evaluation. Received: "
                f"{each!r}, which is for training only. Use `APGD` or "
                "`AutoAttack`."
            )
        each.check_shape(np.shape(first[0]))
    batch_size = batch_size or len(first[0])
    window = _WINDOW * batch_size
    if folder is not None:
        folder = pathlib.Path(folder)
        window = parts.begin(folder, settings, window, resume)
    runner = AttackRunner(
        classifier, settings["value_range"], batch_size, jit_compile
    )
    sweep = Sweep(
        runner,
        settings["epsilons"],
        members,
        protocol == "nested",
        bisect,
        seed,
    )
    name = model_name or classifier.name
    evaluation = Evaluation(sweep, attack, settings, folder, name)
    notes = inputs.overlap_notes(classifier, split, trained_on)
    total = split.num_examples if split else inputs.length(dataset)
    if ids is not None and total is not None and len(ids) != total:
        raise ValueError(
            "`image_ids` must have one number for each image. Received: "
            f"{len(ids)} numbers for {total} images"
        )
    if total is not None and shard is not None:
        total = len(range(shard[0], total, shard[1]))
    windows = inputs.windows(
        itertools.chain([first], stream), window, shard, ids
    )
    if folder is not None and parts.is_finished(folder):
        report = Report.load(folder)
        value_range = settings["value_range"]
        parts.check_finished(folder, report, windows, value_range)
        return report
    with Progress(sweep, attack.title, total, verbose) as progress:
        for images, classes, numbers in windows:
            evaluation.add(images, classes, numbers, progress)
    if not evaluation.found:
        raise ValueError(
            "`shard` must contain at least one image of the dataset. "
            f"Received: shard={shard}"
        )
    count = sum(len(part["image"]) for part in evaluation.found)
    if split is not None and count != total:
        # A note in the report, because an error would lose hours of work.
        notes.append(
            f"the split {split} has {total} images"
            f"{'' if shard is None else ' in this shard'}, but the dataset "
            f"had {count}. Evaluate without `drop_remainder`, `take` or a "
            "filter to cover all images"
        )
    report = evaluation.report(notes)
    fired = [
        f"{check['name']}: {check['message']}"
        for check in report.checks
        if check["status"] == "fired"
    ]
    for note in (*notes, *fired):
        warnings.warn(note, stacklevel=2)
    if folder is not None:
        report.save(folder)
        parts.finish(folder, evaluation.found)
    return report


def _paper_attack(attack):
    """The attack of the paper's protocol, in the norm of the one given."""
    if attack is None:
        return APGD(steps=10)
    if attack != APGD(steps=10, norm=getattr(attack, "norm", "linf")):
        raise ValueError(
            'protocol="paper" needs `APGD(steps=10)`. Leave out `attack`, or '
            "pass `APGD(steps=10, norm=...)`. For another attack use "
            f'protocol="independent". Received: attack={attack!r}'
        )
    return attack


def _description(split):
    """A `SplitInfo` as a dict, or `None` for data without one."""
    if is_dataclass(split) and not isinstance(split, type):
        return asdict(split)
    return None
