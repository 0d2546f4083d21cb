"""Batches of images and labels, for training and for evaluation.

`fit` takes everything that Keras takes: arrays, `tf.data` datasets,
`PyDataset`s, torch loaders and generators. This module checks a batch of any of
them and raises the same error messages, before NumPy or a compiled step would
fail with another message.
"""

import contextlib
import sys
import types
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

_ENDLESS = (
    "The dataset must have an end. Leave out `repeat()`, or take only one "
    "pass: `dataset.take(number_of_batches)`. Received: an endless dataset"
)
# Number of images by which a repetition is recognised.
_FEWEST = 8
_EXPECTED = "The data must yield batches (images, labels)"


def as_arrays(batch) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels of a batch as arrays.

    Args:
        batch: A batch of a dataset: `(images, labels)`, or
            `(images, labels, sample_weights)`.

    Returns:
        A pair of arrays: images of shape `(batch, ...)`, and labels.

    Raises:
        ValueError: If the batch has another form.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            f"{_EXPECTED}, because attacks need labels. Received: "
            f"a batch of type {type(batch).__name__}"
        )
    images = _one_array(batch[0], "images")
    labels = _one_array(batch[1], "labels")
    if labels.dtype.kind in "USO":
        raise ValueError(
            "Labels must be class numbers that start at 0. Received: labels "
            f"such as {labels.ravel()[0]!r}. Number them: `names, labels = "
            "numpy.unique(labels, return_inverse=True)`."
        )
    if images.dtype.kind not in "fiub" and str(images.dtype) != "bfloat16":
        raise ValueError(
            "Images must be arrays of numbers. Received: images of dtype "
            f"{images.dtype}"
        )
    if images.ndim < 2 or labels.ndim < 1 or len(images) != len(labels):
        raise ValueError(
            f"{_EXPECTED}, with as many labels as images. Received: arrays of "
            f"shapes {images.shape} and {labels.shape}. If the dataset yields "
            "single images, batch it: `dataset.batch(...)`."
        )
    return images, labels


def until_end(dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of a dataset as pairs of arrays.

    Args:
        dataset: Iterable of batches, or a `PyDataset`.

    Raises:
        ValueError: If the dataset has no end, or if a batch is not valid.
    """
    size = getattr(dataset, "cardinality", None)
    # -1 is the cardinality of endless datasets of `tf.data`.
    if callable(size) and int(size()) == -1:
        raise ValueError(_ENDLESS + " (its cardinality is infinite)")
    if not hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__"):
        raise ValueError(_not_data(dataset))
    # A dataset may contain a few images twice. Only a repetition of at least
    # `_FEWEST` images counts as a new pass.
    first: list[np.ndarray] = []
    last: list[np.ndarray] = []
    for number, batch in enumerate(_each(dataset)):
        images, labels = as_arrays(batch)
        if sum(map(len, first)) < _FEWEST:
            first.append(images)
        else:
            last = [*last, images][-len(first) :]
        if len(last) == len(first) and all(map(np.array_equal, first, last)):
            raise ValueError(
                f"{_ENDLESS}, or one that repeats after "
                f"{number + 1 - len(first)} batches"
            )
        yield images, labels


def _each(dataset):
    if hasattr(dataset, "__iter__") or not hasattr(dataset, "__len__"):
        return dataset
    # For example a `PyDataset` of older Keras. It ends at its length, but
    # Python's iteration would go on after it.
    return map(dataset.__getitem__, range(len(dataset)))


def _one_array(values, name):
    """Returns the values of one input or output as an array."""
    if isinstance(values, dict):
        received = f"a dict with the keys {list(values)}"
    elif isinstance(values, (tuple, list)) and any(
        hasattr(each, "shape") and len(each.shape) > 0 for each in values
    ):
        received = f"{len(values)} arrays"
    else:
        return np.asarray(ops.convert_to_numpy(values))
    raise ValueError(
        f"The {name} must be one array, because the attacked classifier has "
        f"one input and one output. Received: {received}. Select one in the "
        "data: `dataset.map(lambda x, y: (x[...], y[...]))`."
    )


def look(x, y=None):
    """Returns the first batch of the data of `fit`.

    Args:
        x: Arrays, or any object that yields batches.
        y: Labels, if `x` is an array.

    Returns:
        A pair. Its first item is a pair of arrays, images and labels. It is
        `None` for a distributed dataset and without data. If `x` is an array,
        the first item has all images. The second item is the data to train
        on. It is `x`, but for a generator it is a new generator that yields
        all batches, because the first batch can be taken only once.

    Raises:
        ValueError: If there is no batch, or if the batch is not valid.
    """
    if x is None:
        return None, x
    if y is not None:
        return as_arrays((x, y)), x
    if hasattr(x, "shape"):
        raise ValueError(
            f"{_EXPECTED}, because attacks need labels. Received: only images"
        )
    if isinstance(x, (list, tuple)):
        raise ValueError(
            f"{_EXPECTED}. Received: a {type(x).__name__}, which `fit` reads "
            "as several inputs. Pass images and labels as two arguments, "
            "`fit(images, labels)`, or pass a dataset."
        )
    if isinstance(x, types.GeneratorType):
        batch = next(x, None)
        x = _chained(batch, x)
    elif isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif hasattr(x, "element_spec") and not hasattr(x, "take"):
        return None, x
    elif hasattr(x, "take") and hasattr(x, "element_spec"):
        iterator = iter(x if getattr(x, "is_cached", False) else x.take(1))
        batch = next(iterator, None)
        for _ in iterator:
            # A cache that is not read to its end is thrown away.
            pass
    elif hasattr(x, "__iter__") and not hasattr(x, "__next__"):
        with _without_draws():
            batch = next(iter(x), None)
    else:
        raise ValueError(_not_data(x))
    if batch is None:
        raise ValueError(
            "The training data must have at least one batch. Received: an "
            "empty dataset"
        )
    return as_arrays(batch), x


def _not_data(x):
    return (
        f"{_EXPECTED}. Pass a dataset, a `keras.utils.PyDataset`, a loader or "
        f"a generator. Received: {type(x).__name__}"
    )


def _chained(first, rest):
    yield first
    yield from rest


def _without_draws():
    """Keeps the random state of torch, from which a loader draws its seed."""
    torch = sys.modules.get("torch")
    if torch is None:
        return contextlib.nullcontext()
    return torch.random.fork_rng(devices=[])
