"""The base class of callbacks that attack the same images in each epoch."""

import numpy as np
from keras import ops

from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack, check_count
from keras_epsched.callbacks.base import TrainerCallback
from keras_epsched.training import passes
from keras_epsched.training.compiled import CompiledFunction


class MonitoredImages(TrainerCallback):
    """Attacks the same images in each epoch, in the norm of the training.

    Args:
        images: Array `(batch, ...)` of pixels.
        labels: Array of their labels.
        attack: `Attack`, or `None` for `default_attack`.
        action: String from `ACTIONS`. What to do when the monitor fires.
        batch_size: Int. Number of images that are attacked at once.

    Raises:
        ValueError: If an argument is invalid. When training begins: if the
            model is not an `AdversarialTrainer`.
    """

    ACTIONS: tuple[str, ...] = ("warn", "stop")

    def __init__(self, images, labels, attack, action="warn", batch_size=64):
        super().__init__()
        check_count(batch_size, "batch_size")
        if action not in self.ACTIONS:
            raise ValueError(
                f"`action` must be one of {self.ACTIONS}. Received: "
                f"action={action!r}"
            )
        if attack is not None and not (
            isinstance(attack, Attack) and attack.can_evaluate
        ):
            raise ValueError(
                "`attack` must be an attack of `keras_epsched.attacks` that "
                f"can evaluate. Received: attack={attack!r}"
            )
        self.images = ops.convert_to_numpy(images).astype("float32")
        self.labels = ops.convert_to_numpy(labels)
        self.attack = attack
        self.action = action
        self.batch_size = batch_size
        # The attack in use, and the compiled `measure_batch`.
        self._attack = None
        self._compiled = CompiledFunction()

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        trainer = self.model
        optimizer = getattr(trainer, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if self.action == "stop" and getattr(optimizer, "use_ema", False):
            raise ValueError(
                'action="stop" restores earlier weights. The optimizer has '
                "`use_ema=True`, so `fit` would then overwrite them with the "
                'moving average. Use action="warn", or an optimizer without '
                "`use_ema`."
            )
        norm = trainer.attack.norm
        self._attack = self.attack or self.default_attack(norm)
        if self._attack.norm != norm:
            raise ValueError(
                f"`attack` must have the norm of the training attack: {norm!r}."
                f" Received: {self._attack!r}"
            )

    def default_attack(self, norm):
        """Returns the attack to use if none is given. Subclasses override it.

        Args:
            norm: String. The norm of the training attack.

        Returns:
            An `Attack`.
        """
        raise NotImplementedError

    def measure_batch(self, images, labels, places):
        """Measures a batch. Subclasses override it.

        Args:
            images: Float32 tensor `(batch, ...)` of pixels.
            labels: Tensor of their labels.
            places: Integer tensor of shape `(batch,)`. Numbers of the images.

        Returns:
            A list of tensors, each with an entry for each image.
        """
        raise NotImplementedError

    def measure(self) -> list:
        """Returns the results of `measure_batch` on all images, as arrays."""
        count = len(self.images)
        batches = -(-count // self.batch_size)
        # All batches have the same size, for which `measure_batch` is
        # compiled. A smaller batch repeats at most one image, because BatchNorm
        # in training mode uses the whole batch.
        size = -(-count // batches)
        run = self._compiled.of(self.model, self.measure_batch, self._attack)
        found = []
        for places in np.array_split(np.arange(count, dtype="int32"), batches):
            needed = len(places)
            places = np.resize(places, size)
            seen = run(self.images[places], self.labels[places], places)
            found.append([ops.convert_to_numpy(x)[:needed] for x in seen])
        return [np.concatenate(each) for each in zip(*found, strict=True)]

    def search(self, images, labels, places, epsilon):
        """Attacks a batch in inference mode, and returns the result."""
        trainer = self.model
        return self._attack.search(
            passes.frozen_logits(trainer, False),
            images,
            trainer.class_labels(labels, images),
            ops.convert_to_tensor(epsilon),
            # The same random starts in each epoch, for comparable results.
            noise.make_key(0, places),
            trainer.value_range,
        )
