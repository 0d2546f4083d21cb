"""`ImageData`: what `load` returns."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_epsched.datasets.batches import ImageBatches
from keras_epsched.datasets.splits import PARTS

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """The three datasets of a task, ready for `fit` and evaluation.

    Returned by `load`. Each dataset yields `(images, labels)`: `float32` of
    shape `(batch, height, width, 3)` with values in `[0, 255]`, and `int64`
    of shape `(batch,)`. Each has the attribute `split_info`, a `SplitInfo`.
    They are of the class `tf.data.Dataset`, or `ImageBatches` where TensorFlow
    is not installed.

    Args:
        train: Dataset. Shuffled, full batches only.
        validation: Dataset. In a fixed order, all examples.
        test: Dataset. In a fixed order, all examples.
        num_classes: Integer.
        class_names: Tuple of strings, in the order of the labels.
        image_size: Pair of integers `(height, width)`.
        name: String. The dataset with its version, as `"digits/1.0.0"`.
        count: Callable. What `class_counts` calls for each part.
        skipped: Tuple of strings. The files of an image folder that
            `skip_corrupt` left out, and why.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    model.fit(data.train, validation_data=data.validation, epochs=5)
    print(data.class_counts["train"])
    ```
    """

    train: "tf.data.Dataset | ImageBatches"
    validation: "tf.data.Dataset | ImageBatches"
    test: "tf.data.Dataset | ImageBatches"
    num_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    name: str
    count: Callable[[str], np.ndarray]
    skipped: tuple[str, ...] = ()

    @functools.cached_property
    def class_counts(self) -> Mapping[str, np.ndarray]:
        """Images of each class in `"train"`, `"validation"` and `"test"`.

        Reads all labels, without decoding an image, unless `load` did.
        """
        return {part: self.count(part) for part in PARTS}

    def __repr__(self):
        sizes = ", ".join(
            f"{part}={getattr(self, part).split_info.num_examples}"
            for part in PARTS
        )
        return (
            f"ImageData(name={self.name!r}, {sizes}, "
            f"num_classes={self.num_classes}, image_size={self.image_size})"
        )
