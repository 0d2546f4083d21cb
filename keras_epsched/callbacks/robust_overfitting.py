"""Detects robust overfitting, and can stop the training."""

import warnings

from keras_epsched.attacks.apgd import APGD
from keras_epsched.callbacks.monitored_images import MonitoredImages
from keras_epsched.training.validation import say_attack


class RobustOverfittingMonitor(MonitoredImages):
    """Detects when robust accuracy on held-out images falls again.

    Use it for long trainings. Adversarial training can overfit: robust
    accuracy on new images falls while robust accuracy on the training images
    still rises. With `action="stop"`, the callback is early stopping by robust
    accuracy.

    After each epoch, the images are attacked at the target epsilon, in
    inference mode. The logs get their accuracy as `probe_target_accuracy`. The
    monitor considers only epochs that trained at the target epsilon. It fires
    if the accuracy was at least `gap` below its best for `patience` epochs in
    a row.

    Reference: Rice et al., ICML 2020 (arXiv 2002.11569).

    Args:
        images: Array `(batch, ...)` of pixels from the validation split. The
            standard error of the accuracy is about `0.5 / sqrt(batch)`.
        labels: Array of their labels.
        attack: `Attack` on these images. Defaults to `APGD(steps=10)` on
            `"probability_margin"`, in the norm of the training attack. It
            costs as much as 10 steps on cross-entropy, and its accuracy is
            closer to that under strong attacks.
        gap: Float. The loss of accuracy that counts. 0.05 means five
            percentage points.
        patience: Int. Number of epochs in a row with such a loss.
        action: String. What to do when the monitor fires: `"warn"` only
            warns; `"stop"` restores the weights of the best epoch and ends
            the training.
        batch_size: Int. Number of images that are attacked at once.

    Raises:
        ValueError: If an argument is invalid. When training begins: if the
            model is not an `AdversarialTrainer`.

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
                "`gap` must be at least 0 and below 1, and `patience` at least "
                f"1. Received: gap={gap}, patience={patience}"
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
        # Earlier epochs trained at a smaller epsilon and do not count.
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
            "To use the best epoch, train for fewer epochs, add "
            '`RobustCheckpoint("best.keras")`, or pass action="stop" to this '
            "monitor."
        )
        if self.action == "stop":
            self.model.model.set_weights(self._weights)
            self.model.stop_training = True
            consequence = (
                f"The weights of epoch {self.best_epoch} are restored, and the "
                "training ends."
            )
        warnings.warn(
            f"Epoch {epoch + 1}: robust overfitting. Robust accuracy on the "
            f"held-out images is {accuracy:.1%} at the target epsilon; after "
            f"epoch {self.best_epoch} it was {self.best:.1%}. {consequence}",
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
