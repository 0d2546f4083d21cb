"""One short line an epoch, while a training runs."""

from __future__ import annotations

import sys
import time

import keras

from keras_epsched.epsilons import format_epsilon
from keras_epsched.runs.time_left import Pace

LEGEND = (
    "accuracy: on training images, attacked if epsilon is above 0; clean val.: "
    "on validation images"
)
# Seconds between two states of the line on a terminal.
_REFRESH = 0.2
_CLEAR = "\r\x1b[K"


class EpochLines(keras.callbacks.Callback):
    """Prints a line of at most 100 columns after each epoch.

    On a terminal, the line of the epoch under way shows its steps.

    Args:
        norm: String. The norm of epsilon.
        pace: `Pace`, or `None` to say nothing of the time that is left.
    """

    def __init__(self, norm: str, pace: Pace | None = None):
        super().__init__()
        self.norm = norm
        self.pace = pace
        self._columns: dict[str, int] = {}
        self._epoch = 0
        self._began = self._shown = 0.0

    def on_train_begin(self, logs=None):
        self._columns = {}

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._began = time.monotonic()
        if self.pace is not None and not self._columns:
            self.pace.begin(epoch)

    def on_train_batch_end(self, batch, logs=None):
        steps = self.params.get("steps") or "?"
        self._show(f"step {batch + 1} of {steps}")

    def on_test_begin(self, logs=None):
        self._show("validation")

    def _show(self, what):
        now = time.monotonic()
        if sys.stdout.isatty() and now >= self._shown + _REFRESH:
            self._shown = now
            number = f"{self._epoch + 1}/{self.params['epochs']}"
            print(f"{_CLEAR}epoch {number}, {what}", end="", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        cells = self._cells(epoch, logs or {})
        lines = []
        if not self._columns:
            widths = {"epoch": 7, "epsilon": 8, "time": 7}
            self._columns = {
                name: max(len(name), widths.get(name, 8)) for name in cells
            }
            lines.append(self._line({name: name for name in cells}))
        lines.append(self._line(cells))
        if sys.stdout.isatty():
            lines[0] = _CLEAR + lines[0]
        print("\n".join(lines), flush=True)

    def _line(self, cells):
        found = [
            f"{cells[name]:>{width}}"
            for name, width in self._columns.items()
            if name != "time left"
        ]
        return "  ".join([*found, cells.get("time left", "")]).rstrip()

    def _cells(self, epoch, logs):
        """The text of each column."""
        cells = {"epoch": f"{epoch + 1}/{self.params['epochs']}"}
        if "epsilon" in logs:
            cells["epsilon"] = format_epsilon(float(logs["epsilon"]), self.norm)
        cells["loss"] = f"{float(logs['loss']):.4g}"
        for name, log in (
            ("accuracy", "accuracy"),
            ("clean val.", "val_accuracy"),
            ("robust val.", "probe_target_accuracy"),
        ):
            if log in logs:
                cells[name] = f"{100 * float(logs[log]):.1f} %"
        cells["time"] = f"{time.monotonic() - self._began:.0f} s"
        if self.pace is not None:
            self.pace.end(epoch)
            cells["time left"] = self.pace.left(epoch + 1)
        return cells
