"""The inputs of an evaluation: the grid, the batches, the split."""

import hashlib
import numbers
import operator

import keras
import numpy as np
from keras import ops

from keras_epsched import provenance
from keras_epsched.batches import as_arrays, until_end
from keras_epsched.epsilons import check_epsilon
from keras_epsched.reports.density import grid_place


def check_grid(epsilons, norm):
    """Returns the epsilons as an ascending array that begins with 0."""
    grid = [check_epsilon(each, norm) for each in np.atleast_1d(epsilons)]
    if any(b <= a for a, b in zip(grid, grid[1:], strict=False)):
        raise ValueError(
            f"`epsilons` must be strictly ascending. Received: {grid}"
        )
    grid = grid if grid and grid[0] == 0 else [0.0, *grid]
    if len(grid) < 2:
        raise ValueError(
            "`epsilons` must have at least one value above 0, see "
            f"`epsilon_grid`. Received: epsilons={epsilons}"
        )
    return np.array(grid)


def check_target(target_epsilon, grid):
    """Returns the target epsilon, by default the last one of the grid."""
    if target_epsilon is None:
        return float(grid[-1])
    place = grid_place(grid, target_epsilon)
    if not place:
        raise ValueError(
            "`target_epsilon` must be one of `epsilons` and above 0. Received: "
            f"target_epsilon={target_epsilon}, epsilons={grid}"
        )
    return float(grid[place])


def batches(dataset, batch_size):
    """Yields batches of images and labels as arrays."""
    if _is_pair_of_arrays(dataset):
        images, labels = as_arrays(dataset)
        size = batch_size or 64
        for at in range(0, len(images), size):
            yield images[at : at + size], labels[at : at + size]
        return
    yield from until_end(dataset)


def windows(stream, size, shard, image_ids):
    """Yields windows of `size` images: pixels, labels and numbers.

    Args:
        stream: Iterable of batches of images and labels.
        size: Int. Images in a window.
        shard: Pair `(index, count)` or `None`.
        image_ids: Integers, the ids of all images, or `None` to number them.
    """
    rest, position, shape = [], 0, None
    for pixels, labels in stream:
        shape = shape or pixels.shape[1:]
        if pixels.shape[1:] != shape:
            raise ValueError(
                "All images must have the same size. Received: images of shape "
                f"{shape} and of shape {pixels.shape[1:]}. Resize them."
            )
        numbers = np.arange(position, position + len(pixels))
        position += len(pixels)
        mine = slice(None) if shard is None else numbers % shard[1] == shard[0]
        if image_ids is not None:
            numbers = image_ids[position - len(pixels) : position]
            if len(numbers) < len(pixels):
                raise ValueError(
                    "`image_ids` must have one number for each image. "
                    f"Received: {len(image_ids)} numbers for at least "
                    f"{position} images"
                )
        rest.append((pixels[mine], labels[mine], numbers[mine]))
        while sum(len(each[0]) for each in rest) >= size:
            joined = [np.concatenate(each) for each in zip(*rest, strict=True)]
            yield tuple(each[:size] for each in joined)
            rest = [tuple(each[size:] for each in joined)]
    joined = [np.concatenate(each) for each in zip(*rest, strict=True)]
    if joined and len(joined[0]):
        yield tuple(joined)


def check_shard(shard):
    """Returns a pair `(index, count)` or `None`."""
    if shard is None:
        return None
    try:
        index, count = (operator.index(each) for each in shard)
        fits = 0 <= index < count
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            "`shard` must be a pair of integers (index, count) with "
            f"0 <= index < count. Received: shard={shard!r}"
        )
    return index, count


def check_seed(seed) -> int:
    """Returns a seed as a Python integer, or raises a `ValueError`."""
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not whole or not -(2**63) <= seed < 2**63:
        raise ValueError(
            f"`seed` must be a 64-bit integer. Received: seed={seed!r}"
        )
    return int(seed)


def check_ids(image_ids):
    """Returns the ids of all images as an array, or `None`."""
    if image_ids is None:
        return None
    ids = np.asarray(image_ids)
    whole = ids.ndim == 1 and np.array_equal(ids, ids.astype("int64"))
    if not whole or np.unique(ids).size != ids.size:
        raise ValueError(
            "`image_ids` must be different whole numbers, one for each image. "
            f"Received: an array of shape {ids.shape} and dtype {ids.dtype} "
            f"with {np.unique(ids).size} different values"
        )
    return ids.astype("int64")


def fingerprint(classifier) -> str:
    """Returns a checksum of the weights, which identifies a model."""
    digest = hashlib.sha256()
    for weight in classifier.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).data)
    return digest.hexdigest()


def precision(classifier) -> str:
    """Returns the dtypes in which the layers of a classifier compute."""
    dtypes = {
        layer.compute_dtype
        for layer in classifier._flatten_layers()
        if layer.weights and not isinstance(layer, keras.Model)
    }
    return ", ".join(sorted(dtypes)) or classifier.compute_dtype


def device() -> str:
    """Returns the device that computes: `"CPU"`, `"GPU"` or `"TPU"`."""
    name = str(ops.zeros(1).device).upper()
    for kind in ("GPU", "CUDA", "TPU"):
        if kind in name:
            return "GPU" if kind == "CUDA" else kind
    return "CPU"


def _is_pair_of_arrays(dataset):
    # A list of two batches is a dataset, not a pair of arrays.
    return (
        isinstance(dataset, (tuple, list))
        and len(dataset) == 2
        and hasattr(dataset[0], "shape")
    )


def length(dataset):
    """Returns the number of images, or `None` if they must be read first."""
    return len(dataset[0]) if _is_pair_of_arrays(dataset) else None


def overlap_notes(classifier, split, trained_on):
    """Returns warnings if images were both trained on and evaluated."""
    seen = (*trained_on, *provenance.splits_seen_by(classifier))
    if split is None:
        return []
    return [
        f"the classifier was trained on {each}, which overlaps with the "
        f"evaluated split {split}. The result does not hold for new images"
        for each in dict.fromkeys(seen)
        if split.overlaps(each)
    ]
