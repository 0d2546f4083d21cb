"""What a search finds: kept step by step, and confined at the end."""

import math
from typing import NamedTuple

from keras import ops

from keras_epsched.attacks.problem import Gradient, Judgement, Problem


class SearchResult(NamedTuple):
    """What `Attack.search` found for each image of a batch.

    Attributes:
        adversarial: Float32 images: the one that broke it, else the best.
            Of attacks that minimise the distance the nearest one that breaks
            it, which may lie outside the ball.
        broken: Boolean of shape `(batch,)`: it is misclassified.
        best: Float32 images of highest loss, to start from at a larger
            radius.
        zero_gradient: Boolean of shape `(batch,)`: the first gradient was
            zero or vanishingly small, so the attack could not work.
        distance: Float32 of shape `(batch,)`, or `None`: the smallest epsilon
            at which the attack breaks the image, infinity if it found none.
            Given by attacks that minimise it, whatever the radius.
    """

    adversarial: object
    broken: object
    best: object
    zero_gradient: object
    distance: object = None


class Tracker:
    """Keeps, image by image, the best point and the one that broke it.

    Its state is a `dict` of tensors, so that a compiled loop can carry it.

    `Attack` has an example.

    Args:
        problem: `Problem`.
    """

    def __init__(self, problem):
        self.problem = problem

    def begin(self) -> dict:
        """Returns the state before anything was evaluated."""
        images = self.problem.images
        never = ops.zeros_like(self.problem.labels, dtype="bool")
        return {
            "adversarial": images,
            "best": images,
            "best_loss": ops.full_like(
                self.problem.labels, -math.inf, dtype="float32"
            ),
            "broken": never,
        }

    def update(self, state: dict, moved, seen: Judgement | Gradient) -> dict:
        """Returns the state after points were evaluated.

        Args:
            state: `dict`, the state before.
            moved: Tensor like the images.
            seen: What `Problem.judge` or `Problem.gradient` says of them.
        """
        select = self.problem.select
        better = seen.loss > state["best_loss"]
        return {
            # The first point that breaks an image is kept.
            "adversarial": select(
                seen.broken & ~state["broken"], moved, state["adversarial"]
            ),
            "best": select(better, moved, state["best"]),
            "best_loss": ops.where(better, seen.loss, state["best_loss"]),
            "broken": state["broken"] | seen.broken,
        }

    def result(self, state: dict, zero_gradient=None) -> SearchResult:
        """Returns the result of a finished search.

        Args:
            state: `dict`, the last state.
            zero_gradient: Boolean tensor of shape `(batch,)`: where the first
                gradient vanished. `None` for an attack that follows none.
        """
        adversarial = self.problem.select(
            state["broken"], state["adversarial"], state["best"]
        )
        if zero_gradient is None:
            zero_gradient = ops.zeros_like(state["broken"])
        return SearchResult(
            adversarial, state["broken"], state["best"], zero_gradient
        )


def confine_result(
    problem: Problem, found: SearchResult, minimises_distance: bool
) -> SearchResult:
    """Returns a result in which no point outside breaks an image.

    Args:
        problem: `Problem`.
        found: `SearchResult` as an attack returned it.
        minimises_distance: Boolean. Whether `found.broken` tells of points at
            any distance, which is then measured. The box holds for them too.

    Returns:
        A `SearchResult`. Where the adversarial point is outside, it is
        replaced by the best one, moved inside.
    """
    best = ops.stop_gradient(problem.confine(found.best))
    adversarial = ops.stop_gradient(found.adversarial)
    if minimises_distance:
        inside = problem.in_box(adversarial)
        size = problem.norm.size(adversarial - problem.images)
        size = ops.where(found.broken & inside, size, math.inf)
        broken = size <= ops.reshape(problem.radius, (-1,))
        low, high = problem.box
        distance = size / (high - low)
    else:
        inside = problem.contains(adversarial)
        broken, distance = found.broken & inside, None
    adversarial = problem.select(inside, adversarial, best)
    return SearchResult(
        adversarial, broken, best, found.zero_gradient, distance
    )
