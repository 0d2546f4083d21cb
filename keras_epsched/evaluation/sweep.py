"""The sweep over epsilons: every image of a dataset, at every strength.

Images wait in a queue for the epsilons at which they have to be attacked, and
batches of a fixed size are filled from its front, whatever the radii: epsilon
is a number per image. So no slot is wasted on broken images, one compiled
function serves all, and memory is proportional to the batch.
"""

import time
import warnings
from collections import deque
from dataclasses import asdict, dataclass, field, is_dataclass

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from keras_epsched import backend, checks
from keras_epsched.attacks import noise
from keras_epsched.attacks.apgd import APGD
from keras_epsched.attacks.base import Attack
from keras_epsched.evaluation import inputs
from keras_epsched.evaluation.report import Report

_PROTOCOLS = ("nested", "independent")
# From this share on, images without any gradient are reported.
_ZERO_GRADIENT_SHARE = 0.01


def evaluate(
    classifier: keras.Model,
    dataset,
    epsilons,
    attack: Attack | None = None,
    *,
    protocol: str = "nested",
    value_range: tuple[float, float] = (0, 255),
    batch_size: int | None = None,
    seed: int = 0,
    jit_compile: bool | str = "auto",
    trained_on=(),
    verbose: int = 1,
) -> Report:
    """Measures the accuracy of a classifier at every epsilon of a grid.

    The mean over the grid is *expected robustness* (arXiv 2509.23325). Two
    protocols, which the report names:

    - `"nested"` attacks an image at one epsilon after the other, each time
      from the best point of the one before, and stops when it is broken: a
      point that breaks it lies in every larger ball too. Cheaper, at least as
      strong on the whole, and never rising with epsilon.
    - `"independent"` attacks each epsilon afresh, as in the paper.

    An image that is misclassified without any attack counts as wrong at every
    epsilon and is not attacked. Random starts depend on the seed, the place of
    the image in the dataset and epsilon's place in the grid, not on batches.

    Args:
        classifier: `keras.Model` from pixels to logits. A trainer is refused:
            pass `trainer.model`.
        dataset: Batches of `(images, labels)`, as `data.test` of
            `keras_epsched.datasets.load`, in a fixed order; or a pair of
            arrays.
        epsilons: Ascending floats on the [0, 1] scale, see `epsilon_grid`. 0
            is added if it is missing. Read in the norm of `attack`.
        attack: `Attack`. Defaults to the paper's, `APGD(steps=10)` for
            l-infinity.
        protocol: `"nested"` or `"independent"`.
        value_range: Pair. Lowest and highest pixel value.
        batch_size: Int. Images attacked together. Defaults to the size of the
            dataset's first batch.
        seed: Int. Seed of the random starts.
        jit_compile: Boolean or `"auto"`: compile the attack with XLA;
            `"auto"` where there is a GPU.
        trained_on: Splits (`SplitInfo`) that the classifier has seen, to warn
            of an overlap. Those of a trainer's `fit` in this process are
            known by themselves.
        verbose: Int. 0 hides the progress bar.

    Returns:
        A `Report`.

    Raises:
        ValueError: If an argument, the data or the classifier's output is not
            fit for an evaluation.

    Example:
    ```python
    report = keras_epsched.evaluate(
        classifier,
        data.test,
        epsilons=keras_epsched.epsilon_grid(4 / 255),
    )
    print(report)
    report.expected_robustness()
    ```
    """
    attack = APGD(steps=10) if attack is None else attack
    if hasattr(classifier, "attack") and hasattr(classifier, "model"):
        raise ValueError(
            "evaluate the classifier, not the trainer: pass `trainer.model`"
        )
    if protocol not in _PROTOCOLS:
        raise ValueError(
            f"`protocol` must be one of {_PROTOCOLS}. Received: "
            f"protocol={protocol!r}"
        )
    sweep = _Sweep(
        classifier,
        inputs.check_grid(epsilons, attack.norm),
        attack,
        protocol == "nested",
        checks.check_value_range(value_range),
        seed,
        jit_compile,
    )
    split = getattr(dataset, "split_info", None)
    notes = inputs.overlap_notes(classifier, split, trained_on)
    started = time.perf_counter()
    images = inputs.batches(dataset, batch_size)
    total = split.num_examples if split else inputs.length(dataset)
    with tqdm(
        total=total, unit="image", disable=not verbose, desc="robustness"
    ) as bar:
        sweep.run(images, batch_size, bar.update)
    if not sweep.images:
        raise ValueError("expected images. Received: an empty dataset")
    if split is not None and len(sweep.images) != split.num_examples:
        # Said in the report, for an error would lose hours of work.
        notes.append(
            f"the split {split} has {split.num_examples} images, but the "
            f"dataset yielded {len(sweep.images)}: evaluate without "
            "`drop_remainder`, `take` or a filter"
        )
    zero = sum(image.zero_gradient for image in sweep.images)
    attacked = sum(bool(image.correct[0]) for image in sweep.images)
    if zero > _ZERO_GRADIENT_SHARE * max(attacked, 1):
        notes.append(
            f"the attack found no gradient at all on {zero} of {attacked} "
            "images, so it could not work there and the accuracies are too "
            "high: look for rounding, saturated activations or float16 in the "
            "model"
        )
    for note in notes:
        warnings.warn(note, stacklevel=2)
    forward, backward = attack.search_passes
    steps = len(sweep.epsilons) - 1
    count = len(sweep.images)
    return Report(
        epsilons=sweep.epsilons,
        correct=np.array([image.correct for image in sweep.images]),
        labels=np.array([image.label for image in sweep.images]),
        predictions=np.array([image.prediction for image in sweep.images]),
        image_ids=np.arange(count),
        norm=attack.norm,
        protocol=protocol,
        attack=keras.saving.serialize_keras_object(attack),
        attack_name=repr(attack),
        dataset=asdict(split) if is_dataclass(split) else None,
        value_range=sweep.value_range,
        seed=seed,
        forward_passes=count + sweep.attacks * forward,
        backward_passes=sweep.attacks * backward,
        naive_forward_passes=count + count * steps * forward,
        naive_backward_passes=count * steps * backward,
        seconds=time.perf_counter() - started,
        zero_gradient_images=zero,
        model_name=classifier.name,
        notes=notes,
    )


