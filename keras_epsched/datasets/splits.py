"""Chooses the examples for training, validation and test."""

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from keras_epsched.provenance import SplitInfo

if TYPE_CHECKING:
    from keras_epsched.datasets.sources import Source

PARTS = ("train", "validation", "test")

_OWN_VALIDATION = "validation"


@dataclasses.dataclass(frozen=True)
class Part:
    """A rule for one split: an interval of a stored split, in some order.

    Args:
        base: String. The stored split.
        start: Integer. First position of the interval.
        stop: Integer or `None`. Position after the last one; `None` means the
            end of the split.
        order: String. `"stored"`, `"stratified"` or `"balanced"`.
        seed: Integer. Seed of the order. Not used by the stored order.
        text: String. The interval in the notation of tfds, if it differs from
            `base[start:stop]`.
    """

    base: str
    start: int = 0
    stop: int | None = None
    order: str = "stored"
    seed: int = 0
    text: str = ""


def permutation(labels: np.ndarray, order: str, seed: int) -> np.ndarray:
    """Returns a seeded order of examples that mixes the classes.

    `"stratified"`: the first (or last) k of N examples contain the share
    k / N of each class, rounded to whole images. Classes of very few images
    come in the middle, so they stay in the training part if the end is held
    out.

    `"balanced"`: the first k * (number of classes) examples contain k images
    of each class.

    Intervals of one order that do not overlap are disjoint splits. A smaller
    held-out share is part of a larger one.

    Args:
        labels: Array of integers from 0.
        order: String, `"stratified"` or `"balanced"`.
        seed: Integer.

    Returns:
        Array of the numbers of the examples, in the new order.

    Example:
    ```python
    labels = np.array([0, 0, 0, 0, 1, 1])
    labels[permutation(labels, "balanced", seed=0)[:4]]  # two of each
    ```
    """
    generator = np.random.default_rng(seed)
    # Sorted uniform draws, because NumPy may change how it shuffles.
    within, between = generator.random((2, len(labels)))
    by_class = np.lexsort((within, labels))
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - first[labels[by_class]]
    if order == "balanced":
        return np.lexsort((between, rank))
    return np.lexsort((between, (rank + 0.5) / counts[labels]))


def resolve(source: "Source", part: Part) -> tuple[SplitInfo, np.ndarray]:
    """Returns the examples that a rule selects.

    Args:
        source: `Source`. The examples of the dataset.
        part: `Part`. The rule.

    Returns:
        A `SplitInfo`, and the numbers of the examples within the stored
        split, ascending.

    Raises:
        ValueError: If an order needs labels that are missing, or the stored
            split has fewer examples.
    """
    size = source.split_sizes[part.base]
    stop = size if part.stop is None else part.stop
    if not 0 <= part.start < stop <= size:
        raise ValueError(
            f"The split {part.base!r} of {source.name} has {size} examples, "
            f"so it has no part from {part.start} to {stop}."
        )
    interval = f"{part.base}[{part.start}:{stop}]"
    if part.order == "stored":
        whole = part.start == 0 and stop == size
        text = part.text or (part.base if whole else interval)
        order, seed, digest = "stored", None, ""
        numbers = np.arange(part.start, stop)
    else:
        order, seed = part.order, part.seed
        text = f"{interval} {order}, seed {seed}"
        chosen, digest = _ordered(source, part.base, order, seed)
        numbers = np.sort(chosen[part.start : stop])
    info = SplitInfo(
        dataset=source.name,
        split=text,
        base=part.base,
        start=part.start,
        stop=stop,
        num_examples=stop - part.start,
        order=order,
        seed=seed,
        digest=digest,
    )
    return info, numbers


def _ordered(source, base, order, seed):
    """Returns the order of a stored split, and a digest of the order."""
    labels = source.labels(base)
    unlabelled = np.sum((labels < 0) | (labels >= len(source.class_names)))
    if unlabelled:
        raise ValueError(
            f"{unlabelled} of the {len(labels)} examples in the split "
            f"{base!r} of {source.name} have no valid label, so no {order} "
            "part of it can be chosen. Expected labels from 0 to "
            f"{len(source.class_names) - 1}. Received: {labels.min()} to "
            f"{labels.max()}. Label or remove these examples. If they are "
            "test images, do not pass `test_examples`."
        )
    numbers = permutation(labels, order, seed)
    content = source.content(base) + numbers.astype("<i8").tobytes()
    return numbers, hashlib.sha256(content).hexdigest()[:16]


