"""Fast Adaptive Boundary: the nearest misclassified point."""

import math

from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import losses
from keras_epsched.attacks.base import Attack, check_count, counted
from keras_epsched.attacks.tracker import SearchResult
from keras_epsched.configurable import register

_MOST_BIAS = 0.1
_OVERSHOOT = 1.05
_PULL_BACK = 0.9
_REFINEMENTS = 6


@register
class FAB(Attack):
    """Fast Adaptive Boundary (FAB): looks for the nearest misclassified point.

    Use it in an ensemble for evaluation. It steps towards linearised decision
    boundaries and returns the nearest misclassified point of all steps. One
    run therefore holds for every epsilon (`SearchResult.distance`). FAB does
    not depend on the size of the gradient, so it breaks some models that hide
    their gradients from other attacks.

    With `targets`, each run aims at one wrong class, beginning with the class
    of the highest logit on the clean image. An image is broken if it is
    misclassified as any class. Without `targets`, each step aims at the
    nearest of all decision boundaries, which takes one backward pass per
    wrong class.

    The first run starts at the image. Restarts start at a random point of a
    ball of half the radius. Each run ends with steps of bisection towards the
    image, as in the paper.

    Reference: Croce & Hein, "Minimally distorted Adversarial Examples with a
    Fast Adaptive Boundary Attack", ICML 2020 (arXiv 1907.02044).

    Args:
        steps: Int. Number of steps of each run. Defaults to `100`.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.
        targets: Int or `None`. Number of target classes, each with a run of
            its own. `None` is the untargeted attack.
        restarts: Int. Number of runs from different starts. Defaults to `1`.

    Example:
    ```python
    attack = keras_epsched.attacks.FAB(steps=100, targets=9)
    ```
    """

    minimises_distance = True

    def __init__(self, steps=100, norm="linf", targets=None, restarts=1):
        super().__init__(steps, norm, "margin")
        if targets is not None:
            check_count(targets, "targets")
        self.targets = targets
        self.restarts = check_count(restarts, "restarts")

    def get_config(self):
        config = super().get_config()
        del config["loss"]
        return {**config, "targets": self.targets, "restarts": self.restarts}

    def headline(self):
        if self.targets is None:
            return f"FAB-{self.steps}"
        return f"FAB-T-{self.steps}, {counted(self.targets, 'target')}"

    def particulars(self):
        own = []
        if self.restarts > 1:
            own.append(counted(self.restarts, "restart"))
        return [*own, *super().particulars()]

    def num_variants(self, num_classes):
        return self.restarts * self._num_targets(num_classes)

    def _num_targets(self, num_classes):
        return min(self.targets or 1, num_classes - 1)

    def passes(self, num_classes):
        boundaries = num_classes - 1 if self.targets is None else 1
        looks = boundaries + 1  # one more for the next point
        forward = looks * self.steps + _REFINEMENTS
        forward += 0 if self.targets is None else 1
        return forward, boundaries * self.steps

    def search_problem(self, problem, key, variant):
        count = self._num_targets(problem.num_classes())
        rivals = self._rivals(problem, variant % count)
        first = problem.images
        if self.restarts > 1:
            elsewhere = problem.widened(0.5).random_start(key)
            first = problem.select(variant < count, first, elsewhere)
        begin = {
            "moved": first,
            "best": problem.images,
            "distance": ops.full_like(problem.labels, math.inf, "float32"),
            "no_gradient": ops.zeros_like(problem.labels, "bool"),
        }

        def body(index, state):
            moved = state["moved"]
            value, gradient = _nearest_boundary(problem, moved, rivals)
            following = _follow(problem, moved, value, gradient)
            broken = problem.judge(following).broken
            distance = problem.norm.size(following - problem.images)
            better = broken & (distance < state["distance"])
            # Back towards the image, to cross the boundary closer to it.
            back = problem.images + _PULL_BACK * (following - problem.images)
            vanishes = problem.is_vanishing(gradient, ops.abs(value))
            zero = ops.where(index == 0, vanishes, state["no_gradient"])
            return {
                "moved": problem.select(broken, back, following),
                "best": problem.select(better, following, state["best"]),
                "distance": ops.where(better, distance, state["distance"]),
                "no_gradient": zero,
            }

        state = backend.fori_loop(0, self.steps, body, begin)
        return _finish(problem, state)

    def _rivals(self, problem, target):
        """The number of decision boundaries, and the class beyond each."""
        if self.targets is not None:
            clean = problem.logits(problem.images)
            targets = problem.targets(clean, target)
            return 1, lambda _: targets
        count = problem.num_classes()
        return count - 1, lambda step: (problem.labels + step + 1) % count


def _nearest_boundary(problem, moved, rivals):
    """Returns value and gradient of the nearest linearised boundary.

    The value is the logit of a wrong class minus the logit of the true class.
    It is negative if the network is right.
    """
    count, rival_of = rivals

    def look(step, nearest):
        rival = rival_of(step)
        seen = problem.linearise(
            moved,
            lambda labels, logits: losses.targeted_margin(
                labels, rival, logits
            ),
        )
        slope = problem.norm.dual_size(seen.gradient)
        away = ops.abs(seen.loss) / (slope + 1e-12)
        closer = away < nearest[0]
        return (
            ops.where(closer, away, nearest[0]),
            ops.where(closer, seen.loss, nearest[1]),
            problem.select(closer, seen.gradient, nearest[2]),
        )

    none = ops.full_like(problem.labels, math.inf, "float32")
    nearest = none, ops.zeros_like(none), ops.zeros_like(moved)
    # A compiled loop, so that the graph does not grow with the classes.
    return backend.fori_loop(0, count, look, nearest)[1:]


def _follow(problem, moved, value, gradient):
    """Returns the next point: beyond the boundary, biased towards the image."""
    images, norm, box = problem.images, problem.norm, problem.box
    value = problem.mask(value)
    axes = tuple(range(1, len(images.shape)))
    slope = ops.sum(gradient * (images - moved), axis=axes, keepdims=True)
    ahead = norm.to_hyperplane(moved, gradient, value, box)
    from_image = norm.to_hyperplane(images, gradient, value + slope, box)
    far, near = norm.size(ahead), norm.size(from_image)
    bias = ops.minimum(far / (far + near + 1e-12), _MOST_BIAS)
    bias = problem.mask(bias)
    following = (1.0 - bias) * (moved + _OVERSHOOT * ahead) + bias * (
        images + _OVERSHOOT * from_image
    )
    return ops.clip(following, *box)


def _finish(problem, state):
    """Returns the result after bisection between image and best point."""
    images, best = problem.images, state["best"]
    found = ops.isfinite(state["distance"])
    low = ops.zeros_like(state["distance"])

    def refine(_, carry):
        middle = 0.5 * (carry["low"] + carry["high"])
        point = images + problem.mask(middle) * (best - images)
        # A resized image may lie slightly outside of the box.
        point = ops.clip(point, *problem.box)
        broken = problem.judge(point).broken
        return {
            "low": ops.where(broken, carry["low"], middle),
            "high": ops.where(broken, middle, carry["high"]),
            "point": problem.select(broken & found, point, carry["point"]),
        }

    begin = {"low": low, "high": low + 1.0, "point": best}
    point = backend.fori_loop(0, _REFINEMENTS, refine, begin)["point"]
    return SearchResult(
        adversarial=point,
        broken=found,
        best=problem.project(point),
        zero_gradient=state["no_gradient"],
    )
