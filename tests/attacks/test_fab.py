"""FAB's distances, against the exact ones of linear models."""

import itertools

import numpy as np
import pytest
from keras import ops
from linear import NORMS, Linear, run, size

from keras_epsched.attacks import FAB, norms


def distances(attack, model, epsilon=0.01, **kwargs):
    """The smallest distance over all runs, after a look at each result."""
    count, num_classes = len(model.images), model.weights.shape[1]
    nearest = np.full(count, np.inf)
    for variant in range(attack.num_variants(num_classes)):
        result = run(
            attack,
            model,
            model.images,
            model.labels,
            epsilon,
            variant=np.full(count, variant),
            **kwargs,
        )
        found = np.isfinite(result.distance)
        assert not result.zero_gradient.any()
        # What is returned lies at the distance, in the box, and is broken.
        moved = result.adversarial[found]
        away = size(moved - model.images[found], attack.norm) / 255
        np.testing.assert_allclose(away, result.distance[found], rtol=1e-4)
        assert moved.min() >= 0 and moved.max() <= 255
        wrong = model.logits64(moved).argmax(-1) != model.labels[found]
        assert wrong.all()
        np.testing.assert_array_equal(result.broken, result.distance <= epsilon)
        nearest = np.minimum(nearest, result.distance)
    return nearest


def linear_cases():
    """One goal or all targets, two models, each norm."""
    models = [((8, 8, 3), 2), ((6, 9, 1), 5)]
    for targets, norm in itertools.product([None, 9], NORMS):
        for number, (shape, num_classes) in enumerate(models):
            yield pytest.param(
                targets,
                shape,
                num_classes,
                norm,
                id=f"{targets}-shape{number}-{num_classes}-{norm}",
                marks=pytest.mark.ci if targets and norm != "linf" else (),
            )


@pytest.mark.parametrize("targets, shape, num_classes, norm", linear_cases())
def test_distances_on_linear_models(targets, shape, num_classes, norm):
    model = Linear(shape, num_classes, n=64)
    exact = model.radii(norm)
    found = distances(FAB(20, norm, targets), model, np.median(exact))
    assert (found >= exact * (1 - 1e-5)).all()
    assert (found <= exact * 1.02).all()


@pytest.mark.parametrize(
    "norm",
    [
        "linf",
        pytest.param("l2", marks=pytest.mark.ci),
        pytest.param("l1", marks=pytest.mark.ci),
    ],
)
def test_restarts_begin_elsewhere_and_end_there(norm):
    model = Linear((6, 6, 1), 3, n=32)
    exact = model.radii(norm)
    # The bias towards the image forgets a tenth of the start at each step.
    attack = FAB(50, norm, restarts=2)
    assert attack.num_variants(3) == 2
    assert FAB(20, norm, targets=9, restarts=2).num_variants(3) == 4
    first, second = (
        run(
            attack,
            model,
            model.images,
            model.labels,
            exact,
            variant=np.full(32, variant),
        )
        for variant in (0, 1)
    )
    assert (second.distance <= exact * 1.1).all()
    assert (first.adversarial != second.adversarial).any()


def box_projection(x, gradient, value, norm):
    """Smallest step to the hyperplane within [0, 1], by a linear program."""
    from scipy import optimize

    count = len(x)
    low, high = -x, 1 - x
    if norm == "l2":
        solved = optimize.minimize(
            lambda step: step @ step,
            np.clip(-value * gradient / (gradient @ gradient), low, high),
            jac=lambda step: 2 * step,
            bounds=list(zip(low, high, strict=True)),
            constraints={
                "type": "eq",
                "fun": lambda step: gradient @ step + value,
                "jac": lambda step: gradient,
            },
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.sqrt(solved.fun)
    # Step and its bound: one number for linf, one for each pixel for l1.
    bounds = 1 if norm == "linf" else count
    above = np.ones((count, 1)) if norm == "linf" else np.eye(count)
    solved = optimize.linprog(
        np.concatenate([np.zeros(count), np.ones(bounds)]),
        A_ub=np.block([[np.eye(count), -above], [-np.eye(count), -above]]),
        b_ub=np.zeros(2 * count),
        A_eq=np.concatenate([gradient, np.zeros(bounds)])[None],
        b_eq=[-value],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * bounds],
    )
    return solved.fun


@pytest.mark.parametrize("norm", NORMS)
def test_steps_to_a_hyperplane_are_the_shortest_in_the_box(norm):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (12, 4, 3)).astype("float32")
    x = np.where(rng.random(x.shape) < 0.4, rng.integers(0, 2, x.shape), x)
    gradient = rng.standard_normal(x.shape) * rng.choice([0, 1, 10], x.shape)
    # Values that some step within the box can bring to 0.
    other = rng.uniform(0, 1, x.shape)
    value = -(gradient * (other - x)).sum((1, 2)) * rng.uniform(0.1, 0.9, 12)
    step = norms.get(norm).to_hyperplane(
        ops.convert_to_tensor(x, "float32"),
        ops.convert_to_tensor(gradient, "float32"),
        ops.convert_to_tensor(value.reshape(12, 1, 1), "float32"),
        (0.0, 1.0),
    )
    step = ops.convert_to_numpy(step)
    moved = x + step
    assert moved.min() >= -1e-6 and moved.max() <= 1 + 1e-6
    reached = value + (gradient * step).sum((1, 2))
    np.testing.assert_allclose(reached, 0.0, atol=2e-4 * np.abs(value).max())
    best = [
        box_projection(*(each.ravel() for each in row[:2]), row[2], norm)
        for row in zip(x.astype("float64"), gradient, value, strict=True)
    ]
    np.testing.assert_allclose(size(step, norm), best, rtol=2e-3, atol=1e-6)


def test_an_image_that_cannot_be_broken_has_no_distance():
    def sure(moved):
        score = ops.mean(moved, axis=(1, 2, 3)) / 255
        return ops.stack([5.0 + score, score], -1)

    images = np.full((3, 4, 4, 1), 100.0, "float32")
    for norm in NORMS:
        result = run(FAB(5, norm), sure, images, [0, 0, 0], 0.1)
        assert not result.broken.any()
        assert np.isinf(result.distance).all()
        np.testing.assert_array_equal(result.best, result.best.clip(0, 255))


def test_wrong_arguments():
    for arguments, message in (
        ({"steps": 0}, "steps"),
        ({"targets": 0}, "targets"),
        ({"restarts": 1.5}, "restarts"),
    ):
        with pytest.raises(ValueError, match=message):
            FAB(**arguments)
