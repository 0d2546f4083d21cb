"""A checkpoint that is chosen by robustness."""

import warnings

import keras

from keras_epsched.callbacks.base import TrainerCallback


class RobustCheckpoint(TrainerCallback, keras.callbacks.ModelCheckpoint):
    """Saves the epoch of best robust validation accuracy, after the ramp.

    While epsilon still rises, robust validation accuracy says little and
    clean accuracy is at its highest: a checkpoint chosen by `val_accuracy`
    comes from the phase of epsilon 0. This one looks only at epochs that
    trained at the target epsilon or above it. When a training is resumed, but
    not by `ExactBackup`, pass the best value so far as
    `initial_value_threshold`.

    Needs an `AdversarialTrainer` with a `validation_attack`, validation data,
    and an `EpsilonScheduler`. Judge by an attack on the margin of
    probabilities: an attack on cross-entropy costs as much and leaves images
    standing that it breaks.

    Args:
        filepath: String or path, ending in `.keras` (or `.weights.h5` with
            `save_weights_only=True`).
        monitor: String. Name in the logs, higher is better.
        **kwargs: Other arguments of `keras.callbacks.ModelCheckpoint`.

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
                "`RobustCheckpoint` needs robust validation: pass "
                '`validation_attack=APGD(steps=10, loss="probability_margin")` '
                "to `AdversarialTrainer` and `validation_data` to `fit`."
            )

    def on_epoch_end(self, epoch, logs=None):
        if not self.model.at_target:
            return
        self._reached = True
        # Keras would save an epoch without validation, whatever its worth.
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
        if not self._reached:
            warnings.warn(
                "no checkpoint was saved: epsilon never reached its target of "
                f"{self.model.target_epsilon:g}. End the ramp before the last "
                "epoch.",
                stacklevel=2,
            )
        elif not self._measured:
            warnings.warn(
                f"no checkpoint was saved: there was no {self.monitor!r} in "
                "the logs of any epoch at the target epsilon. Pass "
                "`validation_data` to `fit`.",
                stacklevel=2,
            )
