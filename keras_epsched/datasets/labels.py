"""Counts the images of each class, and warns about missing labels."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_epsched.datasets.sources import Source

IMBALANCE = 10
_NAMED = 10


def count(source: "Source", base: str, numbers: np.ndarray) -> np.ndarray:
    """Counts the images of each class.

    Args:
        source: `Source`. The examples of the dataset.
        base: String. The stored split.
        numbers: Array of integers. The examples of the split to count.

    Returns:
        Array of integers, one for each class. Images without a valid label
        are not counted.
    """
    labels = source.labels(base)[numbers]
    num_classes = len(source.class_names)
    valid = labels[(labels >= 0) & (labels < num_classes)]
    return np.bincount(valid, minlength=num_classes)


def check(
    name: str,
    class_names: tuple[str, ...],
    counts: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
) -> None:
    """Checks the labels of all parts.

    It warns about unlabelled test images, classes without a training image,
    and imbalanced classes.

    Args:
        name: String. The dataset.
        class_names: Tuple of strings.
        counts: Mapping from each part to the number of images of each class.
        sizes: Mapping from each part to its number of images.

    Raises:
        ValueError: If training or validation images have no valid label.
    """
    for part, of_class in counts.items():
        unlabelled = sizes[part] - int(of_class.sum())
        if not unlabelled:
            continue
        message = (
            f"{unlabelled} of the {sizes[part]} {part} images of {name} have "
            f"no valid label. Expected 0 to {len(class_names) - 1}; tfds "
            "stores -1 if the authors published no label."
        )
        if part != "test":
            raise ValueError(f"{message} Label or remove these images.")
        warnings.warn(
            f"{message} Accuracy on these images has no meaning. Evaluate on "
            "the validation images instead: `keras_epsched.evaluate(net, "
            "data.validation, ...)`.",
            stacklevel=3,
        )
    train = counts["train"]
    absent = [class_names[i] for i in np.flatnonzero(train == 0)]
    if absent:
        warnings.warn(
            f"{len(absent)} of the {len(class_names)} classes of {name} have "
            "no training image, so the model cannot learn them: "
            f"{absent[:_NAMED]}",
            stacklevel=3,
        )
    present = train[train > 0]
    if present.size and present.max() > IMBALANCE * present.min():
        most, least = (
            class_names[train.argmax()],
            class_names[np.flatnonzero(train == present.min())[0]],
        )
        warnings.warn(
            f"The classes of {name} are imbalanced: {present.max()} training "
            f"images of {most!r}, {present.min()} of {least!r}. Clean and "
            "robust accuracy will mostly describe the frequent classes. "
            "Consider `fit(..., class_weight={class: weight})` with larger "
            "weights for rare classes.",
            stacklevel=3,
        )
