"""What `pipeline` does to one image, in NumPy: for other backends."""

import math

import numpy as np

from keras_epsched.datasets.pipeline import JITTER, MAX_DEGREES

# ITU-R BT.601, as TensorFlow makes an image grey.
_GREY = np.array([0.2989, 0.587, 0.114], dtype="float32")


def prepared(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Makes an image what a classifier takes.

    Pillow resizes, channel by channel in float32: bilinear and antialiased,
    without rounding. It differs from `tf.image.resize` by 0.003 grey levels.

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
    # A copy in any case: the caller's image may be kept and changed.
    return np.clip(np.broadcast_to(image, (*image_size, 3)), 0.0, 255.0)


def augmented(
    image: np.ndarray, draws: np.ndarray, augmentations: tuple[str, ...]
) -> np.ndarray:
    """Augments one image, as `pipeline.augmented` does.

    Args:
        image: `float32` array of shape `(height, width, 3)` in `[0, 255]`.
        draws: Five numbers in `[0, 1)`. All randomness follows from them.
        augmentations: Tuple of strings out of `pipeline.AUGMENTATIONS`.

    Returns:
        An array like `image`.
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
    """Moves the image away from the anchor or towards it."""
    factor = 1 + JITTER * (2 * draw - 1)
    return np.clip(anchor + factor * (image - anchor), 0.0, 255.0)


def _rotated(image, angle):
    """Rotates about the centre; what comes in at the edges is reflected."""
    from scipy import ndimage

    cosine, sine = math.cos(angle), math.sin(angle)
    # For each output pixel (row, column): where in the input it comes from.
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
