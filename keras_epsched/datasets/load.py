"""`load`: a name or a folder to batches for training and evaluation."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_epsched.datasets import builders, pipeline

if TYPE_CHECKING:
    import tensorflow as tf

_OWN_VALIDATION = "validation"
_CACHE_BYTES = 2**31


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """Which examples of which dataset a `tf.data.Dataset` holds.

    Every dataset that `load` returns carries one as its attribute
    `split_info`, so that a program can refuse to test on examples that it has
    trained on. `dataclasses.asdict` gives what belongs in a JSON file.

    Args:
        dataset: String. The dataset with its version, as `"digits/1.0.0"`;
            `"image_folder:<path>"` for a folder of images.
        split: String. The split in tfds' notation, as `"train[:80%]"`.
        base: String. The stored split that `split` is a part of.
        start: Integer. Number of the first example within `base`.
        stop: Integer. Number after the last example within `base`.
        num_examples: Integer. `stop - start`.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    print(data.train.split_info)  # digits/1.0.0 train[0:1038]
    data.train.split_info.overlaps(data.validation.split_info)  # False
    ```
    """

    dataset: str
    split: str
    base: str
    start: int
    stop: int
    num_examples: int

    def overlaps(self, other: "SplitInfo") -> bool:
        """Says whether the two share examples of one stored split.

        Args:
            other: `SplitInfo`. The split to compare with.

        Returns:
            `True` where at least one example is in both. Different versions
            of a dataset count as different datasets.

        Example:
        ```python
        if data.train.split_info.overlaps(other.test.split_info):
            raise ValueError("The test images were trained on.")
        ```
        """
        return (
            (self.dataset, self.base) == (other.dataset, other.base)
            and self.start < other.stop
            and other.start < self.stop
        )

    def __str__(self):
        return f"{self.dataset} {self.base}[{self.start}:{self.stop}]"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """The three datasets of a task, ready for `fit` and evaluation.

    Returned by `load`. Each dataset yields `(images, labels)`: `float32` of
    shape `(batch, height, width, 3)` with values in `[0, 255]`, and `int64`
    of shape `(batch,)`. Each has the attribute `split_info`, a `SplitInfo`.

    Args:
        train: `tf.data.Dataset`. Shuffled, full batches only.
        validation: `tf.data.Dataset`. In a fixed order, all examples.
        test: `tf.data.Dataset`. In a fixed order, all examples.
        num_classes: Integer.
        class_names: Tuple of strings, in the order of the labels.
        image_size: Pair of integers `(height, width)`.
        name: String. The dataset with its version, as `"digits/1.0.0"`.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    model.fit(data.train, validation_data=data.validation, epochs=5)
    ```
    """

    train: "tf.data.Dataset"
    validation: "tf.data.Dataset"
    test: "tf.data.Dataset"
    num_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    name: str

    def __repr__(self):
        sizes = ", ".join(
            f"{part}={getattr(self, part).split_info.num_examples}"
            for part in ("train", "validation", "test")
        )
        return (
            f"ImageData(name={self.name!r}, {sizes}, "
            f"num_classes={self.num_classes}, image_size={self.image_size})"
        )


def load(
    name: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    batch_size: int = 64,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    validation_split: float = 0.2,
    augment: bool | Sequence[str] = False,
    seed: int = 0,
    cache: bool | str = "auto",
) -> ImageData:
    """Loads an image classification dataset.

    Images are squashed to `image_size` (bilinear, antialiased), grey ones
    repeated to three channels. Training batches are shuffled anew each epoch
    and may be augmented; validation and test batches are never augmented and
    always come in the same order.

    A dataset's own `"validation"` split is used where there is one; where
    there is no `"test"` split, it is the test set, as in ImageNet's case.
    Otherwise, the last `validation_split` share of `"train"` is held out.
    tfds stores records ordered by a hash of their keys, so the share holds
    all classes. An image folder gets the same property from a fixed
    permutation of its sorted file list; example numbers in `SplitInfo` then
    count in the permuted order.

    Labels are passed on as stored: a test split that its authors left
    unlabelled has labels of -1, which no accuracy can be computed from.

    Args:
        name: String or path. One of:
            - `"digits"` or `"letters"`, which need no network and are
              prepared on first use;
            - a tfds name, as `"cifar10"`, `"name/config"` or
              `"name:version"`;
            - a folder that tfds prepared, with or without its version (an
              existing folder is preferred to a tfds name);
            - a folder of images laid out as `split/class/image.png` (or
              `.jpg`, `.jpeg`), with the splits `train` and `test`.
        image_size: Pair of integers `(height, width)`.
        batch_size: Integer. Images in a batch.
        data_dir: Path. Where tfds keeps prepared datasets; its own default
            if `None`. Not used for folders.
        download: Boolean. Whether a tfds dataset that is not prepared may be
            downloaded. Prepare it once before several processes load it.
        validation_split: Float in `(0, 1)`. The share of `"train"` to hold
            out where there is no `"validation"` split.
        augment: Boolean or sequence of strings. Any of `"flip"` (horizontal,
            half of the images), `"color"` (brightness, contrast and
            saturation by a factor in `[0.75, 1.25]` each) and `"rotation"`
            (up to 2 degrees); `True` for all three. Training images only.
        seed: Integer. Seeds shuffling and augmentation, together with
            TensorFlow's global seed where one is set.
        cache: Boolean or `"auto"`. Whether to keep the resized images in
            memory (600 KB for one of 224 x 224); `"auto"` where all three
            splits together take at most 2 GiB. Without it images are decoded
            and resized again each epoch.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: If an argument is out of range, the dataset is unknown,
            not prepared or no image classification, a split is missing, or
            the training images do not fill one batch.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    images, labels = next(iter(data.train))
    ```

    A dataset to download, with the augmentations:

    ```python
    data = keras_epsched.datasets.load(
        "stanford_dogs",
        image_size=(224, 224),
        download=True,
        augment=True,
    )
    ```
    """
    image_size = _checked_size(image_size)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size!r}."
        )
    if not 0 < validation_split < 1:
        raise ValueError(
            "`validation_split` must be a share of the training images, "
            "between 0 and 1 and neither of them. "
            f"Received: validation_split={validation_split}."
        )
    augmentations = pipeline.checked_augmentations(augment)

    source = builders.find(name, data_dir=data_dir, download=download)
    train, validation, test = _splits(source, validation_split)
    if train.num_examples < batch_size:
        raise ValueError(
            f"The {train.num_examples} training images of {source.name} do "
            f"not fill one batch. Received: batch_size={batch_size}. Use a "
            "smaller batch."
        )
    if cache == "auto":
        count = sum(part.num_examples for part in (train, validation, test))
        cache = count * math.prod(image_size) * 3 * 4 <= _CACHE_BYTES

    def evaluation(split: SplitInfo):
        images = pipeline.evaluation_batches(
            source.read(split.base, split.start, split.stop),
            decode=source.decode,
            image_size=image_size,
            batch_size=batch_size,
            cache=cache,
        )
        images.split_info = split
        return images

    training = pipeline.training_batches(
        source.read(train.base, train.start, train.stop),
        decode=source.decode,
        image_size=image_size,
        batch_size=batch_size,
        cache=cache,
        num_examples=train.num_examples,
        augmentations=augmentations,
        seed=seed,
    )
    training.split_info = train
    return ImageData(
        train=training,
        validation=evaluation(validation),
        test=evaluation(test),
        num_classes=len(source.class_names),
        class_names=source.class_names,
        image_size=image_size,
        name=source.name,
    )


def _checked_size(image_size: tuple[int, int]) -> tuple[int, int]:
    if (
        not isinstance(image_size, Sequence)
        or len(image_size) != 2
        or not all(isinstance(side, int) and side > 0 for side in image_size)
    ):
        raise ValueError(
            "`image_size` must be a pair of positive integers "
            f"`(height, width)`. Received: image_size={image_size!r}."
        )
    return tuple(image_size)


def _splits(
    source: builders.Source, validation_split: float
) -> tuple[SplitInfo, SplitInfo, SplitInfo]:
    """Resolves train, validation and test to absolute example numbers."""
    sizes = dict(source.split_sizes)
    test = "test" if sizes.get("test") else _OWN_VALIDATION
    missing = [] if sizes.get("train") else ["train"]
    missing += [] if sizes.get(test) else ["test"]
    if missing:
        raise ValueError(
            f"{source.name} must have images in the splits 'train' and "
            "'test' (or 'validation'). Missing or empty: "
            f"{missing}. Its splits: {sizes}."
        )

    def whole(split: str) -> SplitInfo:
        size = sizes[split]
        return SplitInfo(source.name, split, split, 0, size, size)

    if sizes.get(_OWN_VALIDATION) and test != _OWN_VALIDATION:
        return whole("train"), whole(_OWN_VALIDATION), whole("test")
    size = sizes["train"]
    percent = 100 * (1 - validation_split)
    if abs(percent - round(percent)) < 1e-9:
        # The rounding of tfds, so that its slice of this name is this split.
        boundary = round(round(percent) * size / 100)
        edge = f"{round(percent)}%"
    else:
        boundary = round((1 - validation_split) * size)
        edge = str(boundary)
    if not 0 < boundary < size:
        raise ValueError(
            f"Holding out {validation_split} of the {size} training images "
            f"of {source.name} leaves training or validation without images. "
            "Change `validation_split`."
        )
    return (
        SplitInfo(
            source.name, f"train[:{edge}]", "train", 0, boundary, boundary
        ),
        SplitInfo(
            source.name,
            f"train[{edge}:]",
            "train",
            boundary,
            size,
            size - boundary,
        ),
        whole(test),
    )
