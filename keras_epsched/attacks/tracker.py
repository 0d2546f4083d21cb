"""The result of a search, and how it is tracked step by step."""

import math
from typing import NamedTuple

from keras import ops

from keras_epsched.attacks.problem import Gradient, Judgement, Problem


class SearchResult(NamedTuple):
    """The result of `Attack.search` for each image of a batch.

    Attributes:
        adversarial: Float32 tensor of the shape of the images: the first
            point that broke the image, or the point of highest loss if none
            did. For attacks that minimise the distance it is the nearest point
            that breaks the image, which may lie outside of the ball.
        broken: Boolean tensor of shape `(batch,)`: true if the adversarial
            point is misclassified.
        best: Float32 tensor of the shape of the images: the point of highest
            loss. A search at a larger epsilon can start there.
        zero_gradient: Boolean tensor of shape `(batch,)`: true if the first
            gradient was zero or too small to follow, so that the attack could
            not work.
        distance: Float32 tensor of shape `(batch,)`: the smallest epsilon at
            which the attack breaks the image, infinity if there is none. It
            is `None` for attacks that do not minimise the distance.
    """

    adversarial: object
    broken: object
    best: object
    zero_gradient: object
    distance: object = None


class Tracker:
    """Tracks the point of highest loss and the first point that broke an image.

    Use it in `Attack.search_problem`. Its state is a `dict` of tensors, so
    that a compiled loop can carry it. `Attack` has an example.

    Args:
        problem: `Problem`.
    """

    def __init__(self, problem):
        self.problem = problem

    def begin(self) -> dict:
        """Returns the state before the first point."""
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
        """Returns the state after new points.

        Args:
            state: `dict`, the state before.
            moved: Tensor of the shape of the images, the new points.
            seen: Result of `Problem.judge` or `Problem.gradient` for these
                points.
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
            zero_gradient: Boolean tensor of shape `(batch,)`: true where the
                first gradient vanished. `None` for an attack without
                gradients.
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
    """Returns a result in which only points inside break an image.

    Args:
        problem: `Problem`.
        found: `SearchResult` of `Attack.search_problem`.
        minimises_distance: Boolean. Whether the points may lie outside of the
            ball. Their distance is then measured. They must lie in the box.

    Returns:
        A `SearchResult`. An adversarial point outside is replaced by the best
        point, moved inside.
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
