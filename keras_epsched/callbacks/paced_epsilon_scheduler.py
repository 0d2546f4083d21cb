"""A schedule that rises while clean accuracy holds, and waits otherwise."""

from keras_epsched.callbacks.epsilon_scheduler import (
    EpsilonScheduler,
    monitored,
)
from keras_epsched.onset import onset_threshold
from keras_epsched.schedules import Constant


class PacedEpsilonScheduler(EpsilonScheduler):
    """Raises epsilon as fast as the clean accuracy holds, up to a deadline.

    For tasks of unknown difficulty: where a fixed epsilon would do, little
    time is spent below the target; where it would prevent the adaptation,
    epsilon waits for it, but not for ever. The rule, once an epoch:

    - Epsilon is 0 until the task is adapted to: clean validation accuracy of
      at least 5 % and twice chance, with two classes 75 % (as
      `TransferMonitor` has it).
    - From then on it rises by `1 / (pace * epochs)` of the target in each
      epoch after one whose accuracy was at least `hold` times the best so
      far, and stays where it is after the others.
    - From half of the training on it is at least on the line that reaches the
      target after three quarters of it, whatever the accuracy.

    The rule is ours, and not the paper's (see `AutoEpsilonScheduler`). A
    training that is resumed by `ExactBackup` goes on with it.

    Args:
        target_epsilon: Float. Strength to end with, on the [0, 1] scale.
        pace: Float in (0, 1]. Share of the training that the ramp takes at
            least.
        hold: Float in [0, 1]. Share of the best accuracy that must hold.
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
        callbacks=[keras_epsched.callbacks.PacedEpsilonScheduler(4 / 255)],
    )
    ```
    """

    # Shares of the training between which epsilon reaches the target at last.
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
                "expected a pace in (0, 1] and a hold in [0, 1]. Received: "
                f"pace={pace!r}, hold={hold!r}"
            )
        self.pace = pace
        self.hold = hold
        self.monitor = monitor
        self._forget()

    def _forget(self):
        # Share of the target, and what the next epoch goes by.
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
