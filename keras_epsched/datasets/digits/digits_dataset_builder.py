"""The `digits` dataset: the handwritten digits of scikit-learn."""

import tensorflow_datasets as tfds

from keras_epsched.datasets.digits import examples
from keras_epsched.datasets.tfds_builders import OfflineBuilder


class Builder(OfflineBuilder):
    """8 x 8 grey images of handwritten digits, without a download.

    These are the 1797 images of `sklearn.datasets.load_digits`. Their values
    0 to 16 are scaled to 0 to 255. The `test` split has 500 images, 50 of each
    class; a fixed seed chooses them, and the choice is part of the version. An
    image's key is its row in scikit-learn's arrays.

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
        # Version 1.0.0 is stored without a file of class names.
        return tfds.features.ClassLabel(num_classes=len(examples.CLASS_NAMES))
