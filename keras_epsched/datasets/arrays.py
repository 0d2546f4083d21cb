"""The image operations of `pipeline`, in NumPy, for other backends."""

import math

import numpy as np

from keras_epsched.datasets.pipeline import JITTER, MAX_DEGREES

# The weights of ITU-R BT.601, which TensorFlow uses for grey images.
_GREY = np.array([0.2989, 0.587, 0.114], dtype="float32")


def prepared(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Resizes an image and gives it three channels.

    Pillow resizes each channel in float32, bilinear and antialiased, without
    rounding. The result differs from `tf.image.resize` by 0.003 grey levels.

    Args:
        image: Array of shape `(height, width)` or `(height, width, channels)`
            with 1 or 3 channels, and values in `[0, 255]`.
        image_size: Pair of integers `(height, width)`.

    Returns:
        A `float32` array of shape `(height, width, 3)` in `[0, 255]`.
    """
    from PIL import Image

    image = np.asarray(image, dtype="float32")
    image = image[..., np.newaxis] if image.ndim == 2 else image
    if image.shape[:2] != tuple(image_size):
        height, width = image_size
        channels = [
            Image.fromarray(np.ascontiguousarray(channel)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
            for channel in np.moveaxis(image, -1, 0)
        ]
        image = np.stack([np.asarray(each) for each in channels], axis=-1)
    # `clip` copies, so later changes of the caller's image have no effect.
    return np.clip(np.broadcast_to(image, (*image_size, 3)), 0.0, 255.0)


def augmented(
    image: np.ndarray, draws: np.ndarray, augmentations: tuple[str, ...]
) -> np.ndarray:
    """Augments one image in the same way as `pipeline.augmented`.

    Args:
        image: `float32` array of shape `(height, width, 3)` in `[0, 255]`.
        draws: Five numbers in `[0, 1)`, the only source of randomness.
        augmentations: Tuple of strings from `pipeline.AUGMENTATIONS`.

    Returns:
        An array with the shape and dtype of `image`.
    """
    flip, brightness, contrast, saturation, angle = map(float, draws)
    if "flip" in augmentations and flip < 0.5:
        image = image[:, ::-1]
    if "color" in augmentations:
        image = _blend(image, 0.0, brightness)
        image = _blend(image, (image @ _GREY).mean(), contrast)
        image = _blend(image, (image @ _GREY)[..., np.newaxis], saturation)
    if "rotation" in augmentations:
        degrees = MAX_DEGREES * (2 * angle - 1)
        image = _rotated(image, degrees * (math.pi / 180))
    return np.clip(image, 0.0, 255.0)


def _blend(image, anchor, draw):
    """Moves the pixels towards the anchor or away from it."""
    factor = 1 + JITTER * (2 * draw - 1)
    return np.clip(anchor + factor * (image - anchor), 0.0, 255.0)


def _rotated(image, angle):
    """Rotates about the centre, and fills the corners by reflection."""
    from scipy import ndimage

    cosine, sine = math.cos(angle), math.sin(angle)
    # Maps each output pixel (row, column) to its place in the input.
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    centre = (np.array(image.shape[:2]) - 1) / 2
    turned = [
        ndimage.affine_transform(
            channel,
            matrix,
            offset=centre - matrix @ centre,
            order=1,
            mode="reflect",
        )
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.stack(turned, axis=-1)
