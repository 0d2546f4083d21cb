"""Saves the checkpoint with the best robust accuracy."""

import warnings

import keras

from keras_epsched.callbacks.base import TrainerCallback


class RobustCheckpoint(TrainerCallback, keras.callbacks.ModelCheckpoint):
    """Saves the epoch with the best robust validation accuracy.

    Use it instead of a `ModelCheckpoint` on `val_accuracy`. Clean accuracy is
    usually highest while epsilon is 0, so that checkpoint would save a network
    that is not robust. This callback considers only epochs that trained at the
    target epsilon or above it.

    It needs an `AdversarialTrainer` with a `validation_attack`, validation data
    in `fit`, and an `EpsilonScheduler`. Use a validation attack on the
    probability margin: it costs as much as one on cross-entropy, and breaks
    images that the other one does not.

    If you resume a training without `ExactBackup`, pass the best value so far
    as `initial_value_threshold`.

    Args:
        filepath: String or path that ends in `.keras` (or in `.weights.h5`
            with `save_weights_only=True`).
        monitor: String. Name of the accuracy in the logs (higher is better).
        **kwargs: Other arguments of `keras.callbacks.ModelCheckpoint`.

    Raises:
        ValueError: When training begins, if the model is not an
            `AdversarialTrainer` or has no `validation_attack`.

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier,
        validation_attack=keras_epsched.attacks.APGD(
            steps=10, loss="probability_margin"
        ),
    )
    callbacks = [
        keras_epsched.callbacks.EpsilonScheduler(schedule),
        keras_epsched.callbacks.RobustCheckpoint("best.keras"),
    ]
    ```
    """

    def __init__(self, filepath, monitor="val_robust_accuracy", **kwargs):
        super().__init__(
            filepath,
            monitor=monitor,
            mode="max",
            save_best_only=True,
            **kwargs,
        )
        self._reached = self._measured = False

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._reached = self._measured = False
        if (
            self.monitor == "val_robust_accuracy"
            and self.model.validation_attack is None
        ):
            raise ValueError(
                "`RobustCheckpoint` needs robust validation. Pass "
                '`validation_attack=APGD(steps=10, loss="probability_margin")` '
                "to `AdversarialTrainer`, and `validation_data` to `fit`."
            )

    def on_epoch_end(self, epoch, logs=None):
        if not self.model.at_target:
            return
        self._reached = True
        # Without this check, Keras would save an epoch without validation.
        if self.monitor in (logs or {}):
            self._measured = True
            super().on_epoch_end(epoch, logs)

    def get_state(self):
        return {
            "best": None if self.best is None else float(self.best),
            "reached": self._reached,
            "measured": self._measured,
        }

    def set_state(self, state):
        self.best = state["best"]
        self._reached, self._measured = state["reached"], state["measured"]

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if not self.model.target_epsilon:
            warnings.warn(
                "RobustCheckpoint: no checkpoint was saved, because the target "
                "epsilon is 0: this training has no attack. Save "
                "`trainer.model` instead.",
                stacklevel=2,
            )
        elif not self._reached:
            warnings.warn(
                "RobustCheckpoint: no checkpoint was saved, because epsilon "
                f"never reached its target of {self.model.target_epsilon:g}. "
                "End the ramp before the last epoch (a smaller `ramp_end`), or "
                "train for more epochs.",
                stacklevel=2,
            )
        elif not self._measured:
            warnings.warn(
                "RobustCheckpoint: no checkpoint was saved, because no epoch "
                f"at the target epsilon had {self.monitor!r} in its logs. Pass "
                "`validation_data` to `fit`.",
                stacklevel=2,
            )
        elif self.best == 0:
            warnings.warn(
                f"RobustCheckpoint: {self.monitor!r} was 0 in every epoch at "
                f"the target epsilon of {self.model.target_epsilon:g}, so the "
                "checkpoint is not robust there. Choose a smaller target, for "
                "example half of it, or train for more epochs.",
                stacklevel=2,
            )
