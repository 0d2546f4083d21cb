"""How long a training still takes, told as it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import keras
import numpy as np

from keras_epsched.evaluation.progress import duration

# Epochs that the pace is taken from.
_RECENT = 3


class TimeLeft(keras.callbacks.Callback):
    """Prints about how long the training still takes, before each epoch.

    The seconds of the last epochs for each of their passes are taken for those
    to come: epochs that attack have more of them.

    Args:
        work: Sequence of numbers, the passes of each epoch.
        at_most: Boolean. Whether later epochs may have fewer.
    """

    def __init__(self, work: Sequence[int], at_most: bool = False):
        super().__init__()
        self.work = list(work)
        self.at_most = at_most
        self._paces: list[float] = []
        self._first = None
        self._began = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        now = time.monotonic()
        if self._first is None:
            self._first = epoch
        # The epoch that a training resumes in may be the rest of one.
        elif epoch > self._first + 1 or self._first == 0:
            self._paces.append((now - self._began) / self.work[epoch - 1])
            print(self.line(epoch), flush=True)
        self._began = now

    def line(self, epoch: int) -> str:
        """Returns how long the epochs from this one on take."""
        # The first one compiles as well, and counts where it is the only one.
        recent = self._paces[1:][-_RECENT:] or self._paces
        left = float(np.mean(recent)) * sum(self.work[epoch:])
        at_most = self.at_most or len(self._paces) == 1
        about = "at most about" if at_most else "about"
        return f"{about} {duration(left)} of this training left"
