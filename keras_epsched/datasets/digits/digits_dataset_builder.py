"""The `digits` dataset: handwritten digits that scikit-learn ships."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from keras_epsched.datasets.digits import examples


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

    VERSION = tfds.core.Version(examples.VERSION)
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
                    "image": tfds.features.Image(shape=examples.SHAPE),
                    "label": tfds.features.ClassLabel(
                        num_classes=len(examples.CLASS_NAMES)
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {
            split: self._generate_examples(split)
            for split in examples.SPLIT_SIZES
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        for key, image, label in examples.generate(split):
            yield key, {"image": image, "label": label}
