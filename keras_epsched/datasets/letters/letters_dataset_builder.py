"""The `letters` dataset: A to Z, rendered with the fonts of matplotlib."""

import tensorflow_datasets as tfds

from keras_epsched.datasets.letters import examples
from keras_epsched.datasets.tfds_builders import OfflineBuilder


class Builder(OfflineBuilder):
    """32 x 32 grey images of letters, rendered on first use.

    26 classes, A to Z; upper and lower case are one class (the lower-case L
    is left out, being an upper-case I in many fonts). 400 images of each class
    to train on and 80 to test on, drawn from the same fonts: the splits
    differ in the distortions, so the test measures tolerance to those and not
    to new fonts. Half of the images are light on dark. Image `i` of a split
    has class `i % 26` and follows from `(split, i)` alone, given the versions
    of matplotlib and Pillow.

    Example:
    ```python
    data = keras_epsched.datasets.load("letters", image_size=(32, 32))
    ```
    """

    VERSION = tfds.core.Version(examples.VERSION)
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    EXAMPLES = examples
    DESCRIPTION = (
        "32 x 32 grey images of the letters A to Z, rendered with "
        "matplotlib's fonts and distorted."
    )
