"""How long a training, or a comparison, still takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import keras
import numpy as np

from keras_epsched.evaluation.progress import duration

# Epochs that the pace is taken from.
_RECENT = 3


class Pace:
    """Estimates how long the epochs to come take.

    The seconds of the last epochs for each of their passes are taken for those
    to come: epochs that attack have more of them.

    Args:
        work: Sequence of numbers, the passes of each epoch.
        at_most: Boolean. Whether later epochs may have fewer.
    """

    def __init__(self, work: Sequence[float], at_most: bool = False):
        self.work = list(work)
        self.at_most = at_most
        self._paces: list[float] = []
        self._first = 0
        self._began = 0.0

    def begin(self, epoch: int) -> None:
        """The first epoch of this process begins."""
        self._first = epoch
        self._began = time.monotonic()

    def end(self, epoch: int) -> None:
        """An epoch has ended."""
        now = time.monotonic()
        # The epoch that a training resumes in may be the rest of one.
        if epoch > self._first or self._first == 0:
            self._paces.append((now - self._began) / self.work[epoch])
        self._began = now

    def left(self, epoch: int) -> str:
        """Returns how long the epochs from this one on take.

        It is empty if nothing is known or nothing is left.
        """
        work = sum(self.work[epoch:])
        if not self._paces or not work:
            return ""
        # The first one compiles as well, and counts where it is the only one.
        recent = self._paces[1:][-_RECENT:] or self._paces
        at_most = self.at_most or len(self._paces) == 1
        about = "at most about" if at_most else "about"
        return f"{about} {duration(float(np.mean(recent)) * work)}"


class TimeLeft(keras.callbacks.Callback):
    """Prints about how long the training still takes, before each epoch.

    Args:
        work: Sequence of numbers, the passes of each epoch. Epochs that attack
            have more passes, and take longer.
        at_most: Boolean. Whether later epochs may have fewer.
    """

    def __init__(self, work: Sequence[float], at_most: bool = False):
        super().__init__()
        self._pace: Pace | None = None
        self._arguments = work, at_most

    def on_epoch_begin(self, epoch, logs=None):
        if self._pace is None:
            self._pace = Pace(*self._arguments)
            self._pace.begin(epoch)
            return
        self._pace.end(epoch - 1)
        left = self._pace.left(epoch)
        if left:
            print(f"{left} of this training left", flush=True)


class ArmsLeft:
    """Estimates how long the trainings of a comparison still take.

    Each has a training, whose time follows its passes, and an evaluation.

    Args:
        work: Dict from names to numbers, the passes of each training.
    """

    def __init__(self, work: dict):
        self.work = work
        self._waiting = list(work)
        self._trained: list[tuple[float, float]] = []
        self._evaluated: list[float] = []

    def done(
        self, name, training: float | None = None, evaluation: float = 0.0
    ) -> None:
        """One of them is done.

        Args:
            name: One of the names.
            training: Seconds, or `None` if it was there already.
            evaluation: Seconds.
        """
        self._waiting.remove(name)
        if training is not None:
            self._trained.append((training, self.work[name]))
            self._evaluated.append(evaluation)

    def text(self, name) -> str:
        """Returns the number of one that begins, and the time that is left."""
        total = len(self.work)
        number = total - len(self._waiting) + 1
        found = f"arm {number} of {total}"
        if not self._trained:
            return found
        seconds, work = np.sum(self._trained, axis=0)
        left = sum(self.work[each] for each in self._waiting)
        # Robust networks take longer to evaluate than the first one.
        left = left * seconds / work
        left += len(self._waiting) * max(self._evaluated)
        return f"{found}, about {duration(left)} left"
