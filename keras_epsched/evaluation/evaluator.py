"""From a classifier and a dataset to a report."""

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
# Batches in a window: enough to fill batches to the end of a ladder.
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

    The mean over the grid is *expected robustness* (arXiv 2509.23325). The
    report names the protocol:

    - `"nested"` uses that a point which breaks an image lies in every larger
      ball too. It looks for the smallest epsilon that breaks each image, by
      bisection: the first attack halves the epsilons that are left, the
      others then try the next smaller one. With `bisect=False` it goes up
      from one epsilon to the next, each time from the best point of the one
      before, until the image is broken; that takes about three times the
      passes of an ensemble.
    - `"independent"` attacks each epsilon afresh.
    - `"paper"` is the protocol of the paper by one word: `"independent"`, with
      10 steps of Auto-PGD on cross-entropy. It reproduces published numbers,
      which are 2 to 13 points above what stronger attacks leave.

    An image that is misclassified without any attack counts as wrong at every
    epsilon and is not attacked. Random numbers depend on the seed, the place of
    the image in the dataset (or its id) and epsilon's place in the grid, not
    on batches or shards; with ids, not on the order either.

    With a `folder`, each finished window of 8 batches is written there, so
    that an evaluation that was killed continues with `resume=True`, and the
    report is saved at the end.

    Unless switched off, the evaluation then checks itself (`Report.checks`):
    whether gradients vanish, whether an unbounded attack or one without
    gradients tells another story, how many of the images that stand fall to a
    stronger attack, and whether the adversarial images are what they claim to
    be. That costs at most a tenth of the passes.

    An attack on a classifier is compiled once, and serves all later calls,
    with other data, other arguments and other weights. As with `predict` of
    Keras, a change of what the classifier computes may go unseen: see
    `keras_epsched.evaluation.forget_compiled`.

    Args:
        classifier: `keras.Model` from pixels to logits. A trainer is refused:
            pass `trainer.model`.
        dataset: Batches of `(images, labels)`, as `data.test` of
            `keras_epsched.datasets.load`, in a fixed order; or a pair of
            arrays.
        epsilons: Ascending floats on the [0, 1] scale, see `epsilon_grid`. 0
            is added if it is missing. Read in the norm of `attack`.
        attack: `Attack`, or `AttackEnsemble` as `AutoAttack("standard")`.
            Defaults to `MarginEnsemble()`, for l-infinity.
        protocol: `"nested"`, `"independent"` or `"paper"`.
        bisect: Boolean or `None`: whether a nested sweep bisects; by default
            it does.
        target_epsilon: Float, a point of `epsilons`: where expected robustness
            ends, and the curve may go on. Defaults to the last.
        value_range: Pair. Lowest and highest pixel value. Defaults to that of
            the `AdversarialTrainer` that trained the classifier, or of
            `keras_epsched.models.classifier` that made it, in this process;
            else to (0, 255).
        batch_size: Int. Images attacked together. Defaults to the size of the
            dataset's first batch.
        seed: Int. Seed of the random numbers.
        image_ids: Integers, one for each image of the dataset: what random
            numbers depend on, instead of the place in the dataset.
        shard: Pair `(index, count)`: evaluate every `count`-th image only,
            from `index` on. `keras_epsched.evaluation.merge` joins the
            reports of all shards.
        folder: Path for the results of windows and the final report.
        resume: Boolean. Continue what `folder` holds.
        self_check: Boolean. Run the self-checks.
        jit_compile: Boolean or `"auto"`: compile the attack with XLA;
            `"auto"` where there is a GPU.
        trained_on: Splits (`SplitInfo`) that the classifier has seen, to warn
            of an overlap. Those of a trainer's `fit` in this process are
            known by themselves.
        model_name: String by which reports name the classifier. Defaults to
            `classifier.name`.
        verbose: Int. 0 for silence. Otherwise a progress bar on a terminal
            and in a notebook, elsewhere a line about every half minute; and
            the cost of an expensive attack before it starts.

    Returns:
        A `Report`.

    Raises:
        ValueError: If an argument, the data or the classifier's output is not
            fit for an evaluation, or `folder` holds another one.

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
            "`attack` must be an attack of `keras_epsched.attacks`, as "
            f"`AutoAttack()`. Received: attack={attack!r}"
        )
    if batch_size is not None:
        batch_size = check_count(batch_size, "batch_size")
    if hasattr(classifier, "attack") and hasattr(classifier, "model"):
        raise ValueError(
            "evaluate the classifier, not the trainer: pass `trainer.model`"
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
            '`bisect` needs protocol="nested": an independent sweep attacks '
            "at every epsilon"
        )
    if resume and folder is None:
        raise ValueError("`resume` needs the `folder` of the evaluation")
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
        raise ValueError("expected images. Received: an empty dataset")
    members: tuple = getattr(attack, "members", (attack,))
    for each in members:
        if not each.can_evaluate:
            raise ValueError(
                f"{each!r} is for training only: its images may lie outside "
                "of the ball. Evaluate with `APGD` or `AutoAttack`."
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
            "`image_ids` must hold a number for each image. Received: "
            f"{len(ids)} for {total} images"
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
        raise ValueError(f"expected images. Received: none in shard={shard}")
    count = sum(len(part["image"]) for part in evaluation.found)
    if split is not None and count != total:
        # Said in the report, for an error would lose hours of work.
        notes.append(
            f"the split {split} has {total} images"
            f"{'' if shard is None else ' in this shard'}, but the dataset "
            f"yielded {count}: evaluate without `drop_remainder`, `take` or a "
            "filter"
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
            'protocol="paper" attacks by `APGD(steps=10)`: leave `attack` '
            "out, or pass `APGD(steps=10, norm=...)`; with protocol="
            f'"independent" take any. Received: attack={attack!r}'
        )
    return attack


def _description(split):
    """A `SplitInfo` for a file; `None` for data that have none."""
    if is_dataclass(split) and not isinstance(split, type):
        return asdict(split)
    return None
