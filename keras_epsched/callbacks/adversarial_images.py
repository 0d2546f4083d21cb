"""Writes adversarial images of each epoch to TensorBoard."""

import os
import pathlib

import numpy as np
from keras import ops

from keras_epsched import optional
from keras_epsched.attacks.pgd import PGD
from keras_epsched.callbacks.monitored_images import MonitoredImages
from keras_epsched.training import passes


class AdversarialImages(MonitoredImages):
    """Shows a few adversarial images of each epoch in TensorBoard.

    Use it to see how strong the current epsilon is. Each picture shows the
    clean image, the adversarial image, and their difference (grey means no
    difference; the largest difference is stretched to the full range). A table
    lists the true class of each image, and the predicted class of its
    adversarial image. The network is attacked in inference mode at the epsilon
    of that epoch. The callback does not change the training.

    If `keras.callbacks.TensorBoard` has the same folder, the images appear
    beside its scalars. Like that callback, this one needs TensorFlow on every
    backend.

    Args:
        images: Array `(batch, height, width, channels)` of pixels, with 1 or
            3 channels. Eight images are a good number.
        labels: Array of their labels.
        log_dir: String or path. The log folder of TensorBoard.
        attack: `Attack`. Defaults to `PGD(steps=10)` in the norm of the
            training attack.
        every: Int. Pictures are made after the first epoch, and then after
            every `every` epochs.

    Raises:
        ValueError: If an argument is invalid. When training begins: if the
            model is not an `AdversarialTrainer`.
        ImportError: If TensorFlow is not installed.

    Example:
    ```python
    images, labels = next(iter(data.validation))
    callbacks = [
        keras_epsched.callbacks.EpsilonScheduler(schedule),
        keras.callbacks.TensorBoard("logs"),
        keras_epsched.callbacks.AdversarialImages(
            images[:8], labels[:8], "logs"
        ),
    ]
    ```
    """

    def __init__(
        self,
        images,
        labels,
        log_dir: str | os.PathLike,
        attack=None,
        every: int = 1,
    ):
        super().__init__(images, labels, attack)
        shape = self.images.shape
        if len(shape) != 4 or shape[-1] not in (1, 3):
            raise ValueError(
                "Expected `images` of shape (batch, height, width, channels) "
                f"with 1 or 3 channels. Received: images of shape {shape}"
            )
        if every < 1:
            raise ValueError(
                f"`every` must be at least 1. Received: every={every}"
            )
        self.log_dir = pathlib.Path(log_dir)
        self.every = every
        self._writer = None

    def default_attack(self, norm):
        # PGD, as in training: the images are shown, not measured.
        return PGD(10, norm)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        tensorflow = optional.package("tensorflow", "`AdversarialImages`")
        # A separate TensorBoard run, like Keras' `train` and `validation`.
        folder = str(self.log_dir / "adversarial")
        self._writer = tensorflow.summary.create_file_writer(folder)

    def measure_batch(self, images, labels, places):
        trainer = self.model
        found = self.search(images, labels, places, trainer._epsilon)
        moved = found.adversarial
        logits = passes.frozen_logits(trainer, False)(moved)
        return [
            moved,
            ops.argmax(logits, axis=-1),
            trainer.class_labels(labels, images),
        ]

    def on_epoch_end(self, epoch, logs=None):
        if epoch and (epoch + 1) % self.every:
            return
        import tensorflow as tf

        moved, predicted, classes = self.measure()
        rows = [
            f"| {index} | {label} | {taken_for} |"
            for index, (label, taken_for) in enumerate(
                zip(classes, predicted, strict=True)
            )
        ]
        header = ["| image | true class | predicted class |", "|---|---|---|"]
        with self._writer.as_default(step=epoch):
            tf.summary.image(
                "adversarial_images",
                self._pictures(moved),
                max_outputs=len(moved),
                description=(
                    "From left to right: the clean image, the adversarial "
                    "image at the epsilon of this epoch, and their difference."
                ),
            )
            tf.summary.text(
                "adversarial_images_taken_for", "\n".join([*header, *rows])
            )
        self._writer.flush()

    def on_train_end(self, logs=None):
        self._writer.close()
        self._writer = None

    def _pictures(self, moved):
        """Returns the three images side by side, with values from 0 to 1."""
        low, high = self.model.value_range
        difference = moved - self.images
        size = np.abs(difference).max(axis=(1, 2, 3), keepdims=True)
        stretched = difference / np.where(size > 0, 2 * size, 1) + 0.5
        pixels = [
            (images - low) / (high - low) for images in (self.images, moved)
        ]
        return np.concatenate([*pixels, stretched], axis=2).clip(0, 1)
