"""Says whether a robust fine-tuning has transferred, and what to change."""

import math
import warnings

import numpy as np

from keras_epsched.callbacks.base import TrainerCallback
from keras_epsched.onset import onset, onset_threshold

# A clean accuracy this far below that of standard fine-tuning is suboptimal.
_SUBOPTIMAL = 0.9
# Clean accuracy that a ramp may cost, as a share of what it was before.
_STEEP = 0.75


class TransferMonitor(TrainerCallback):
    """Watches task adaptation, and gives its verdict in one sentence.

    After the training `verdict` is `"failure"`, when the last epoch is below
    the threshold of the onset; `"suboptimal"`, when its clean accuracy is less
    than 90 % of the standard fine-tuning's, or the ramp cost a quarter of it;
    `"healthy"`; or `"undecided"`, where an attack was trained against, nothing
    failed, and there is no reference. `advice` says which hinge to move, or
    what else; a failure and a suboptimal transfer are warned of.

    Into the logs of each epoch goes `onset`, the first epoch, counted from 1,
    whose clean validation accuracy reaches at least 5 % and twice chance (with
    two classes 75 %), 0 until there is one; and, with a reference,
    `transfer_gap`, the clean validation accuracy that is missing to the best
    of the reference.

    Reference: arXiv 2509.23325, section 4.

    Args:
        num_classes: Int. Number of classes.
        reference: List of the clean validation accuracies of a standard
            fine-tuning of the same network, an epoch each, or `None`. Without
            one only a failure can be seen, and what the ramp costs.
        monitor: String. The clean accuracy in the logs.

    Raises:
        ValueError: If an argument is not as described; when training begins,
            if the model is not an `AdversarialTrainer`.

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
                "`num_classes` must be 2 or more. Received: "
                f"num_classes={num_classes}"
            )
        if reference is not None:
            reference = [float(each) for each in reference]
            if not reference or not all(0 <= each <= 1 for each in reference):
                raise ValueError(
                    "`reference` must be accuracies in [0, 1], an epoch each. "
                    f"Received: {reference}"
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
                f"`TransferMonitor` needs {self.monitor!r} in the logs: pass "
                '`validation_data` to `fit`, and metrics=["accuracy"] to '
                f"`compile`. Received: {sorted(logs or {})}"
            )
        self._accuracies.append(float(value))
        self._epsilons.append(self.model.epsilon)
        logs["onset"] = self.onset or 0
        if self.reference is not None:
            logs["transfer_gap"] = max(self.reference) - float(value)

    @property
    def onset(self) -> int | None:
        """First epoch, from 1, that has adapted to the task."""
        return onset(self._accuracies, self.num_classes)

    @property
    def delay(self) -> int | None:
        """Epochs by which the onset is later than the reference's."""
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
                    f"{final:.1%} once epsilon rose: {self._longer()}, or "
                    "lower the target."
                )
            return "failure", (
                "clean validation accuracy never stayed above "
                f"{threshold:.1%}: start at epsilon 0 and move `ramp_start` to "
                f"{self._adapted_share():.0%} of the training or later; if "
                "epsilon was 0 there already, the learning rate is at fault."
            )
        # Of standard fine-tuning.
        enough = _SUBOPTIMAL * max(self.reference or [0.0])
        if final < enough:
            gap = max(self.reference) - final
            if before is None:
                remedy = (
                    "start at epsilon 0 and move `ramp_start` to "
                    f"{self._adapted_share():.0%} of the training."
                )
            elif collapsed:
                remedy = f"{self._longer()}."
            elif before >= enough:
                remedy = (
                    "the task was adapted to before epsilon rose "
                    f"({before:.1%}), so {self._longer()}, or lower the "
                    "target."
                )
            else:
                remedy = (
                    "move `ramp_start` later, for the task was not adapted to "
                    f"when epsilon rose ({before:.1%})."
                )
            return "suboptimal", (
                f"clean validation accuracy ends {100 * gap:.1f} points below "
                f"standard fine-tuning: {remedy}"
            )
        if collapsed:
            return "suboptimal", (
                f"clean validation accuracy fell from {before:.1%} to "
                f"{after:.1%} in the ramp: {self._longer()}."
            )
        short = self._short_of_the_target()
        if max(self._epsilons) == 0:
            return "healthy", (
                "the task is adapted to, without any attack: the network is "
                "not robust."
            )
        if self.reference is None:
            return "undecided", (
                "the task is adapted to. Whether clean accuracy was lost only "
                "a standard fine-tuning tells: launch/compare.py makes one, "
                "and in Python its accuracies go to "
                f"`TransferMonitor(reference=...)`{short}."
            )
        return "healthy", (
            f"clean validation accuracy ends at {final:.1%}, and standard "
            f"fine-tuning reached {max(self.reference):.1%}"
            f"{short or ': the schedule may stay'}."
        )

    def _longer(self):
        """How a ramp is made longer, one that ends in the last epoch too."""
        if self._held() > 1:
            return "make the ramp longer, by a later `ramp_end`"
        return "make the ramp longer, by more epochs or an earlier `ramp_start`"

    def _held(self):
        """Epochs at the target."""
        return sum(map(self.model.reaches_target, self._epsilons))

    def _short_of_the_target(self):
        """What more to say where hardly an epoch was at the target."""
        held, epochs = self._held(), len(self._epsilons)
        if held >= 0.1 * epochs or np.any(np.diff(self._epsilons) < 0):
            return ""
        return (
            f"; only {held} of {epochs} epochs trained at the target, and more "
            "robustness takes a ramp that ends earlier (`ramp_end` of "
            "`TwoHinge`)"
        )

    def _around_the_ramp(self):
        """Clean accuracy at the end of the epochs at 0, and at the end."""
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
        """Share of the training after which the reference had adapted.

        By 90 % of its last accuracy, as in the paper; a quarter, the paper's
        default, without a reference.
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