@dataclass(repr=False, eq=False)
class _Image:
    """An image on its way through the sweep."""

    number: int
    label: int
    prediction: int
    correct: np.ndarray
    pixels: np.ndarray | None
    best: np.ndarray | None = None
    waiting: int = 0
    zero_gradient: bool = False


# TensorFlow prints the owner of a traced method: no images in its repr.
@dataclass(repr=False, eq=False)
class _Sweep:
    classifier: keras.Model
    epsilons: np.ndarray
    attack: Attack
    nested: bool
    value_range: tuple[float, float]
    seed: int
    jit_compile: bool | str
    images: list = field(default_factory=list)
    attacks: int = 0

    def __post_init__(self):
        self._queue = deque()
        self._predict = backend.compile(self._logits, self.jit_compile)
        self._search = backend.compile(self._attack_batch, self.jit_compile)

    def _logits(self, images):
        return ops.cast(self.classifier(images, training=False), "float32")

    def _attack_batch(
        self, images, labels, epsilons, numbers, places, start, use_start
    ):
        return self.attack.search(
            self._logits,
            images,
            labels,
            epsilons,
            noise.make_key(self.seed, numbers, places),
            self.value_range,
            start=start,
            use_start=use_start,
        )

    def run(self, batches, batch_size, progress):
        """Sends every image through the sweep."""
        for pixels, labels in batches:
            batch_size = batch_size or len(pixels)
            self._admit(pixels, labels, batch_size, progress)
            while len(self._queue) >= batch_size:
                self._attack(batch_size, progress)
        while self._queue:
            self._attack(batch_size, progress)

    def _admit(self, pixels, labels, batch_size, progress):
        """The clean pass: what is classified correctly joins the queue."""
        checks.check_images(pixels, self.value_range, scale=not self.images)
        pixels = np.asarray(pixels, "float32").clip(*self.value_range)
        logits = np.asarray(self._predict(_pad(pixels, batch_size)))
        logits = logits[: len(pixels)]
        checks.check_logits(logits)
        checks.check_labels(labels, logits.shape[1])
        labels = np.asarray(checks.class_labels(labels, logits.shape[1]))
        for image, label, row in zip(pixels, labels, logits, strict=True):
            prediction = int(np.argmax(row))
            hit = prediction == label
            state = _Image(
                number=len(self.images),
                label=int(label),
                prediction=prediction,
                correct=np.full(len(self.epsilons), hit),
                pixels=image if hit else None,
            )
            self.images.append(state)
            places = range(1, len(self.epsilons)) if hit else ()
            if self.nested:
                places = places[:1]
            state.waiting = len(places)
            self._queue.extend((state, place) for place in places)
            if not places:
                progress(1)

    def _attack(self, batch_size, progress):
        """Attacks the front of the queue."""
        count = min(batch_size, len(self._queue))
        items = [self._queue.popleft() for _ in range(count)]
        warm = [image.best is not None for image, _ in items]
        pixels = np.stack([image.pixels for image, _ in items])
        start = np.stack(
            [
                image.pixels if (best := image.best) is None else best
                for image, _ in items
            ]
        )
        columns = (
            pixels,
            np.array([image.label for image, _ in items], "int32"),
            # Slots that are left over get the radius 0.
            np.array([self.epsilons[at] for _, at in items], "float32"),
            np.array([image.number for image, _ in items], "int64"),
            np.array([at for _, at in items], "int64"),
            start,
            np.array(warm),
        )
        result = self._search(*(_pad(each, batch_size) for each in columns))
        broken, best, zero = (
            np.asarray(each)[:count]
            for each in (result.broken, result.best, result.zero_gradient)
        )
        self.attacks += count
        for slot, (image, place) in enumerate(items):
            image.zero_gradient |= bool(zero[slot])
            self._settle(image, place, broken[slot], best[slot], progress)

    def _settle(self, image, place, broken, best, progress):
        """Notes what an attack found, and queues what follows from it."""
        image.waiting -= 1
        if self.nested:
            if broken:
                image.correct[place:] = False
            elif place + 1 < len(self.epsilons):
                # The same direction, out to the larger sphere.
                growth = self.epsilons[place + 1] / self.epsilons[place]
                image.best = image.pixels + np.float32(growth) * (
                    best - image.pixels
                )
                image.waiting += 1
                self._queue.append((image, place + 1))
        elif broken:
            image.correct[place] = False
        if not image.waiting:
            image.pixels = image.best = None
            progress(1)


def _pad(values, size):
    """Fills a batch up to its fixed size, so that nothing is retraced."""
    missing = size - len(values)
    if missing <= 0:
        return values
    return np.concatenate(
        [values, np.zeros_like(values[:1]).repeat(missing, 0)]
    )
