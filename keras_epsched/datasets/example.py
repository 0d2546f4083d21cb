"""Reads the image and the label of one example."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def image_and_label(
    example: Any, number: int, image_key: str, label_key: str
) -> tuple[np.ndarray, int]:
    """Returns the image and the label of an example after checking them.

    Args:
        example: Dictionary, or pair of image and label.
        number: Integer. Number of the example, for error messages.
        image_key: String. The key of the image in a dictionary.
        label_key: String. The key of the label in a dictionary.

    Returns:
        Image as an array, and label as an integer.

    Raises:
        ValueError: If the example is not an image that `ImageBatches` takes,
            with an integer label.
    """
    if isinstance(example, Mapping):
        missing = {image_key, label_key} - set(example)
        if missing:
            raise ValueError(
                f"The examples have no key {sorted(missing)}. Received: "
                f"the keys {list(example)}. Pass `image_key` and `label_key` "
                "with the names of the image and the label."
            )
        image, label = example[image_key], example[label_key]
    elif isinstance(example, tuple | list) and len(example) == 2:
        image, label = example
    else:
        raise ValueError(
            "Examples must be dictionaries or pairs (image, label). "
            f"Received: example {number} of type {type(example).__name__}."
        )
    return _pixels(image, number), _label(label, number)


def _pixels(image, number):
    """Returns an image as an array of a valid shape and range."""
    if getattr(image, "mode", "L") not in ("L", "RGB"):
        # The numbers of some Pillow images, such as palette images, are not
        # colours.
        image = image.convert("RGB")
    image = np.asarray(image)
    grey = image.ndim == 2
    if image.ndim not in (2, 3) or not (grey or image.shape[-1] in (1, 3)):
        raise ValueError(
            "Images must have shape (height, width), (height, width, 1) or "
            f"(height, width, 3). Received: example {number} with shape "
            f"{image.shape}. Move the channels to the end with "
            "`np.moveaxis(image, 0, -1)`, or remove an alpha channel with "
            "`image[..., :3]`."
        )
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "iuf" or not (
        image.min() >= 0 and image.max() <= 255
    ):
        raise ValueError(
            "Images must be numbers in 0..255, before any normalisation. "
            f"Received: example {number} of dtype {image.dtype} with values "
            f"from {image.min()} to {image.max()}."
        )
    return image


def _label(label, number):
    """Returns a label as an integer."""
    array = np.asarray(label)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            "Labels must be integers, one for each image. Received: "
            f"example {number} with the label {label!r}. Convert a class name "
            "with `class_names.index(label)`, or a one-hot vector with "
            "`int(np.argmax(label))`."
        )
    return int(array.reshape(()))
