"""Batches of random-access examples, for every backend of Keras."""

import math
import operator
from collections.abc import Mapping, Sequence
from concurrent import futures
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_epsched.datasets import arrays, pipeline
from keras_epsched.datasets.arguments import checked_batch_size, checked_size
from keras_epsched.datasets.example import image_and_label
from keras_epsched.provenance import SplitInfo


class ImageBatches(keras.utils.PyDataset):
    """Batches of images and labels from a random-access sequence.

    Use it for `fit`, `evaluate` and `keras_epsched.evaluate` if `load` does
    not know your data, or if TensorFlow is not installed. It takes a list, a
    tfds `data_source`, a Hugging Face dataset, or a map-style
    `torch.utils.data.Dataset`. It is a `keras.utils.PyDataset`. It also works
    on the TensorFlow backend, but the `tf.data` pipelines of `load` are faster
    there.

    Each batch is a pair `(images, labels)`: `float32` images of shape
    `(batch, height, width, 3)` with values in `[0, 255]`, and `int64` labels
    of shape `(batch,)`. Grey images are repeated to three channels. Pillow
    resizes all images to `image_size` (bilinear, antialiased, in float32)
    without keeping the aspect ratio.

    The seed, the epoch and the index of a batch determine its contents. An
    epoch ends when `fit`, or a loop over this object, has taken all of its
    batches. If you set `steps_per_epoch` in `fit`, one epoch of this object
    covers several epochs of Keras.

    `fit` shuffles the order of the batches (not their contents) with Python's
    random generator. Pass `shuffle=False` to `fit` for a reproducible order.

    Args:
        examples: Object with `__len__` and `__getitem__`, which returns a
            dictionary or a pair `(image, label)`. Images are arrays or Pillow
            images of shape `(height, width)` or `(height, width, channels)`
            with 1 or 3 channels and values in `[0, 255]`; labels are integers.
            If you have two arrays, pass `list(zip(images, labels))`.
        image_size: Pair of integers `(height, width)`, in pixels.
        batch_size: Integer. Number of images in a batch.
        shuffle: Boolean. `True` for training: a new order in each epoch, and
            only full batches, so each epoch leaves out different examples.
            `False` for evaluation: all examples in their order.
        augment: Boolean or sequence of names from `"flip"`, `"color"` and
            `"rotation"`. `load` describes them.
        seed: Integer of at least 0. Seed of the order and the augmentation.
        image_key: String. The key of the image, if examples are dictionaries.
        label_key: String. The key of the label, if examples are dictionaries.
        cache: Boolean. Whether to keep the resized images in memory (600 KB
            for an image of 224 x 224).
        threads: Integer. Number of images of a batch that are read, resized
            and augmented at the same time. Use it instead of the `workers` of
            Keras: those read batches in advance, which would belong to the
            wrong epoch.

    Attributes:
        epoch: Integer. The epoch of the next batch.
        split_info: `SplitInfo` or `None`. Says which examples these are.
            Training and evaluation read it, to warn about test images that
            were trained on.

    Raises:
        ValueError: If an argument is out of range, or there are too few
            examples for one batch. When a batch is read: if an example is not
            a supported image with an integer label.

    Example:
    ```python
    import tensorflow_datasets as tfds  # Works here without TensorFlow.

    source = tfds.data_source("cifar10")
    train = keras_epsched.datasets.ImageBatches(
        source["train"], image_size=(32, 32), batch_size=64, shuffle=True
    )
    test = keras_epsched.datasets.ImageBatches(
        source["test"], image_size=(32, 32)
    )
    model.fit(train, epochs=5)
    report = keras_epsched.evaluate(net, test, epsilons=[0.01, 0.02])
    ```

    A `data_source` needs files in a format with random access. Prepare them
    with `tfds.builder("cifar10",
    file_format="array_record").download_and_prepare()`.

    If the examples have other names for image and label:

    ```python
    ImageBatches(examples, (224, 224), image_key="img", label_key="fine_label")
    ```
    """

    def __init__(
        self,
        examples: Sequence[Any],
        image_size: tuple[int, int],
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        augment: bool | Sequence[str] = False,
        seed: int = 0,
        image_key: str = "image",
        label_key: str = "label",
        cache: bool = False,
        threads: int = 1,
    ):
        super().__init__()
        if not (
            hasattr(examples, "__getitem__") and hasattr(examples, "__len__")
        ):
            raise ValueError(
                "`examples` must have `__len__` and `__getitem__`, like a "
                "list or a `tfds.data_source`. Received: "
                f"{type(examples).__name__}. Pass a `tf.data.Dataset` "
                "directly to `fit`; turn a generator into a list with "
                "`list(examples)`."
            )
        if isinstance(examples, Mapping):
            raise ValueError(
                "`examples` must be the examples of one split. Received: a "
                f"dictionary with the keys {list(examples)[:10]}. Pass one of "
                "its values, for example `examples[key]`."
            )
        self.image_size = checked_size(image_size)
        self.batch_size = checked_batch_size(batch_size)
        for argument, value, least in (
            ("seed", seed, 0),
            ("threads", threads, 1),
        ):
            if not isinstance(value, Integral) or value < least:
                raise ValueError(
                    f"`{argument}` must be an integer of at least {least}. "
                    f"Received: {argument}={value!r}."
                )
        if len(examples) < (batch_size if shuffle else 1):
            raise ValueError(
                f"The {len(examples)} examples do not fill one batch. "
                f"Received: batch_size={batch_size}, shuffle={shuffle}. Use a "
                "smaller `batch_size` or more examples."
            )
        self.examples = examples
        self.shuffle = bool(shuffle)
        self.augmentations = pipeline.checked_augmentations(augment)
        self.seed = int(seed)
        self.threads = int(threads)
        self.image_key, self.label_key = image_key, label_key
        self.split_info: SplitInfo | None = None
        self.epoch = 0
        self._first = 0
        self._taken = set()
        self._order = (None, None)
        self._kept = {} if cache else None

    def __len__(self):
        batches = len(self.examples) / self.batch_size
        return math.floor(batches) if self.shuffle else math.ceil(batches)

    def __getitem__(self, index):
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(
                f"The index must be from 0 to {len(self) - 1}, because there "
                f"are {len(self)} batches. Received: {index}."
            )
        epoch = self.epoch
        self._taken.add(index)
        start = index * self.batch_size
        numbers = self._numbers(epoch)[start : start + self.batch_size]
        if index < self._first:
            images = np.zeros((len(numbers), *self.image_size, 3), "float32")
            return images, np.zeros(len(numbers), "int64")
        with futures.ThreadPoolExecutor(self.threads) as pool:
            examples = pool.map(
                lambda number: self._example(int(number), epoch), numbers
            )
            images, labels = zip(*examples, strict=True)
        return np.stack(images), np.array(labels, dtype="int64")

    def __iter__(self):
        # A `PyDataset` of older Keras versions has no iterator.
        for index in range(len(self)):
            yield self[index]
        self.on_epoch_end()

    def seek(self, epoch: int, batch: int = 0):
        """Moves to a batch of an epoch, to resume a training.

        `AdversarialTrainer.fit` calls it at the start of each epoch.

        Args:
            epoch: Integer of at least 0.
            batch: Integer of at least 0. In this epoch, the batches before it
                contain zeros, and no example is read for them.
        """
        self.epoch, self._first = epoch, batch
        self._taken = set()

    def on_epoch_end(self):
        """Starts the next epoch if all batches of this one were taken."""
        # Keras also calls this after one batch, when it builds a model, and
        # after `steps_per_epoch` batches.
        if len(self._taken) == len(self):
            self.seek(self.epoch + 1)

    def __repr__(self):
        return (
            f"ImageBatches({len(self.examples)} examples, image_size="
            f"{self.image_size}, batch_size={self.batch_size}, "
            f"shuffle={self.shuffle})"
        )

    def _numbers(self, epoch):
        """Returns the order of the examples in an epoch."""
        if not self.shuffle:
            return np.arange(len(self.examples))
        known, order = self._order
        if known != epoch:
            generator = np.random.default_rng((self.seed, epoch, 0))
            # Sorted uniform draws, because NumPy may change how it shuffles.
            order = np.argsort(generator.random(len(self.examples)))
            self._order = (epoch, order)
        return order

    def _example(self, number, epoch):
        """Returns image and label of an example, ready for a batch."""
        kept = None if self._kept is None else self._kept.get(number)
        if kept is None:
            image, label = self._read(number)
            kept = arrays.prepared(image, self.image_size), label
            if self._kept is not None:
                self._kept[number] = kept
        image, label = kept
        if self.augmentations:
            generator = np.random.default_rng((self.seed, epoch, 1 + number))
            draws = generator.random(5)
            image = arrays.augmented(image, draws, self.augmentations)
        return image, label

    def _read(self, number):
        """Returns image and label of an example after checking them."""
        return image_and_label(
            self.examples[number], number, self.image_key, self.label_key
        )
