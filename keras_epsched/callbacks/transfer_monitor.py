"""Judges whether a robust fine-tuning adapted to its task."""

import math
import warnings

import numpy as np

from keras_epsched.callbacks.base import TrainerCallback
from keras_epsched.onset import onset, onset_threshold

# A clean accuracy this far below that of standard fine-tuning is suboptimal.
_SUBOPTIMAL = 0.9
# After the ramp, less than this share of the clean accuracy before the ramp
# is suboptimal.
_STEEP = 0.75
# The advice for a schedule whose hinges no flag moves.
_TWO_HINGE = "take `TwoHinge` (`--schedule=scheduled`)"


class TransferMonitor(TrainerCallback):
    """Judges whether the network adapted to the task, and advises.

    Use it to learn whether the attack prevented the network from learning the
    task, and how to change the schedule. After the training, the attribute
    `verdict` is one of:

    - `"failure"`: the last clean validation accuracy is below the threshold
      of adaptation, which is 5 % or twice chance, whichever is larger (75 %
      with two classes).
    - `"suboptimal"`: the last clean validation accuracy is below 90 % of the
      best of a standard fine-tuning, or more than a quarter of it was lost
      while epsilon rose.
    - `"healthy"`: none of these.
    - `"undecided"`: none of these, but the network was trained with an attack
      and there is no `reference` to compare with.

    The attribute `advice` is a text that says what was seen and what to
    change. A failure and a suboptimal transfer also cause a warning.

    The logs of each epoch get `onset`: the first epoch, counted from 1, whose
    clean validation accuracy reached the threshold of adaptation, or 0. With
    a `reference`, they also get `transfer_gap`: the best accuracy of the
    reference minus the clean validation accuracy of the epoch.

    Reference: arXiv 2509.23325, section 4.

    Args:
        num_classes: Int. Number of classes.
        reference: List of clean validation accuracies in [0, 1], one for each
            epoch of a standard fine-tuning of the same network; or `None`.
            Without it, the monitor can only detect a failure, and accuracy
            that was lost while epsilon rose.
        monitor: String. Name of the clean accuracy in the logs.

    Raises:
        ValueError: If an argument is invalid. When training begins: if the
            model is not an `AdversarialTrainer`. After an epoch: if the logs
            do not contain `monitor`.

    Example:
    ```python
    monitor = keras_epsched.callbacks.TransferMonitor(
        data.num_classes, reference=standard.history["val_accuracy"]
    )
    trainer.fit(..., callbacks=[scheduler, monitor])
    print(monitor.verdict, monitor.advice)
    ```
    """

    def __init__(self, num_classes, reference=None, monitor="val_accuracy"):
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                "`num_classes` must be at least 2. Received: "
                f"num_classes={num_classes}"
            )
        if reference is not None:
            reference = [float(each) for each in reference]
            if not reference or not all(0 <= each <= 1 for each in reference):
                raise ValueError(
                    "`reference` must be a list of accuracies in [0, 1], one "
                    f"for each epoch. Received: {reference}"
                )
        self.num_classes = num_classes
        self.reference = reference
        self.monitor = monitor
        self.verdict = self.advice = None
        self._accuracies, self._epsilons = [], []

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.verdict = self.advice = None
        self._accuracies, self._epsilons = [], []

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        if value is None:
            raise ValueError(
                f"`TransferMonitor` needs {self.monitor!r} in the logs. Pass "
                '`validation_data` to `fit` and metrics=["accuracy"] to '
                f"`compile`. Received logs: {sorted(logs or {})}"
            )
        self._accuracies.append(float(value))
        self._epsilons.append(self.model.epsilon)
        logs["onset"] = self.onset or 0
        if self.reference is not None:
            logs["transfer_gap"] = max(self.reference) - float(value)

    @property
    def onset(self) -> int | None:
        """First epoch, counted from 1, that reached the threshold."""
        return onset(self._accuracies, self.num_classes)

    @property
    def delay(self) -> int | None:
        """Number of epochs by which the onset is later than the reference's."""
        if self.reference is None or self.onset is None:
            return None
        first = onset(self.reference, self.num_classes)
        return None if first is None else self.onset - first

    def on_train_end(self, logs=None):
        if not self._accuracies:
            return
        self.verdict, self.advice = self._judge()
        if self.verdict in ("failure", "suboptimal"):
            warnings.warn(
                f"{self.verdict} transfer: {self.advice}", stacklevel=2
            )

    def _judge(self):
        final = self._accuracies[-1]
        threshold = onset_threshold(self.num_classes)
        before, after = self._around_the_ramp()
        collapsed = before is not None and after < _STEEP * before
        if final < threshold:
            if before is not None and before >= threshold:
                return "failure", (
                    f"clean validation accuracy fell from {before:.1%} to "
                    f"{final:.1%} after epsilon rose, so the network lost the "
                    f"task. {self._longer()}, or lower the target epsilon."
                )
            start = f"set `ramp_start={self._adapted_share():g}` or later"
            otherwise = "If epsilon was 0 for that long already, change"
            if self._rose_above_the_target():
                start, otherwise = _TWO_HINGE, "If that fails too, change"
            remedy = (
                f"Keep epsilon at 0 for longer: {start}. {otherwise} the "
                "learning rate."
            )
            if max(self._epsilons) == 0:
                remedy = (
                    "There was no attack: change the learning rate, or train "
                    "for more epochs."
                )
            return "failure", (
                f"clean validation accuracy ended at {final:.1%}. The network "
                f"did not adapt to the task, which takes {threshold:.1%}. "
                f"{remedy}"
            )
        # The clean accuracy that a reference demands.
        enough = _SUBOPTIMAL * max(self.reference or [0.0])
        if final < enough:
            gap = max(self.reference) - final
            if before is None:
                remedy = (
                    "Start the training at epsilon 0, and set "
                    f"`ramp_start={self._adapted_share():g}`."
                )
            elif collapsed:
                remedy = (
                    f"It was {before:.1%} before epsilon rose. "
                    f"{self._longer()}."
                )
            elif before >= enough:
                remedy = (
                    f"Before epsilon rose, it was {before:.1%}: the network "
                    "had adapted to the task, and lost accuracy while epsilon "
                    f"rose. {self._longer()}, or lower the target epsilon."
                )
            else:
                start = "set a later `ramp_start`"
                if self._rose_above_the_target():
                    start = _TWO_HINGE
                remedy = (
                    f"Before epsilon rose, it was {before:.1%}: the network "
                    "had not yet adapted to the task. Keep epsilon at 0 for "
                    f"longer: {start}."
                )
            return "suboptimal", (
                f"clean validation accuracy ends {100 * gap:.1f} points below "
                f"the best of the standard fine-tuning. {remedy}"
            )
        if collapsed:
            return "suboptimal", (
                f"clean validation accuracy fell from {before:.1%} to "
                f"{after:.1%} while epsilon rose. {self._longer()}."
            )
        short = self._short_of_the_target()
        if max(self._epsilons) == 0:
            return "healthy", (
                "the network adapted to the task. It was trained without any "
                "attack, so it is not robust."
            )
        if self.reference is None:
            return "undecided", (
                "the network adapted to the task. To know whether the attack "
                "cost clean accuracy, compare with a standard fine-tuning: "
                "launch/compare.py trains one. In Python, pass its clean "
                "validation accuracies as `TransferMonitor(num_classes, "
                f"reference=accuracies)`.{short}"
            )
        return "healthy", (
            f"clean validation accuracy ends at {final:.1%}; the standard "
            f"fine-tuning reached {max(self.reference):.1%}."
            f"{short or ' Keep the schedule.'}"
        )

    def _rose_above_the_target(self):
        """Returns whether epsilon had a peak. No flag moves its hinges."""
        return 0 < self.model.target_epsilon < 0.999 * max(self._epsilons)

    def _longer(self):
        """Returns how to make the ramp gentler, as a start of a sentence."""
        if self._rose_above_the_target():
            return f"Do not train above the target: {_TWO_HINGE}"
        if self._held() > 1:
            return "Make the ramp longer: set a later `ramp_end`"
        # The ramp already ends in the last epoch.
        return (
            "Make the ramp longer: train for more epochs or set an earlier "
            "`ramp_start`"
        )

    def _held(self):
        """Returns the number of epochs at the target epsilon."""
        return sum(map(self.model.reaches_target, self._epsilons))

    def _short_of_the_target(self):
        """Returns a sentence if few epochs were at the target epsilon."""
        held, epochs = self._held(), len(self._epsilons)
        if held >= 0.1 * epochs or np.any(np.diff(self._epsilons) < 0):
            return ""
        return (
            f" But only {held} of {epochs} epochs trained at the target "
            "epsilon. For more robustness, set an earlier `ramp_end`."
        )

    def _around_the_ramp(self):
        """Returns the clean accuracy before epsilon rose, and at the end."""
        zero = [
            accuracy
            for accuracy, epsilon in zip(
                self._accuracies, self._epsilons, strict=True
            )
            if epsilon == 0
        ]
        if not zero or max(self._epsilons) == 0:
            return None, None
        return zero[-1], self._accuracies[-1]

    def _adapted_share(self):
        """Returns the share of the training that the task adaptation takes.

        It ends when the reference reaches 90 % of its last accuracy, as in the
        paper. Without a reference, the share is the paper's default: a
        quarter.
        """
        if self.reference is None:
            return 0.25
        for epoch, accuracy in enumerate(self.reference, 1):
            if accuracy >= 0.9 * self.reference[-1]:
                share = epoch / len(self.reference)
                return min(math.ceil(100 * share) / 100, 0.5)
        return 0.5

    def get_state(self):
        return {
            "accuracies": [np.asarray(self._accuracies)],
            "epsilons": [np.asarray(self._epsilons)],
        }

    def set_state(self, state):
        self._accuracies = state["accuracies"][0].tolist()
        self._epsilons = state["epsilons"][0].tolist()
