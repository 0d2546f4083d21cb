"""The step rules of Auto-PGD."""

import numpy as np
from keras import ops

_MOMENTUM = 0.75
_MIN_PROGRESS = 0.75  # rho of the paper


def checkpoints(steps: int) -> list[int]:
    """Returns the steps at which Auto-PGD may halve its step size.

    The first interval is 22 % of all steps. Each later interval is shorter
    than the one before by 3 % of all steps, but never shorter than 6 %.

    Args:
        steps: Int. Number of steps of the attack.

    Example:
    ```python
    checkpoints(100)  # [22, 41, 57, 70, 80, 87, 93, 99]
    ```
    """
    interval = max(int(0.22 * steps), 1)
    shortest = max(int(0.06 * steps), 1)
    shrink = max(int(0.03 * steps), 1)
    points, at = [], interval
    while at < steps:
        points.append(at)
        interval = max(interval - shrink, shortest)
        at += interval
    return points


class MomentumStepper:
    """The step rule of Auto-PGD for l-infinity and l2."""

    def __init__(self, problem, steps):
        self.problem = problem
        interval = np.zeros(steps, "float32")
        at = checkpoints(steps)
        interval[at] = np.diff([0, *at])
        # Length of the interval that ends at a step, or 0 if none ends there.
        self.interval = interval

    def begin(self, moved):
        """Returns the state before the first step."""
        zeros = ops.zeros_like(self.problem.labels, dtype="float32")
        return {
            "length": 2.0 * self.problem.radius,
            "previous": moved,
            "previous_loss": zeros,
            "best_gradient": ops.zeros_like(moved),
            "rises": zeros,
            "improved": ops.zeros_like(self.problem.labels, dtype="bool"),
            # True switches the second condition off at the first checkpoint,
            # as in the paper.
            "halved": ops.ones_like(self.problem.labels, dtype="bool"),
        }

    def advance(self, index, moved, gradient, best, gains, state):
        """Returns the next point and state."""
        problem, loss, better = self.problem, gains["loss"], gains["improved"]
        best_gradient = problem.select(better, gradient, state["best_gradient"])
        rose = (loss > state["previous_loss"]) & (index > 0)
        rises = state["rises"] + ops.cast(rose, "float32")
        improved = state["improved"] | (better & (index > 0))

        interval = ops.take(ops.convert_to_tensor(self.interval), index)
        check = interval > 0
        stuck = ~state["halved"] & ~improved
        halve = check & ((rises <= _MIN_PROGRESS * interval) | stuck)
        length = ops.where(
            problem.mask(halve), state["length"] / 2.0, state["length"]
        )
        gradient = problem.select(halve, best_gradient, gradient)
        current = problem.select(halve, best, moved)
        previous = problem.select(halve, best, state["previous"])

        step = problem.norm.step(gradient, current, length, problem.box)
        target = problem.project(current + step)
        momentum = ops.where(index == 0, 1.0, _MOMENTUM)
        following = problem.project(
            current
            + momentum * (target - current)
            + (1.0 - momentum) * (current - previous)
        )
        return following, {
            "length": length,
            "previous": current,
            "previous_loss": loss,
            "best_gradient": best_gradient,
            "rises": ops.where(check, 0.0, rises),
            "improved": improved & ~check,
            "halved": ops.where(check, halve, state["halved"]),
        }


class SparseStepper:
    """The step rule of Auto-PGD for l1."""

    def __init__(self, problem, steps):
        self.problem = problem
        self.period = max(int(0.04 * steps), 1)

    def _share(self, moved):
        """Share of the pixels that `moved` changes, for each image."""
        changed = ops.cast(moved != self.problem.images, "float32")
        axes = tuple(range(1, len(moved.shape)))
        return ops.mean(changed, axis=axes, keepdims=True)

    def begin(self, moved):
        """Returns the state before the first step."""
        ones = ops.ones_like(self.problem.radius)
        return {
            "length": self.problem.radius,
            "share": 0.2 * ones,
            "best_share": ones,
            "best_gradient": ops.zeros_like(moved),
        }

    def advance(self, index, moved, gradient, best, gains, state):
        """Returns the next point and state."""
        problem, radius = self.problem, self.problem.radius
        best_gradient = problem.select(
            gains["improved"], gradient, state["best_gradient"]
        )
        check = (index > 0) & (index % self.period == 0)
        best_share = self._share(best)
        # If the best point is much sparser than before, the search restarts
        # from it with long steps.
        restart = check & (best_share < 0.95 * state["best_share"])
        shorter = ops.maximum(state["length"] / 1.5, radius / 10.0)
        length = ops.where(check, shorter, state["length"])
        length = ops.where(restart, radius, length)
        share = ops.where(check, best_share / 1.5, state["share"])
        moved = ops.where(restart, best, moved)
        gradient = ops.where(restart, best_gradient, gradient)
        step = problem.norm.sparse_step(
            gradient, moved, length, problem.box, share
        )
        return problem.project(moved + step), {
            "length": length,
            "share": share,
            "best_share": ops.where(check, best_share, state["best_share"]),
            "best_gradient": best_gradient,
        }
