"""What an evaluation is given: the grid, the batches, the split."""

import numpy as np

from keras_epsched.epsilons import check_epsilon


def check_grid(epsilons, norm):
    """Returns the grid as an ascending array that begins with 0."""
    grid = [check_epsilon(each, norm) for each in np.atleast_1d(epsilons)]
    if any(b <= a for a, b in zip(grid, grid[1:], strict=False)):
        raise ValueError(
            f"`epsilons` must be strictly ascending. Received: {grid}"
        )
    grid = grid if grid and grid[0] == 0 else [0.0, *grid]
    if len(grid) < 2:
        raise ValueError(
            "`epsilons` must name at least one strength above 0, see "
            f"`epsilon_grid`. Received: epsilons={epsilons}"
        )
    return np.array(grid)


def batches(dataset, batch_size):
    """Yields batches of images and labels as arrays."""
    if _is_pair_of_arrays(dataset):
        images, labels = (np.asarray(each) for each in dataset)
        if len(images) != len(labels):
            raise ValueError(
                "images and labels must be of one length. Received: "
                f"{len(images)} images and {len(labels)} labels"
            )
        size = batch_size or 64
        for at in range(0, len(images), size):
            yield images[at : at + size], labels[at : at + size]
        return
    for batch in dataset:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise ValueError(
                "the dataset must yield (images, labels). Received: a batch "
                f"of type {type(batch).__name__}"
            )
        yield np.asarray(batch[0]), np.asarray(batch[1])


def _is_pair_of_arrays(dataset):
    # A list of two batches is a dataset, not a pair.
    return (
        isinstance(dataset, (tuple, list))
        and len(dataset) == 2
        and hasattr(dataset[0], "shape")
    )


def length(dataset):
    """Number of images, where it is known without reading them."""
    return len(dataset[0]) if _is_pair_of_arrays(dataset) else None


def overlap_notes(classifier, split, trained_on):
    """Notes on splits that were both trained on and evaluated."""
    seen = (*trained_on, *getattr(classifier, "training_splits", ()))
    if split is None:
        return []
    return [
        f"the classifier was trained on {each}, which overlaps with the split "
        f"that is evaluated, {split}: the result says nothing about new images"
        for each in dict.fromkeys(seen)
        if split.overlaps(each)
    ]