def own_parts(
    source: "Source",
    validation_split: float,
    test_examples: int | None,
    stratify: bool,
    seed: int,
    test_split: float | None = None,
) -> dict[str, Part]:
    """Returns the rules of a dataset that is not split as in the paper.

    Args:
        source: `Source`. The examples of the dataset.
        validation_split: Float in `(0, 1)`. The share of `"train"` to hold
            out if there is no `"validation"` split, or if it is the test set.
        test_examples: Integer or `None`. Size of a stratified sample of the
            test images. `None` uses all of them.
        stratify: Boolean. `True` holds out every class in proportion; `False`
            holds out the end of `"train"` as stored.
        seed: Integer. Seed of the choices.
        test_split: Float in `(0, 1)` or `None`. The share of `"train"` to
            test on if there is neither a test nor a validation split.

    Returns:
        Dict from `"train"`, `"validation"` and `"test"` to a `Part`.

    Raises:
        ValueError: If a split is missing or a part would be empty.
    """
    sizes = dict(source.split_sizes)
    test = "test" if sizes.get("test") else _OWN_VALIDATION
    if not sizes.get("train"):
        raise ValueError(
            f"{source.name} has no images in a split 'train' to train on. Its "
            f"splits are {sizes}."
        )
    if test_split is not None:
        if sizes.get(test) or test_examples is not None:
            raise ValueError(
                "`test_split` is for datasets without a split to test on, and "
                "cannot be combined with `test_examples`. Received: "
                f"test_split={test_split}, test_examples={test_examples}; "
                f"{source.name} has the splits {sizes}."
            )
        return _cut(source, validation_split, test_split, stratify, seed)
    if not sizes.get(test):
        raise ValueError(
            f"{source.name} has no images to test on: it has neither a split "
            f"'test' nor 'validation'. Its splits are {sizes}. Hold out a "
            "share of 'train', for example with `test_split=0.2` "
            "(--test_split=0.2)."
        )
    if test_examples is not None and not 0 < test_examples <= sizes[test]:
        raise ValueError(
            "`test_examples` must be from 1 to the number of test images: "
            f"{source.name} has {sizes[test]}. Received: "
            f"test_examples={test_examples}."
        )
    if sizes.get(_OWN_VALIDATION) and test != _OWN_VALIDATION:
        train, validation = Part("train"), Part(_OWN_VALIDATION)
    else:
        train, validation = _held_out(source, validation_split, stratify, seed)
    if test_examples in (None, sizes[test]):
        tested = Part(test)
    else:
        tested = Part(test, 0, test_examples, "stratified", seed)
    return {"train": train, "validation": validation, "test": tested}


def _cut(source, validation, test, stratify, seed) -> dict[str, Part]:
    """Holds out the end of the training images for validation and test."""
    size = source.split_sizes["train"]
    edges = round((1 - validation - test) * size), round((1 - test) * size)
    if not 0 < edges[0] < edges[1] < size:
        raise ValueError(
            "The training, validation or test part would have no images: "
            f"{source.name} has {size} training images. Received: "
            f"validation_split={validation}, test_split={test}. Change these "
            "shares."
        )
    order = "stratified" if stratify else "stored"
    bounds = {
        "train": (0, edges[0]),
        "validation": edges,
        "test": (edges[1], None),
    }
    return {
        name: Part("train", *each, order, seed) for name, each in bounds.items()
    }


def _held_out(source, share, stratify, seed) -> tuple[Part, Part]:
    """Holds out the end of the training images for validation."""
    size = source.split_sizes["train"]
    percent = 100 * (1 - share)
    boundary = round((1 - share) * size)
    edge = str(boundary)
    if not stratify and abs(percent - round(percent)) < 1e-9:
        # Rounds as tfds does, so that the text names the same slice there.
        boundary = round(round(percent) * size / 100)
        edge = f"{round(percent)}%"
    if not 0 < boundary < size:
        raise ValueError(
            f"The training or the validation part would be without images: "
            f"{source.name} has {size} training images. Received: "
            f"validation_split={share}. Change this share."
        )
    if stratify:
        return (
            Part("train", 0, boundary, "stratified", seed),
            Part("train", boundary, None, "stratified", seed),
        )
    return (
        Part("train", 0, boundary, text=f"train[:{edge}]"),
        Part("train", boundary, None, text=f"train[{edge}:]"),
    )
