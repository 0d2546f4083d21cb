"""Notices robustness that is lost again, and stops in time."""

import warnings

from keras_epsched.attacks.apgd import APGD
from keras_epsched.callbacks.monitored_images import MonitoredImages
from keras_epsched.training.validation import say_attack


class RobustOverfittingMonitor(MonitoredImages):
    """Watches robust accuracy on a few images held out.

    Long adversarial training overfits: robust accuracy on new images falls
    while that of training still rises. The images are attacked after each
    epoch, at the target, in inference mode; the training stays as it is.

    `probe_target_accuracy` goes into the logs. From the epoch on in which
    epsilon has reached its target it counts: when it has stayed `gap` below
    its best for `patience` epochs, the monitor warns, or stops the training and
    brings back the weights of the best epoch.

    Reference: Rice et al., ICML 2020 (arXiv 2002.11569).

    Args:
        images: Array `(batch, ...)` of pixels, of the validation split. The
            standard error of its accuracy is about `0.5 / sqrt(batch)`.
        labels: Array of their labels.
        attack: `Attack` on these images. Defaults to `APGD(steps=10)` on
            `"probability_margin"`, in the norm of the training attack: at the
            cost of 10 steps on cross-entropy it is closer to what strong
            attacks leave.
        gap: Float. Loss of accuracy that counts: 0.05 are five points.
        patience: Int. Epochs in a row at which it counts.
        action: `"warn"`, or `"stop"`: robust early stopping.
        batch_size: Int. Images that are attacked at once.

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
        batch_size=64,
    ):
        super().__init__(images, labels, attack, action, batch_size)
        if not 0 <= gap < 1 or patience < 1:
            raise ValueError(
                "expected a `gap` in [0, 1) and a `patience` of 1 or more. "
                f"Received: gap={gap}, patience={patience}"
            )
        self.gap = gap
        self.patience = patience
        self._forget()

    def default_attack(self, norm):
        return APGD(10, norm, "probability_margin")

    def _forget(self):
        self.best, self.best_epoch, self.fired_at = None, None, None
        self._weights, self._wait = None, 0

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._forget()
        say_attack(self, "probe_target_accuracy", self._attack)

    def measure_batch(self, images, labels, places):
        epsilon = self.model._target_epsilon
        return [self.search(images, labels, places, epsilon).broken]

    def on_epoch_end(self, epoch, logs=None):
        trainer = self.model
        if not trainer.target_epsilon > 0:
            return
        (broken,) = self.measure()
        accuracy = 1.0 - float(broken.mean())
        if logs is not None:
            logs["probe_target_accuracy"] = accuracy
        # Epochs before say little.
        if not trainer.at_target:
            return
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
            f"{accuracy:.1%} of the images are right, {self.best:.1%} were "
            f"after epoch {self.best_epoch}. {consequence}",
            stacklevel=3,
        )

    def get_state(self):
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "fired_at": self.fired_at,
            "wait": self._wait,
            "weights": self._weights or [],
        }

    def set_state(self, state):
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.fired_at, self._wait = state["fired_at"], state["wait"]
        self._weights = state["weights"] or None
