"""The `digits` dataset: handwritten digits that scikit-learn ships."""

import tensorflow_datasets as tfds

from keras_epsched.datasets.digits import examples
from keras_epsched.datasets.tfds_builders import OfflineBuilder


class Builder(OfflineBuilder):
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
    EXAMPLES = examples
    DESCRIPTION = (
        "8 x 8 grey images of handwritten digits: the part of the UCI optical "
        "recognition data that scikit-learn ships."
    )
    HOMEPAGE = "https://archive.ics.uci.edu/dataset/80"

    def _label(self) -> tfds.features.ClassLabel:
        # Version 1.0.0 is stored without a file of names.
        return tfds.features.ClassLabel(num_classes=len(examples.CLASS_NAMES))
