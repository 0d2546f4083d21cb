"""Stored examples, with their names, sizes and labels."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """The examples of a dataset, with their names, sizes and labels.

    With TensorFlow, the examples are a `tf.data.Dataset` of encoded images.
    Without it, they are a sequence of arrays.

    Args:
        name: String. The dataset with its version.
        class_names: Tuple of strings, in the order of the labels.
        split_sizes: Mapping from each stored split to its size.
        split_bytes: Mapping from each stored split to the number of bytes
            that are read to get its labels.
        read: Callable `(split, numbers)`. Returns the examples with these
            ascending numbers: a `tf.data.Dataset` of pairs of encoded image
            and label; or, if `decode` is `None`, a sequence of pairs of image
            and label for `ImageBatches`.
        labels: Callable `(split)`. Returns an array with the label of each
            example.
        content: Callable `(split)`. Returns bytes that identify the examples
            if the name alone does not.
        decode: Callable or `None`. Turns an encoded image into a `uint8`
            tensor of shape `(height, width, channels)` with 1 or 3 channels.
        skipped: Tuple of strings. Files that were left out, with the reasons.
    """

    name: str
    class_names: tuple[str, ...]
    split_sizes: Mapping[str, int]
    split_bytes: Mapping[str, int]
    read: Callable[[str, np.ndarray], "tf.data.Dataset | Sequence"]
    labels: Callable[[str], np.ndarray]
    content: Callable[[str], bytes]
    decode: Callable[["tf.Tensor"], "tf.Tensor"] | None = None
    skipped: tuple[str, ...] = ()


class Examples(Sequence):
    """A sequence of examples, each made when it is accessed.

    Args:
        numbers: Array of integers. The numbers of the examples.
        make: Callable `(number)`. Returns image and label.
    """

    def __init__(self, numbers: np.ndarray, make: Callable[[int], tuple]):
        self._numbers, self._make = numbers, make

    def __len__(self):
        return len(self._numbers)

    def __getitem__(self, row):
        return self._make(self._numbers[row])


def from_builder(builder) -> Source:
    """Returns the examples of a dataset that tfds prepared.

    Args:
        builder: `tfds.core.DatasetBuilder` with prepared data.

    Returns:
        A `Source`.

    Raises:
        ValueError: If the dataset does not consist of images with one label
            each.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    name = builder.info.full_name
    image_key, label_key = keys(builder.info)
    image = builder.info.features[image_key]
    label = builder.info.features[label_key]
    if image.shape[-1] not in (1, 3) or image.np_dtype != np.uint8:
        raise ValueError(
            f"The images of {name} must be uint8 with 1 or 3 channels. "
            f"Received: {image}."
        )
    if not label.num_classes:
        raise ValueError(
            f"{name} does not define its number of classes, so it cannot be "
            f"used. Received: {label}."
        )

    def stored(split: str, decoders):
        return builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=decoders,
            read_config=tfds.ReadConfig(
                interleave_cycle_length=1, try_autocache=False
            ),
        )

    def read(split: str, numbers: np.ndarray):
        start, stop = int(numbers[0]), int(numbers[-1]) + 1
        records = stored(
            f"{split}[{start}:{stop}]",
            tfds.decode.PartialDecoding(
                {image_key: True, label_key: True},
                decoders={image_key: tfds.decode.SkipDecoding()},
            ),
        )
        if len(numbers) < stop - start:
            wanted = np.zeros(stop - start, dtype=bool)
            wanted[numbers - start] = True
            records = (
                records.enumerate()
                .filter(lambda number, record: tf.gather(wanted, number))
                .map(lambda number, record: record)
            )
            # tf.data does not know the number of examples after a filter.
            records = records.apply(
                tf.data.experimental.assert_cardinality(len(numbers))
            )
        return records.map(
            lambda record: (record[image_key], record[label_key])
        )

    @functools.cache
    def labels(split: str) -> np.ndarray:
        records = stored(split, tfds.decode.PartialDecoding({label_key: True}))
        batches = records.map(lambda record: record[label_key]).batch(1024)
        return np.concatenate([*batches.as_numpy_iterator()])

    return Source(
        name=name,
        class_names=tuple(label.names),
        split_sizes={
            split: info.num_examples
            for split, info in builder.info.splits.items()
        },
        split_bytes={
            split: info.num_bytes for split, info in builder.info.splits.items()
        },
        read=read,
        labels=labels,
        # The version in the name identifies the images and their order.
        content=lambda split: b"",
        decode=image.decode_example,
    )


def keys(info) -> tuple[str, str]:
    """Returns the names of the image and the label among the features.

    Args:
        info: `tfds.core.DatasetInfo`.

    Returns:
        Pair of strings.

    Raises:
        ValueError: If the dataset does not say which features they are.
    """
    import tensorflow_datasets as tfds

    def of_kind(kind: type) -> list[str]:
        return [
            key
            for key, feature in info.features.items()
            if isinstance(feature, kind)
        ]

    images = of_kind(tfds.features.Image)
    labels = of_kind(tfds.features.ClassLabel)
    supervised = info.supervised_keys
    if (
        supervised is not None
        and supervised[0] in images
        and supervised[1] in labels
    ):
        return supervised[0], supervised[1]
    if len(images) == len(labels) == 1:
        return images[0], labels[0]
    raise ValueError(
        f"{info.full_name} is not an image classification dataset. It must "
        "have one image and one class label, or name them in "
        f"`supervised_keys`. Received: supervised_keys={supervised}, "
        f"features={info.features}."
    )
