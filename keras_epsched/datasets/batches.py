"""Batches of any random-access examples, for every backend of Keras."""

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

    Use it for `fit`, `evaluate` and `keras_epsched.evaluate` with data that
    `load` does not know, or where TensorFlow is not installed: a tfds
    `data_source`, a `torch.utils.data.Dataset` in the style of maps, a Hugging
    Face dataset, a list. It is a `keras.utils.PyDataset`; on the TensorFlow
    backend it works too, but the `tf.data` pipelines of `load` are faster.

    Each batch is a pair of `float32` images of shape `(batch, height, width,
    3)` with values in `[0, 255]`, and `int64` labels of shape `(batch,)`. Grey
    images are repeated to three channels, and Pillow squashes all to
    `image_size` (bilinear, antialiased, in float32).

    What a batch holds is a function of the seed, the epoch and the batch's
    index. An epoch is over when all of its batches have been taken: by `fit`,
    or by a loop over this object. `fit` shuffles the order of the batches, not
    their contents, by Python's generator: pass `shuffle=False` to it where that
    matters. `steps_per_epoch` spreads an epoch over several of Keras'.

    Args:
        examples: Object with `__len__` and `__getitem__`, which returns a
            dictionary or a pair `(image, label)`. Images are arrays or Pillow
            images of shape `(height, width)` or `(height, width, channels)`
            with 1 or 3 channels and values in `[0, 255]`; labels are integers.
            Of two arrays, make `list(zip(images, labels))`.
        image_size: Pair of integers `(height, width)`.
        batch_size: Integer. Images in a batch.
        shuffle: Boolean. `True` to train: a new order each epoch, and full
            batches only, so that each epoch leaves other examples out.
            `False` to evaluate: all examples in their order.
        augment: Boolean or sequence of names out of `"flip"`, `"color"` and
            `"rotation"`, as `load` takes it.
        seed: Integer from 0. Seeds order and augmentation.
        image_key: String. The key of the image, where examples are
            dictionaries.
        label_key: String. The key of the label, likewise.
        cache: Boolean. Whether to keep the resized images in memory (600 KB
            for one of 224 x 224).
        threads: Integer. How many of a batch's images are read, resized and
            augmented at once. This replaces the `workers` of Keras, which take
            batches ahead of the training and so from another epoch than it is
            in.

    Attributes:
        epoch: Integer. The epoch that the next batch is of.
        split_info: `SplitInfo` or `None`. Which examples these are. Training
            and evaluation read it, to warn of test images that were trained
            on.

    Raises:
        ValueError: If an argument is out of range, there are no examples or
            too few for a batch; and, when a batch is read, if an example is
            not an image of that kind with its label.

    Example:
    ```python
    import tensorflow_datasets as tfds  # Needs no TensorFlow for this.

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

    tfds reads such a source from files that it prepared in a format with
    random access: `tfds.builder("cifar10", file_format="array_record")`.

    Other names for image and label:

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
                "`examples` must have `__len__` and `__getitem__`, as a list "
                "or a `tfds.data_source` has. Received: "
                f"{type(examples).__name__}. A `tf.data.Dataset` goes into "
                "`fit` as it is; of a generator, make a list."
            )
        if isinstance(examples, Mapping):
            raise ValueError(
                "`examples` must be the examples of one split. Received: a "
                f"dictionary with the keys {list(examples)[:10]}. Pass one of "
                "its values."
            )
        self.image_size = checked_size(image_size)
        self.batch_size = checked_batch_size(batch_size)
        for argument, value, least in (
            ("seed", seed, 0),
            ("threads", threads, 1),
        ):
            if not isinstance(value, Integral) or value < least:
                raise ValueError(
                    f"`{argument}` must be an integer from {least}. Received: "
                    f"{argument}={value!r}."
                )
        if len(examples) < (batch_size if shuffle else 1):
            raise ValueError(
                f"The {len(examples)} examples do not fill one batch. "
                f"Received: batch_size={batch_size}, shuffle={shuffle}."
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
            raise IndexError(f"There are {len(self)} batches, no {index}.")
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
        # Of itself a `PyDataset` has no iterator in older Keras.
        for index in range(len(self)):
            yield self[index]
        self.on_epoch_end()

    def seek(self, epoch: int, batch: int = 0):
        """Goes to a batch of an epoch, as whoever resumes a training does.

        `AdversarialTrainer.fit` calls it at the beginning of each epoch.

        Args:
            epoch: Integer from 0.
            batch: Integer from 0. The batches before it are zeros, in this
                epoch, and no example is read for them.
        """
        self.epoch, self._first = epoch, batch
        self._taken = set()

    def on_epoch_end(self):
        """Begins the next epoch, if all batches of this one were taken."""
        # Keras ends an "epoch" of one batch where it only builds a model, and
        # one of `steps_per_epoch`.
        if len(self._taken) == len(self):
            self.seek(self.epoch + 1)

    def __repr__(self):
        return (
            f"ImageBatches({len(self.examples)} examples, image_size="
            f"{self.image_size}, batch_size={self.batch_size}, "
            f"shuffle={self.shuffle})"
        )

    def _numbers(self, epoch):
        """The order of the examples in an epoch."""
        if not self.shuffle:
            return np.arange(len(self.examples))
        known, order = self._order
        if known != epoch:
            generator = np.random.default_rng((self.seed, epoch, 0))
            # Uniform draws alone: NumPy may change how it shuffles.
            order = np.argsort(generator.random(len(self.examples)))
            self._order = (epoch, order)
        return order

    def _example(self, number, epoch):
        """Image and label of an example, as they go into a batch."""
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
        """Image and label of an example, once they are checked."""
        return image_and_label(
            self.examples[number], number, self.image_key, self.label_key
        )
