"""The images of `digits`, in plain Python."""

from collections.abc import Iterator

import numpy as np

VERSION = "1.0.0"
SHAPE = (8, 8, 1)
CLASS_NAMES = tuple("0123456789")
SPLIT_SIZES = {"train": 1297, "test": 500}

_TEST_PER_CLASS = SPLIT_SIZES["test"] // len(CLASS_NAMES)
_SPLIT_SEED = 0
_HIGHEST_VALUE = 16


def generate(split: str) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yields the images of a split.

    Args:
        split: String, `"train"` or `"test"`.

    Yields:
        Key, `uint8` array of shape `(8, 8, 1)`, and label. The key is the
        image's row in scikit-learn's arrays.
    """
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images = np.rint(digits.images * (255 / _HIGHEST_VALUE))
    images = images.astype("uint8")[..., np.newaxis]
    in_test = np.zeros(len(images), dtype=bool)
    in_test[_test_rows(digits.target)] = True
    for row in np.flatnonzero(in_test == (split == "test")):
        yield int(row), images[row], int(digits.target[row])


def _test_rows(labels: np.ndarray) -> np.ndarray:
    """Returns the rows of the test images, equally many of each class."""
    generator = np.random.default_rng(_SPLIT_SEED)
    return np.concatenate(
        [
            generator.choice(
                np.flatnonzero(labels == label), _TEST_PER_CLASS, replace=False
            )
            for label in range(len(CLASS_NAMES))
        ]
    )
