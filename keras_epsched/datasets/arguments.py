"""Checks the arguments of `load` and `ImageBatches`."""

from collections.abc import Sequence
from numbers import Integral


def checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Returns `(height, width)`, or raises a `ValueError`."""
    if (
        not isinstance(image_size, Sequence)
        or len(image_size) != 2
        or not all(map(_is_positive, image_size))
    ):
        raise ValueError(
            "`image_size` must be a pair of positive integers "
            f"`(height, width)`. Received: image_size={image_size!r}."
        )
    height, width = image_size
    return int(height), int(width)


def checked_batch_size(batch_size: int) -> int:
    """Returns a positive integer, or raises a `ValueError`."""
    if not _is_positive(batch_size):
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size!r}."
        )
    return int(batch_size)


def _is_positive(value) -> bool:
    """Returns whether a value is an integer above 0, also one of NumPy."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and value > 0
