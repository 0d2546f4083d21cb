"""`ImageData`, the result of `load`."""

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
    """Training, validation and test data of a task, as `load` returns them.

    Pass the datasets to `fit` and `evaluate`. Each yields pairs `(images,
    labels)`: `float32` images of shape `(batch, height, width, 3)` with values
    in `[0, 255]`, and `int64` labels of shape `(batch,)`. Each dataset is a
    `tf.data.Dataset`, or an `ImageBatches` if TensorFlow is not installed. Its
    attribute `split_info`, a `SplitInfo`, says which images it holds.

    Args:
        train: Dataset. Shuffled; full batches only.
        validation: Dataset. All examples in a fixed order.
        test: Dataset. All examples in a fixed order.
        num_classes: Integer. Number of classes.
        class_names: Tuple of strings, in the order of the labels.
        image_size: Pair of integers `(height, width)`, in pixels.
        name: String. The dataset with its version, such as `"digits/1.0.0"`.
        count: Callable. `class_counts` calls it with the name of each part.
        skipped: Tuple of strings. The files of an image folder that
            `skip_corrupt` left out, with the reasons.

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
        """Number of images of each class, for each part.

        The keys are `"train"`, `"validation"` and `"test"`. Counting reads
        all labels but decodes no image. Labels that `load` has read are not
        read again.
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
