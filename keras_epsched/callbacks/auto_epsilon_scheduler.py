"""A schedule whose first hinge is found in the course of the training."""

import math

from keras_epsched.callbacks.epsilon_scheduler import (
    EpsilonScheduler,
    monitored,
)
from keras_epsched.schedules import Constant, TwoHinge


class AutoEpsilonScheduler(EpsilonScheduler):
    """Waits until clean validation accuracy has converged, then ramps epsilon.

    Use it where you do not know when the task is adapted to. Epsilon is 0
    until the best clean validation accuracy has not improved by `tolerance`
    for `patience` epochs, at the latest from `latest` on; then it rises
    linearly, and reaches the target in the last epoch. In the paper this ends
    slightly below two well chosen hinges and far above a fixed epsilon.

    The schedule that it has found is `schedule`, from the first epoch of the
    ramp on, and the number of that epoch, from 1, `ramp_epoch`. A resumed
    training goes on with them when `ExactBackup` resumes it.

    Reference: arXiv 2509.23325, section 6.3 and table 4. That one must wait
    no longer than half of the training is ours.

    Args:
        target_epsilon: Float. Strength to end with, on the [0, 1] scale.
        tolerance: Float. Least gain of accuracy that counts: 0.02 are two
            percentage points.
        patience: Int. Epochs without such a gain.
        latest: Float in [0, 1). Share of the training after which the ramp
            begins in any case.
        monitor: String. The clean accuracy in the logs, higher is better.
        verbose: Int. 1 prints epsilon at the start of every epoch.

    Raises:
        ValueError: If an argument is not as described.

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
        # Of the target alone, until the ramp is known.
        super().__init__(Constant(target_epsilon), verbose=verbose)
        for name, value, valid in (
            ("tolerance", tolerance, 0 <= tolerance < 1),
            ("patience", patience, patience >= 1),
            ("latest", latest, 0 <= latest < 1),
        ):
            if not valid:
                raise ValueError(
                    "expected a tolerance in [0, 1), a patience of 1 or more "
                    f"and a latest in [0, 1). Received: {name}={value!r}"
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
        # At the target in the last epoch, which begins at this share.
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
        otherwise = f"the ramp begins after {self.latest:.0%} of the training"
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
