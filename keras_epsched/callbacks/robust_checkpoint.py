"""A checkpoint that is chosen by robustness."""

import warnings

import keras


class RobustCheckpoint(keras.callbacks.ModelCheckpoint):
    """Saves the epoch of best robust validation accuracy, after the ramp.

    While epsilon still rises, robust validation accuracy says little and
    clean accuracy is at its highest: a checkpoint chosen by `val_accuracy`
    comes from the phase of epsilon 0. This one looks only at epochs that
    trained at the target epsilon or above it. When a training is resumed, pass
    the best value so far as `initial_value_threshold`.

    Needs an `AdversarialTrainer` with a `validation_attack`, validation data,
    and an `EpsilonScheduler`.

    Args:
        filepath: String or path, ending in `.keras` (or `.weights.h5` with
            `save_weights_only=True`).
        monitor: String. Name in the logs, higher is better.
        **kwargs: Other arguments of `keras.callbacks.ModelCheckpoint`.

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier, validation_attack=keras_epsched.attacks.PGD(steps=10)
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
        self._reached = False

    def on_train_begin(self, logs=None):
        self._reached = False
        if (
            self.monitor == "val_robust_accuracy"
            and getattr(self.model, "validation_attack", None) is None
        ):
            raise ValueError(
                "`RobustCheckpoint` needs robust validation: pass "
                "`validation_attack=PGD(steps=10)` to `AdversarialTrainer` "
                "and `validation_data` to `fit`."
            )
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        target = self.model.target_epsilon
        if self.model.epsilon >= target * (1 - 1e-6) and target > 0:
            self._reached = True
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if not self._reached:
            warnings.warn(
                "no checkpoint was saved: epsilon never reached its target of "
                f"{self.model.target_epsilon:g}. End the ramp before the last "
                "epoch.",
                stacklevel=2,
            )
