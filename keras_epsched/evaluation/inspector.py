"""The sample, the budget and the attacks of the self-checks."""

from dataclasses import dataclass

import numpy as np

from keras_epsched.attacks.base import Attack
from keras_epsched.evaluation.check_sample import CheckSample
from keras_epsched.evaluation.sweep import Sweep

# The self-checks may make this share of the passes of the evaluation.
_BUDGET = 0.1
FEWEST_IMAGES = 8
# The share of the budget that each check may use. About half of the budget is
# left for the last check, "stronger attack", which matters most.
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
        name: String. Name of the check.
        status: String. `"passed"`, `"fired"` (the check failed) or
            `"not run"`.
        message: String. What was found, and what to do about it.
        estimate: Dict of numbers, see `SecondLook.estimate`. `None` for a
            check that estimates nothing.
    """

    name: str
    status: str
    message: str
    estimate: dict | None = None


class Inspector:
    """Runs attacks on the sample, within the budget of the self-checks.

    Args:
        sweep: The `Sweep` of the evaluation, after it has run.
        attack: The `Attack` or `AttackEnsemble` of the evaluation.
        accuracy: Array. Accuracy of the evaluation at each epsilon.
        sample: `CheckSample`.
        passes: Int. Forward and backward passes of the evaluation.
        spent: Int. Passes that self-checks have made already.

    Attributes:
        forward: Int. Forward passes that the self-checks made.
        backward: Int. Backward passes that the self-checks made.
        random: Boolean. Whether the outputs of the network are random.
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
        """Passes that a check may make."""
        return _SHARES[name] * self.budget

    def left(self) -> float:
        """Passes that are left for the last check."""
        return self.budget - self.forward - self.backward

    def afford(self, name: str, cost: float) -> int:
        """Number of sample images that a check can afford at this cost each."""
        return min(self.size, int(self.share(name) / cost))

    def cost(self, attack: Attack) -> int:
        """Passes of an attack on one image."""
        return sum(attack.passes(self.sweep.num_classes))

    def too_few(
        self, name: str, count: int, available: int | None = None
    ) -> Check | None:
        """Returns the outcome "not run" if a check has too few images.

        Args:
            name: String. Name of the check.
            count: Int. Number of images within the budget.
            available: Int. Number of images that could be used. Defaults to
                the size of the sample.
        """
        available = self.size if available is None else available
        if not available:
            return Check(name, "not run", "no image withstood the evaluation")
        if count >= min(FEWEST_IMAGES, available):
            return None
        return Check(
            name,
            "not run",
            f"a tenth of the cost of the evaluation allows only {count} "
            "images. Evaluate more images",
        )

    def predict(self, count: int) -> np.ndarray:
        """Logits of the first images of the sample."""
        self.forward += count * self.sweep.eot
        return self.sweep.predict(self.pixels[:count])

    def broken(
        self, attack: Attack, chosen, epsilon: float, draw: int, variant=0
    ) -> np.ndarray:
        """Attacks images of the sample from scratch.

        Args:
            attack: `Attack`.
            chosen: Slice or indices of images of the sample.
            epsilon: Float, on the [0, 1] scale.
            draw: Int. Different numbers give different random numbers.
            variant: Int. Number of the attack's variant.

        Returns:
            A boolean array, true for the images that the attack breaks.
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
        """The index of the epsilon that about half of the sample withstands.

        If several epsilons are equally close to half, it is the largest. A
        stronger attack is most likely to break images there.
        """
        standing = (self.broken_by[:, 1:] < 0).sum(axis=0)
        distance = np.abs(standing - 0.5 * self.size)
        return len(distance) - int(np.argmin(distance[::-1]))
