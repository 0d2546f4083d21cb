"""What a batch of images and labels is, for training and for evaluation.

`fit` takes whatever Keras takes: arrays, datasets of `tf.data`, `PyDataset`s,
loaders of torch, generators. What is wrong with a batch is said here, in the
same words for all of them, before NumPy or a compiled step stumbles over it.
"""

import contextlib
import sys
import types
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

_ENDLESS = (
    "the dataset must have an end. Leave out `repeat()`, or take one pass of "
    "it: `dataset.take(number_of_batches)`. Received: an endless dataset"
)
# Images of a batch that is recognised when it comes again.
_FEWEST = 8
_EXPECTED = "the data must yield batches (images, labels)"


def as_arrays(batch) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels of a batch as arrays.

    Args:
        batch: What a dataset yields: `(images, labels)`, or with weights
            behind.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            f"{_EXPECTED}: attacks need labels. Received: "
            f"a batch of type {type(batch).__name__}"
        )
    images = _one_array(batch[0], "images")
    labels = _one_array(batch[1], "labels")
    if labels.dtype.kind in "USO":
        raise ValueError(
            "labels must be the numbers of classes, from 0 on. Received: "
            f"labels such as {labels.ravel()[0]!r}. Number them: `names, "
            "labels = numpy.unique(labels, return_inverse=True)`."
        )
    if images.dtype.kind not in "fiub" and str(images.dtype) != "bfloat16":
        raise ValueError(
            "images must be arrays of numbers. Received: images of dtype "
            f"{images.dtype}"
        )
    if images.ndim < 2 or labels.ndim < 1 or len(images) != len(labels):
        raise ValueError(
            f"{_EXPECTED}, as many labels as images. Received: arrays of "
            f"shapes {images.shape} and {labels.shape}. A dataset of single "
            "images must be batched: `dataset.batch(...)`."
        )
    return images, labels


def until_end(dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of a dataset as arrays, if it has an end.

    Raises:
        ValueError: If it says that it has none, or begins again, or if a batch
            is not as expected.
    """
    size = getattr(dataset, "cardinality", None)
    # -1 is the cardinality of endless datasets of `tf.data`.
    if callable(size) and int(size()) == -1:
        raise ValueError(_ENDLESS + ": it says that it has none")
    if not hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__"):
        raise ValueError(_not_data(dataset))
    # A few images may well be there twice: so many as are recognised.
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
                f"{_ENDLESS}, or one that begins again after "
                f"{number + 1 - len(first)} batches"
            )
        yield images, labels


def _each(dataset):
    if hasattr(dataset, "__iter__") or not hasattr(dataset, "__len__"):
        return dataset
    # As a `PyDataset` of older Keras, whose end is its length: Python would
    # take what lies behind it, too.
    return map(dataset.__getitem__, range(len(dataset)))


def _one_array(values, name):
    """An array, of one input or output."""
    if isinstance(values, dict):
        received = f"a dict with the keys {list(values)}"
    elif isinstance(values, (tuple, list)) and any(
        hasattr(each, "shape") and len(each.shape) > 0 for each in values
    ):
        received = f"{len(values)} arrays"
    else:
        return np.asarray(ops.convert_to_numpy(values))
    raise ValueError(
        f"{name} must be one array: the classifier to attack has one input "
        f"and one output. Received: {received}. Pick them in the data: "
        "`dataset.map(lambda x, y: (x[...], y[...]))`."
    )


def look(x, y=None):
    """Looks at the first batch of what `fit` is given.

    Args:
        x: Arrays, or anything that yields batches.
        y: Labels, where `x` is an array.

    Returns:
        A pair: images and labels as arrays, and what to train on in place of
        `x`. Arrays are returned whole. A generator loses what is taken from
        it, so that another one is returned, which begins with that batch.
        Instead of the arrays it is `None` for a dataset that is distributed
        over replicas, and for no data at all.

    Raises:
        ValueError: If there is no batch, or the batch is not as expected.
    """
    if x is None:
        return None, x
    if y is not None:
        return as_arrays((x, y)), x
    if hasattr(x, "shape"):
        raise ValueError(
            f"{_EXPECTED}: attacks need labels. Received: images alone"
        )
    if isinstance(x, (list, tuple)):
        raise ValueError(
            f"{_EXPECTED}, and `fit` takes a list for several inputs. Pass "
            "images and labels as two arrays, or a dataset. Received: a "
            f"{type(x).__name__}"
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
        raise ValueError("expected training data. Received: an empty dataset")
    return as_arrays(batch), x


def _not_data(x):
    return (
        f"{_EXPECTED}, as a dataset, a `keras.utils.PyDataset`, a loader or a "
        f"generator does. Received: {type(x).__name__}"
    )


def _chained(first, rest):
    yield first
    yield from rest


def _without_draws():
    """Leaves torch's random state as it is: a loader draws its seed from it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return contextlib.nullcontext()
    return torch.random.fork_rng(devices=[])
