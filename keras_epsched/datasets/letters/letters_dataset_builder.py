"""The `letters` dataset: A to Z, rendered with the fonts of matplotlib."""

import tensorflow_datasets as tfds

from keras_epsched.datasets.letters import examples
from keras_epsched.datasets.tfds_builders import OfflineBuilder


class Builder(OfflineBuilder):
    """32 x 32 grey images of letters, rendered on first use.

    There are 26 classes, A to Z. Upper and lower case are one class; the
    lower-case L is left out, because it looks like an upper-case I in many
    fonts. Each class has 400 images for training and 80 for test. Both splits
    use the same fonts and differ in the distortions, so the test measures
    tolerance to distortions, not to new fonts. Half of the images are light
    on dark. Image `i` of a split has class `i % 26`. It depends only on the
    split, `i`, and the versions of matplotlib and Pillow.

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
