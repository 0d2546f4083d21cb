"""Image and label of one example, in any of the forms that it may have."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def image_and_label(
    example: Any, number: int, image_key: str, label_key: str
) -> tuple[np.ndarray, int]:
    """Takes an example apart, and checks both parts.

    Args:
        example: Dictionary, or pair of image and label.
        number: Integer. What the example is called in errors.
        image_key: String. The key of the image, where it is a dictionary.
        label_key: String. The key of the label, likewise.

    Raises:
        ValueError: If it is not an image as `ImageBatches` takes it, with its
            label.
    """
    if isinstance(example, Mapping):
        missing = {image_key, label_key} - set(example)
        if missing:
            raise ValueError(
                f"The examples have no key {sorted(missing)}. Received: "
                f"the keys {list(example)}. Pass `image_key` and "
                "`label_key`."
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
    """An image as an array of the right shape and range."""
    if getattr(image, "mode", "L") not in ("L", "RGB"):
        # A Pillow image: of a palette, say, the numbers would be no colours.
        image = image.convert("RGB")
    image = np.asarray(image)
    grey = image.ndim == 2
    if image.ndim not in (2, 3) or not (grey or image.shape[-1] in (1, 3)):
        raise ValueError(
            "Images must have shape (height, width), (height, width, 1) or "
            f"(height, width, 3). Received: example {number} with shape "
            f"{image.shape}. Move the channels to the end, and drop an alpha "
            "channel."
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
    """A label as an integer."""
    array = np.asarray(label)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            "Labels must be integers, one for each image. Received: "
            f"example {number} with the label {label!r}. Make an integer of a "
            "name or a one-hot vector first."
        )
    return int(array.reshape(()))
