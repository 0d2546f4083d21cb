"""A schedule that raises epsilon while clean accuracy holds."""

from keras_epsched.callbacks.epsilon_scheduler import (
    EpsilonScheduler,
    monitored,
)
from keras_epsched.onset import onset_threshold
from keras_epsched.schedules import Constant


class PacedEpsilonScheduler(EpsilonScheduler):
    """Raises epsilon while clean validation accuracy holds.

    Use it for a task of unknown difficulty. On an easy task, epsilon reaches
    its target early. On a hard task, epsilon waits until the network has
    adapted, but no longer than half of the training. Once per epoch, it
    follows this rule:

    - Epsilon is 0 until the network has adapted to the task: its clean
      validation accuracy is at least 5 % and at least twice chance (75 % with
      two classes). `TransferMonitor` uses the same threshold.
    - After that, epsilon rises by `1 / (pace * epochs)` of its target after
      each epoch whose accuracy was at least `hold` times the best so far.
      After any other epoch, epsilon stays the same.
    - In the second half of the training, epsilon has a lower bound that does
      not depend on the accuracy. The bound rises linearly from 0 and reaches
      the target at three quarters of the training.

    This rule is an addition of this package. `AutoEpsilonScheduler` is the
    paper's rule. `ExactBackup` saves and restores the state of the scheduler.

    Args:
        target_epsilon: Float. Epsilon at the end, on the [0, 1] scale.
        pace: Float in (0, 1]. The ramp takes at least this share of the
            training, if the lower bound does not raise epsilon.
        hold: Float in [0, 1]. Epsilon rises if the accuracy is at least this
            share of the best so far.
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
        callbacks=[keras_epsched.callbacks.PacedEpsilonScheduler(4 / 255)],
    )
    ```
    """

    # The lower bound of epsilon rises between these shares of the training.
    _LATEST = (0.5, 0.75)

    def __init__(
        self,
        target_epsilon,
        pace=0.2,
        hold=0.9,
        monitor="val_accuracy",
        verbose=0,
    ):
        super().__init__(Constant(target_epsilon), verbose=verbose)
        if not 0 < pace <= 1 or not 0 <= hold <= 1:
            raise ValueError(
                "`pace` must be above 0 and at most 1, and `hold` from 0 to "
                f"1. Received: pace={pace!r}, hold={hold!r}"
            )
        self.pace = pace
        self.hold = hold
        self.monitor = monitor
        self._forget()

    def _forget(self):
        # Epsilon as a share of the target, the best accuracy, and whether
        # epsilon rises before the next epoch.
        self._share, self._best, self._rises = 0.0, 0.0, False

    def on_train_begin(self, logs=None):
        self._forget()
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        epochs = self.params["epochs"]
        if self._rises:
            self._share += 1 / (self.pace * epochs)
        first, last = self._LATEST
        least = (epoch / epochs - first) / (last - first)
        self._share = min(max(self._share, least, 0.0), 1.0)
        super().on_epoch_begin(epoch, logs)

    def _set(self, position):
        self.model.epsilon = self._share * self.schedule.target_epsilon

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        otherwise = f"epsilon rises after {self._LATEST[0]:.0%} of the training"
        value = monitored(self.monitor, epoch, logs, otherwise)
        if value is None:
            return
        self._best = max(self._best, value)
        adapted = self._best >= onset_threshold(self.model.num_classes)
        self._rises = adapted and value >= self.hold * self._best

    def get_state(self):
        return {
            "share": self._share,
            "best": self._best,
            "rises": self._rises,
        }

    def set_state(self, state):
        self._share, self._best = state["share"], state["best"]
        self._rises = state["rises"]
