"""What the callbacks share that attack the same few images each epoch."""

import keras
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.pgd import PGD
from keras_epsched.training.trainer import AdversarialTrainer


class Probe(keras.callbacks.Callback):
    """Base class: images, labels, and an attack in the norm of the training.

    Args:
        images: Array `(batch, ...)` of pixels.
        labels: Array of their labels.
        attack: `Attack` or `None`, for PGD with `steps`.
        steps: Int. Steps of the attack where none is given.
        action: String, one of `ACTIONS`: what follows when it fires.

    Raises:
        ValueError: If an argument is not as described; when training begins,
            if the model is not an `AdversarialTrainer`.
    """

    ACTIONS: tuple[str, ...] = ("warn", "stop")

    def __init__(self, images, labels, attack, steps, action="warn"):
        super().__init__()
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
        self.steps = steps
        self.action = action
        # The attack in use, and what `look` finds, compiled.
        self._attack = self._measure = None

    def on_train_begin(self, logs=None):
        trainer = self.model
        if not isinstance(trainer, AdversarialTrainer):
            raise ValueError(
                f"`{type(self).__name__}` needs an "
                "`keras_epsched.AdversarialTrainer`. Received: a model of "
                f"type {type(trainer).__name__}"
            )
        norm = trainer.attack.norm
        self._attack = self.attack or PGD(steps=self.steps, norm=norm)
        if self._attack.norm != norm:
            raise ValueError(
                "`attack` must have the norm of the training attack, "
                f"{norm!r}. Received: {self._attack!r}"
            )
        self.compile_measure()

    def compile_measure(self):
        """Compiles `look`, with the attacks as they are now."""
        trainer = self.model
        self._measure = backend.compile(
            self.look,
            bool(getattr(trainer, "jit_compile", False)),
            trainer.variables,
        )

    def look(self, images, labels):
        """What is looked at, as a list of tensors; to be overridden."""
        raise NotImplementedError

    def measure(self) -> list:
        """What `look` finds on the probe, as NumPy arrays."""
        found = self._measure(self.images, self.labels)
        return [ops.convert_to_numpy(each) for each in found]

    def attacked(self, images, labels, epsilon):
        """What the attack of the probe finds, in inference mode."""
        trainer = self.model
        return self._attack.search(
            trainer.frozen_logits(False),
            images,
            trainer.class_labels(labels, images),
            ops.convert_to_tensor(epsilon),
            # The same starts in each epoch: the values are comparable.
            noise.make_key(0, ops.arange(ops.shape(images)[0])),
            trainer.value_range,
        )

    def withstood(self, images, labels, epsilon):
        """Share of the images that the attack of the probe does not break."""
        broken = self.attacked(images, labels, epsilon).broken
        return 1.0 - ops.mean(ops.cast(broken, "float32"))
