"""The `digits` dataset: handwritten digits that scikit-learn ships."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

_TEST_PER_CLASS = 50
_SPLIT_SEED = 0
_HIGHEST_VALUE = 16


def _test_rows(labels: np.ndarray) -> np.ndarray:
    """Row numbers of the test images: a seeded choice, the same per class."""
    generator = np.random.default_rng(_SPLIT_SEED)
    return np.concatenate(
        [
            generator.choice(
                np.flatnonzero(labels == label), _TEST_PER_CLASS, replace=False
            )
            for label in range(10)
        ]
    )


class Builder(tfds.core.GeneratorBasedBuilder):
    """8 x 8 grey images of handwritten digits, prepared without a network.

    The 1797 images of `sklearn.datasets.load_digits`, whose values 0 to 16
    become 0 to 255. 500 of them, 50 of each class, are the `test` split; the
    choice is seeded and part of the version. An image's key is its row in
    scikit-learn's arrays.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    ```
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "8 x 8 grey images of handwritten digits: the part of the UCI "
                "optical recognition data that scikit-learn ships."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {
            "train": self._generate_examples(test=False),
            "test": self._generate_examples(test=True),
        }

    def _generate_examples(self, test: bool) -> Iterator[tuple[int, dict]]:
        import sklearn.datasets

        digits = sklearn.datasets.load_digits()
        images = np.rint(digits.images * (255 / _HIGHEST_VALUE))
        images = images.astype("uint8")[..., np.newaxis]
        in_test = np.zeros(len(images), dtype=bool)
        in_test[_test_rows(digits.target)] = True
        for row in np.flatnonzero(in_test == test):
            yield (
                int(row),
                {"image": images[row], "label": int(digits.target[row])},
            )
