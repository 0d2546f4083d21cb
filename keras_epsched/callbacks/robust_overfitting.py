"""Notices robustness that is lost again, and stops in time."""

import warnings

import keras
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.pgd import PGD
from keras_epsched.training.trainer import AdversarialTrainer

_ACTIONS = ("warn", "stop")


class RobustOverfittingMonitor(keras.callbacks.Callback):
    """Watches robust accuracy on a small probe of images held out.

    Long adversarial training overfits: robust accuracy on new images falls
    while that of training still rises. From the epoch on in which epsilon has
    reached its target, the probe is attacked after each epoch, at the target,
    in inference mode; the training stays as it is. Epochs before say little,
    for epsilon still rises.

    `probe_target_accuracy` goes into the logs. When it has stayed `gap` below
    its best for `patience` epochs, the monitor warns, or stops the training and
    brings back the weights of the best epoch.

    Reference: Rice et al., ICML 2020 (arXiv 2002.11569).

    Args:
        images: Array `(batch, ...)` of pixels, of the validation split. The
            standard error of its accuracy is about `0.5 / sqrt(batch)`.
        labels: Array of their labels.
        attack: `Attack` of the probe. Defaults to `PGD(steps=10)` in the norm
            of the training attack.
        gap: Float. Loss of accuracy that counts: 0.05 are five points.
        patience: Int. Epochs in a row at which it counts.
        action: `"warn"`, or `"stop"`: robust early stopping.

    Raises:
        ValueError: If an argument is not as described; when training begins,
            if the model is not an `AdversarialTrainer`.

    Example:
    ```python
    images, labels = next(iter(data.validation))
    monitor = keras_epsched.callbacks.RobustOverfittingMonitor(
        images, labels, action="stop"
    )
    trainer.fit(data.train, epochs=50, callbacks=[scheduler, monitor])
    ```
    """

    def __init__(
        self,
        images,
        labels,
        attack=None,
        gap=0.05,
        patience=3,
        action="warn",
    ):
        super().__init__()
        if action not in _ACTIONS:
            raise ValueError(
                f"`action` must be one of {_ACTIONS}. Received: "
                f"action={action!r}"
            )
        if not 0 <= gap < 1 or patience < 1:
            raise ValueError(
                "expected a `gap` in [0, 1) and a `patience` of 1 or more. "
                f"Received: gap={gap}, patience={patience}"
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
        self.gap = gap
        self.patience = patience
        self.action = action
        self._measure = None
        self._forget()

    def _forget(self):
        self.best, self.best_epoch, self.fired_at = None, None, None
        self._weights, self._wait = None, 0

    def on_train_begin(self, logs=None):
        trainer = self.model
        if not isinstance(trainer, AdversarialTrainer):
            raise ValueError(
                "`RobustOverfittingMonitor` needs an `keras_epsched."
                "AdversarialTrainer`. Received: a model of type "
                f"{type(trainer).__name__}"
            )
        norm = trainer.attack.norm
        attack = self.attack or PGD(steps=10, norm=norm)
        if attack.norm != norm:
            raise ValueError(
                "`attack` must have the norm of the training attack, "
                f"{norm!r}. Received: {attack!r}"
            )
        self._forget()
        self._measure = _make_probe(trainer, attack)

    def on_epoch_end(self, epoch, logs=None):
        trainer = self.model
        target = trainer.target_epsilon
        if not target > 0 or trainer.epsilon < target * (1 - 1e-6):
            return
        accuracy = float(
            ops.convert_to_numpy(self._measure(self.images, self.labels))
        )
        if logs is not None:
            logs["probe_target_accuracy"] = accuracy
        if self.best is None or accuracy > self.best:
            self.best, self.best_epoch = accuracy, epoch + 1
            if self.action == "stop":
                self._weights = trainer.model.get_weights()
        fallen = accuracy <= self.best - self.gap and accuracy < self.best
        self._wait = self._wait + 1 if fallen else 0
        if self._wait >= self.patience and self.fired_at is None:
            self.fired_at = epoch + 1
            self._act(epoch, accuracy)

    def _act(self, epoch, accuracy):
        consequence = (
            "Train shorter, or let `RobustCheckpoint` keep the best epoch."
        )
        if self.action == "stop":
            self.model.model.set_weights(self._weights)
            self.model.stop_training = True
            consequence = (
                f"The weights of epoch {self.best_epoch} are back, and the "
                "training ends."
            )
        warnings.warn(
            f"epoch {epoch + 1}: robust overfitting. At the target "
            f"{accuracy:.1%} of the probe are right, {self.best:.1%} were "
            f"after epoch {self.best_epoch}. {consequence}",
            stacklevel=3,
        )

    def get_state(self):
        """What a training that goes on must remember."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "fired_at": self.fired_at,
            "wait": self._wait,
            "weights": self._weights or [],
        }

    def set_state(self, state):
        """Takes what `get_state` returned."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.fired_at, self._wait = state["fired_at"], state["wait"]
        self._weights = state["weights"] or None


def _make_probe(trainer, attack):
    """Compiles the accuracy of a batch at the target epsilon."""

    def accuracy(images, labels):
        broken = attack.search(
            trainer.frozen_logits(False),
            images,
            trainer.class_labels(labels, images),
            ops.convert_to_tensor(trainer._target_epsilon),
            # The same starts in each epoch: the values are comparable.
            noise.make_key(0, ops.arange(ops.shape(images)[0])),
            trainer.value_range,
        ).broken
        return 1.0 - ops.mean(ops.cast(broken, "float32"))

    jit_compile = getattr(trainer, "jit_compile", False)
    return backend.compile(accuracy, bool(jit_compile), trainer.variables)
