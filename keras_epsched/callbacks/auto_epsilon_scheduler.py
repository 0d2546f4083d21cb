"""A schedule that finds the start of its ramp during the training."""

import math

from keras_epsched.callbacks.epsilon_scheduler import (
    EpsilonScheduler,
    monitored,
)
from keras_epsched.schedules import Constant, TwoHinge


class AutoEpsilonScheduler(EpsilonScheduler):
    """Raises epsilon once clean validation accuracy has converged.

    Use it if you do not know how many epochs the network needs to adapt to
    the task. Epsilon is 0 until clean validation accuracy has not improved by
    `tolerance` for `patience` epochs, but no longer than the share `latest` of
    the training. Then epsilon rises linearly and reaches the target in the
    last epoch. In the paper, the results are slightly below those of
    `TwoHinge` with well chosen hinges, and far above those of a fixed epsilon.

    The attribute `ramp_epoch` is the first epoch of the ramp, counted from 1,
    or `None` before the ramp. From that epoch on, the attribute `schedule` is
    the schedule in use. `ExactBackup` saves and restores both.

    Reference: arXiv 2509.23325, section 6.3 and table 4. The limit `latest` is
    an addition of this package.

    Args:
        target_epsilon: Float. Epsilon at the end, on the [0, 1] scale.
        tolerance: Float. Smallest gain of accuracy that counts. 0.02 means
            two percentage points.
        patience: Int. Number of epochs without such a gain before the ramp
            starts.
        latest: Float in [0, 1). The ramp starts after this share of the
            training at the latest.
        monitor: String. Name of the clean accuracy in the logs (higher is
            better).
        verbose: Int. 1 prints epsilon at the start of every epoch.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    ```python
    trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=50,
        callbacks=[keras_epsched.callbacks.AutoEpsilonScheduler(4 / 255)],
    )
    ```
    """

    def __init__(
        self,
        target_epsilon,
        tolerance=0.02,
        patience=5,
        latest=0.5,
        monitor="val_accuracy",
        verbose=0,
    ):
        # Only holds the target until the ramp is known.
        super().__init__(Constant(target_epsilon), verbose=verbose)
        for name, value, valid in (
            ("tolerance", tolerance, 0 <= tolerance < 1),
            ("patience", patience, patience >= 1),
            ("latest", latest, 0 <= latest < 1),
        ):
            if not valid:
                raise ValueError(
                    "`tolerance` and `latest` must be at least 0 and below 1, "
                    "and `patience` at least 1. "
                    f"Received: {name}={value!r}"
                )
        self._constant = self.schedule
        self.tolerance = tolerance
        self.patience = patience
        self.latest = latest
        self.monitor = monitor
        self.ramp_epoch = None
        self._best, self._wait = -math.inf, 0

    def on_train_begin(self, logs=None):
        self.schedule = self._constant
        self.ramp_epoch = None
        self._best, self._wait = -math.inf, 0
        super().on_train_begin(logs)

    def _set(self, position):
        epochs = self.params["epochs"]
        epoch = int(position)
        if self.ramp_epoch is None and (
            self._wait >= self.patience or epoch >= self.latest * epochs
        ):
            self._begin(epoch)
        if self.ramp_epoch is None:
            self.model.epsilon = 0.0
        else:
            super()._set(position)

    def _begin(self, epoch):
        epochs = self.params["epochs"]
        self.ramp_epoch = epoch + 1
        # The last epoch begins at this share, and trains at the target.
        end = max((epochs - 1) / epochs, epoch / epochs)
        if end == epoch / epochs:
            self.schedule = self._constant
        else:
            self.schedule = TwoHinge(
                self._constant.target_epsilon, epoch / epochs, end
            )

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self.ramp_epoch is not None:
            return
        otherwise = f"the ramp starts after {self.latest:.0%} of the training"
        value = monitored(self.monitor, epoch, logs, otherwise)
        if value is None:
            return
        if value >= self._best + self.tolerance:
            self._best, self._wait = value, 0
        else:
            self._wait += 1

    def get_state(self):
        return {
            "ramp_epoch": self.ramp_epoch,
            "best": self._best if math.isfinite(self._best) else None,
            "wait": self._wait,
        }

    def set_state(self, state):
        self._best = -math.inf if state["best"] is None else state["best"]
        self._wait = state["wait"]
        if state["ramp_epoch"] is not None:
            self._begin(state["ramp_epoch"] - 1)
