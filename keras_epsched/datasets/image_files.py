"""Checks and decodes image files.

TensorFlow decodes them in its graph. If it is not installed, Pillow does.
"""

import functools
import os
import pathlib
from typing import NamedTuple

import numpy as np

from keras_epsched import optional

SUFFIXES = (".jpg", ".jpeg", ".png")
_FORMATS = ("JPEG", "PNG")
_BIT_DEPTH = slice(24, 25)
# The EXIF tag of the orientation. The value 1 means upright.
_ORIENTATION = 0x0112
# Bytes at the end of a complete file, and how far from the end they may be.
_ENDS = {"JPEG": (b"\xff\xd9", 2), "PNG": (b"IEND", 12)}


class Findings(NamedTuple):
    """The result of the check of a file.

    Args:
        problem: String. Why the file cannot be used; empty if it can.
        transparent: Boolean. Whether the image has an alpha channel.
        turned: Boolean. Whether the EXIF data say that the image is turned.
    """

    problem: str = ""
    transparent: bool = False
    turned: bool = False


def is_image(path: pathlib.Path) -> bool:
    """Returns whether a file has the name of an image."""
    return path.name.lower().endswith(SUFFIXES)


def examined(path: pathlib.Path, decode: bool) -> Findings:
    """Checks the header and the end of a file, or all of it.

    Args:
        path: Path.
        decode: Boolean. Whether to decode the image too.

    Returns:
        `Findings`.
    """
    try:
        status = path.stat()
    except OSError as error:
        # For example links that form a circle.
        return Findings(str(error))
    return _examined(str(path), decode, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2**20)
def _examined(path: str, decode: bool, size: int, changed: int) -> Findings:
    """Checks a file. The result is cached until the file changes."""
    del changed
    from PIL import Image, UnidentifiedImageError

    named = path.lower().endswith(SUFFIXES)
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            # Pillow calls a JPEG with a preview, as cameras write it, "MPO".
            kind = "JPEG" if image.format == "MPO" else image.format
            mode = image.mode
            alpha = "A" in mode or "transparency" in image.info
            # Only JPEG: `getexif` would decode the pixels of a PNG.
            turned = (
                kind == "JPEG" and image.getexif().get(_ORIENTATION, 1) != 1
            )
            file.seek(0)
            header = file.read(_BIT_DEPTH.stop)
            mark, reach = _ENDS.get(kind or "", (b"", 0))
            file.seek(max(0, size - reach))
            whole = mark in file.read()
    except UnidentifiedImageError:
        # Other files, such as notes, are allowed beside the images.
        return Findings("no image that can be read" if named else "")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        return Findings(f"{error}" if named else "")
    if not named:
        return Findings(f"an image whose name does not end in {SUFFIXES}")
    if kind not in _FORMATS:
        return Findings(f"a {kind} image, expected {' or '.join(_FORMATS)}")
    sixteen = kind == "PNG" and header[_BIT_DEPTH] == b"\x10"
    if sixteen or mode.startswith(("I", "F")):
        return Findings("16 bits per channel, expected 8")
    if decode or not whole:
        try:
            if optional.available("tensorflow"):
                _decoded_by_tensorflow(path.encode())
            else:
                decoded_by_pillow(path)
        except ValueError:
            return Findings("cannot be decoded: cut short or damaged")
    return Findings("", alpha, turned)


def decode(path):
    """Decodes an image file in a graph of TensorFlow.

    Args:
        path: String tensor.

    Returns:
        A `uint8` tensor of shape `(height, width, 3)`.

    Raises:
        ValueError: If the file cannot be decoded. The message names the file.
    """
    import tensorflow as tf

    # A Python function, because the error of TensorFlow's own decoder would
    # not name the file.
    image = tf.numpy_function(
        _decoded_by_tensorflow, [path], tf.uint8, stateful=False
    )
    image.set_shape((None, None, 3))
    return image


def _decoded_by_tensorflow(path: bytes) -> np.ndarray:
    import tensorflow as tf

    try:
        # Runs in a thread of tf.data, which should not use a GPU.
        with tf.device("cpu"):
            return tf.io.decode_image(
                tf.io.read_file(path), channels=3, expand_animations=False
            ).numpy()
    except tf.errors.OpError as error:
        raise _undecodable(path.decode(), error.message) from None


def decoded_by_pillow(path: str | os.PathLike) -> np.ndarray:
    """Decodes an image file with Pillow. The error names the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(path, error) from None


def _undecodable(path, error):
    return ValueError(
        f"The image {path} cannot be decoded: {error} Repair or remove the "
        "file, or load the folder with `skip_corrupt=True`."
    )
