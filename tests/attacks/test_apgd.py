"""When Auto-PGD halves its step, against the rule of the paper."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_epsched.attacks import APGD
from keras_epsched.attacks.problem import Problem
from keras_epsched.attacks.steppers import MomentumStepper, checkpoints


def numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def test_checkpoints_follow_the_rule():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    # Intervals 11, 10, 9, 8, 7, then 6 would end after the budget.
    assert checkpoints(50) == [11, 21, 30, 38, 45]
    # Intervals 4, 3, 2, then 1 for ever.
    assert checkpoints(20) == [4, 7, 9, *range(10, 20)]
    # Interval 2, then 1 for ever.
    assert checkpoints(10) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert checkpoints(1) == []


def paper_steps(values, points):
    """Steps of Auto-PGD for one image, in units of the first; its rule."""
    step, best, best_then = 1.0, values[0], values[0]
    halved, last, steps = True, 0, []
    for k, value in enumerate(values):
        best = max(best, value)
        if k in points:
            rises = sum(values[i + 1] > values[i] for i in range(last, k))
            few = rises <= 0.75 * (k - last)
            stuck = not halved and best == best_then
            halved = few or stuck
            if halved:
                step /= 2
            last, best_then = k, best
        steps.append(step)
    return steps


def stepper_steps(values, steps):
    """Steps that the stepper takes when it is told these losses."""
    n = values.shape[1]
    problem = Problem(
        APGD(steps),
        None,
        np.full((n, 1), 100.0, "float32"),
        np.zeros(n),
        0.25,
        (0, 255),
    )
    stepper = MomentumStepper(problem, steps)
    moved = problem.images
    state = stepper.begin(moved)
    best_loss = np.full(n, -np.inf)
    best, taken = moved, []
    for index, loss in enumerate(values):
        better = ops.convert_to_tensor(loss > best_loss)
        best_loss = np.maximum(best_loss, loss)
        best = problem.select(better, moved, best)
        gains = {"improved": better, "loss": ops.convert_to_tensor(loss)}
        before = state["length"]
        following, state = stepper.advance(
            index, moved, ops.ones_like(moved), best, gains, state
        )
        taken.append(numpy(state["length"]).ravel() / (2 * 0.25 * 255))
        # A halving returns to the best point and forgets the momentum.
        halved = numpy(state["length"] < before).ravel()
        length = numpy(state["length"])
        returned = 100 + np.minimum(numpy(best) - 100 + length, 0.25 * 255)
        returned = numpy(best) + 0.75 * (returned - numpy(best))
        np.testing.assert_allclose(
            numpy(following)[halved], returned[halved], rtol=1e-5
        )
        moved = following
    return np.stack(taken)


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_the_step_halves_as_the_paper_says(steps):
    rng = np.random.default_rng(5)
    walks = rng.standard_normal((steps, 40)) + np.linspace(-0.5, 3, 40)
    walks = walks.cumsum(0)
    # A long rise, and then a plateau or a rise below the best.
    walks[:, :10] = np.sin(np.linspace(0, 9, steps))[:, None] * np.arange(1, 11)
    walks = walks.astype("float32")
    points = checkpoints(steps)
    expected = [paper_steps(walk, points) for walk in walks.T]
    np.testing.assert_allclose(
        stepper_steps(walks, steps), np.transpose(expected), rtol=1e-6
    )


def test_step_traces_by_hand():
    up = np.arange(10.0)
    plateau = np.asarray([0, 1, 2, 3, 3, 3, 4, 5, 5, 6])
    taken = stepper_steps(np.stack([up, -up, plateau], 1).astype("f4"), 10)
    # Ten steps have a checkpoint at every step from the second on.
    np.testing.assert_allclose(taken[:, 0], np.ones(10))
    np.testing.assert_allclose(
        taken[:, 1], [1, 1, *(0.5 ** np.arange(1, 9))], rtol=1e-6
    )
    np.testing.assert_allclose(
        taken[:, 2],
        [1, 1, 1, 1, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8],
        rtol=1e-6,
    )
