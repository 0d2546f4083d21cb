"""What the self-checks of an evaluation have: a sample, a budget, attacks."""

from dataclasses import dataclass

import numpy as np

from keras_epsched.attacks.base import Attack
from keras_epsched.evaluation.check_sample import CheckSample
from keras_epsched.evaluation.sweep import Sweep

# Share of the passes of the evaluation that the checks may cost.
_BUDGET = 0.1
FEWEST_IMAGES = 8
# What each check may take of it. What is left is for the stronger attack, which
# is the last and matters most: about half.
_SHARES = {
    "random outputs": 0.05,
    "float16 saturation": 0.05,
    "unbounded attack": 0.1,
    "accuracy against epsilon": 0.15,
    "attack without gradients": 0.16,
}


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: String.
        status: String. `"passed"`, `"fired"` or `"not run"`.
        message: String. What was found, and what to do about it.
        estimate: Dict of numbers, of a check that estimates something, see
            `SecondLook.estimate`; or `None`.
    """

    name: str
    status: str
    message: str
    estimate: dict | None = None


class Inspector:
    """Attacks the sample within the budget of the self-checks.

    Args:
        sweep: The `Sweep` that has run.
        attack: The `Attack` or `AttackEnsemble` of the evaluation.
        accuracy: Array. Accuracy of the evaluation at each epsilon.
        sample: `CheckSample`.
        passes: Int. Forward and backward passes of the evaluation.
        spent: Int. Those that checks have cost already.

    Attributes:
        forward: Int. Forward passes that were made.
        backward: Int. Backward passes that were made.
        random: Boolean. Whether the outputs were found to be random.
    """

    def __init__(
        self,
        sweep: Sweep,
        attack,
        accuracy: np.ndarray,
        sample: CheckSample,
        passes: int,
        spent: int,
    ):
        self.sweep = sweep
        self.attack = attack
        self.norm = attack.norm
        self.accuracy = accuracy
        self.forward = self.backward = 0
        self.budget = max(_BUDGET * passes - spent, 0.0)
        self.random = False
        self.size = len(sample)
        if self.size:
            arrays = sample.arrays()
            self.pixels, self.labels, self.numbers, self.broken_by = arrays
        else:
            self.broken_by = np.empty((0, len(sweep.epsilons)), "int8")

    def share(self, name: str) -> float:
        """Passes that a check may take."""
        return _SHARES[name] * self.budget

    def left(self) -> float:
        """Passes that are left for the last check."""
        return self.budget - self.forward - self.backward

    def afford(self, name: str, cost: float) -> int:
        """Number of images of the sample for a check, at a cost each."""
        return min(self.size, int(self.share(name) / cost))

    def cost(self, attack: Attack) -> int:
        """Passes of an attack on one image."""
        return sum(attack.passes(self.sweep.num_classes))

    def too_few(
        self, name: str, count: int, available: int | None = None
    ) -> Check | None:
        """The outcome where a check has too few images to tell anything.

        Args:
            name: String. Name of the check.
            count: Int. Images within the budget.
            available: Int. Images there are, by default the sample.
        """
        available = self.size if available is None else available
        if not available:
            return Check(name, "not run", "no image is left standing")
        if count >= min(FEWEST_IMAGES, available):
            return None
        return Check(
            name,
            "not run",
            f"only {count} images are within a tenth of the cost of the "
            "evaluation",
        )

    def predict(self, count: int) -> np.ndarray:
        """Logits of the first images of the sample."""
        self.forward += count * self.sweep.eot
        return self.sweep.predict(self.pixels[:count])

    def broken(
        self, attack: Attack, chosen, epsilon: float, draw: int, variant=0
    ) -> np.ndarray:
        """Attacks images of the sample afresh, apart from the sweep.

        Args:
            attack: `Attack`.
            chosen: Slice or indices of images of the sample.
            epsilon: Float, on the [0, 1] scale.
            draw: Int. Number of the random numbers.
            variant: Int. Which run of the attack.

        Returns:
            Booleans: which images it breaks.
        """
        count = len(self.labels[chosen])
        ahead, back = attack.passes(self.sweep.num_classes)
        self.forward += count * ahead
        self.backward += count * back
        return self.sweep.runner.find_broken(
            attack,
            self.pixels[chosen],
            self.labels[chosen],
            np.full(count, epsilon),
            (self.sweep.seed, self.numbers[chosen], draw, -1),
            variant,
        )

    def middle(self) -> int:
        """The place where half of the sample withstands the evaluation.

        The largest of several: what stands there is most likely not to.
        """
        standing = (self.broken_by[:, 1:] < 0).sum(axis=0)
        distance = np.abs(standing - 0.5 * self.size)
        return len(distance) - int(np.argmin(distance[::-1]))
