"""Attacks that users write: what they define, and what the base class holds.

Each planted attack returns points that it must not return. Images to train on
stay in the ball and the box, and no such point breaks an image.
"""

import keras
import numpy as np
import pytest
from keras import ops
from linear import NORMS, Linear, assert_within, numpy, run, size
from networks import conv_net, make_data, make_trainer

import keras_epsched as ke
from keras_epsched import backend
from keras_epsched.attacks import (
    FAB,
    NFGSM,
    PGD,
    Attack,
    Problem,
    SearchResult,
    Tracker,
    noise,
    norms,
)

EPSILON = {"linf": 0.03, "l2": 0.2, "l1": 0.2}
BOX = (0, 255)


def outside(problem):
    """Points outside of the ball, of the box, and of all numbers in turn."""
    inwards = ops.where(problem.images < 128, 1.0, -1.0)
    forbidden = (
        problem.images + 1.5 * problem.radius * inwards,
        ops.where(problem.images < 128, -1e-3, 255 + 1e-3),
        np.nan,
        np.inf,
    )
    first = np.zeros((1, *problem.images.shape[1:]), "bool")
    first[0, 0, 0, 0] = True
    turn = ops.arange(ops.shape(problem.labels)[0]) % 4
    moved = problem.images
    for number, pixel in enumerate(forbidden):
        here = ops.logical_and(problem.mask(turn == number), first)
        moved = ops.where(here, pixel, moved)
    return moved


class Outside(Attack):
    """Goes where it must not, and claims to have broken all images there."""

    def __init__(self, norm="linf"):
        super().__init__(1, norm)

    def get_config(self):
        return {"norm": self.norm}

    def perturb_problem(self, problem, key):
        return outside(problem)

    def search_problem(self, problem, key, variant):
        moved = self.perturb_problem(problem, key)
        all_of_them = ops.ones_like(problem.labels, "bool")
        # What is said of the distance is not believed.
        nothing = ops.zeros_like(problem.labels, "float32")
        return SearchResult(moved, all_of_them, moved, ~all_of_them, nothing)


class Partly(Outside):
    """Does so with the first half of the images."""

    def perturb_problem(self, problem, key):
        half = ops.arange(ops.shape(problem.labels)[0]) < 4
        inside = problem.random_start(key)
        return problem.select(half, outside(problem), inside)


class Free(Partly):
    """For training outside of the ball."""

    stays_in_ball = False


class Nearest(Outside):
    """Claims to be near."""

    minimises_distance = True


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (8, 4, 5, 3))
    # At the ends of the box too.
    images[:, 0, 0, 0] = [0, 0, 255, 255, 0, 255, 9, 90]
    return images.astype("float32")


def apply(attack, images, method="search", epsilon=None):
    """Runs an attack on a network that is right on everything."""

    def network(images):
        score = ops.mean(images, axis=(1, 2, 3))
        return ops.stack([0.0 * score + 1.0, 0.0 * score], -1)

    epsilon = EPSILON[attack.norm] if epsilon is None else epsilon
    return run(attack, network, images, np.zeros(8), epsilon, method=method)


@pytest.mark.parametrize("norm", NORMS)
def test_images_to_train_on_stay_in_the_ball_and_the_box(norm, images):
    moved = apply(Partly(norm), images, "perturb")
    assert_within(moved, images, EPSILON[norm], norm, BOX)
    assert (moved[4:] != images[4:]).mean() > 0.9


@pytest.mark.parametrize("norm", NORMS)
def test_no_point_outside_breaks_an_image(norm, images):
    result = apply(Partly(norm), images)
    assert result.broken.tolist() == 4 * [False] + 4 * [True]
    assert np.asarray(result.distance).item() is None
    for moved in (result.adversarial, result.best):
        assert_within(moved, images, EPSILON[norm], norm, BOX)


@pytest.mark.parametrize("norm", NORMS)
def test_training_may_leave_the_ball_but_not_the_box(norm, images):
    moved = apply(Free(norm), images, "perturb")
    assert moved.min() >= 0 and moved.max() <= 255
    assert size(moved - images, norm)[0] > 1.4 * 255 * EPSILON[norm]
    # An evaluation has no such freedom.
    result = apply(Free(norm), images)
    assert result.broken.tolist() == 4 * [False] + 4 * [True]
    # Noise and step leave the box, if nothing confines them.
    moved = apply(NFGSM(norm), images, "perturb", epsilon=1.0)
    assert moved.min() >= 0 and moved.max() <= 255


@pytest.mark.parametrize("norm", NORMS)
def test_distances_are_measured(norm, images):
    result = apply(Nearest(norm), images)
    assert not result.broken.any()
    beyond = np.arange(8) % 4 == 0
    np.testing.assert_allclose(
        result.distance[beyond], 1.5 * EPSILON[norm], rtol=1e-4
    )
    assert np.isinf(result.distance[~beyond]).all()
    moved = result.adversarial[~beyond]
    assert_within(moved, images[~beyond], EPSILON[norm], norm, BOX)
    assert_within(result.best, images, EPSILON[norm], norm, BOX)


def test_fab_stays_in_the_box_of_an_image_that_does_not():
    # As the pixels of a resized image, which rounding may have left outside.
    model = Linear((6, 9, 1), 3, n=32)
    box = (100.0, 130.0)
    images = np.clip(model.images, 100.0, 130.0002).astype("float32")
    assert images.max() > 130
    labels = model.logits64(images).argmax(-1)
    # After one step, beyond the boundary, the bisection has work to do.
    result = run(FAB(1), model, images, labels, 1.0, value_range=box)
    assert result.broken.all()
    assert result.adversarial.max() <= 130
    wrong = model.logits64(result.adversarial).argmax(-1) != labels
    assert wrong.all()


@pytest.mark.parametrize("attack", [Outside(), Nearest()])
def test_an_evaluation_counts_no_point_outside(attack):
    model = conv_net(batchnorm=False)
    images, _ = make_data(16)
    labels = model.predict(images, verbose=0).argmax(-1)
    # No radius reaches the point outside of another's ball.
    report = ke.evaluate(
        model,
        (images, labels),
        [0.01, 0.011],
        attack,
        self_check=False,
        verbose=0,
    )
    np.testing.assert_array_equal(report.accuracy, 1.0)


def test_a_trainer_gets_no_point_outside():
    images, labels = make_data(8)
    trainer = make_trainer(conv_net(batchnorm=False), attack=Outside())
    trainer.epsilon = 0.03
    moved = numpy(trainer.adversarial_view(images, labels, (0, 0)))
    assert_within(moved, images, 0.03, "linf", trainer.value_range)


# === What lies inside is kept ===


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "shape, box", [((6, 5, 2), (0.0, 255.0)), ((64, 64, 3), (-1.0, 1.0))]
)
def test_points_inside_are_kept_bit_for_bit(shape, box, norm):
    rng = np.random.default_rng(1)
    low, high = box
    x = rng.uniform(low, high, (8, *shape))
    ends = rng.choice([low, high], x.shape)
    x = np.where(rng.random(x.shape) < 0.3, ends, x).astype("float32")
    reach = {"linf": 1.0, "l2": 8.0, "l1": 60.0}[norm] * (high - low)
    radius = reach * np.asarray([0, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1.0])
    radius = radius.astype("float32").reshape(8, 1, 1, 1)
    far = x + (high - low) * rng.standard_normal(x.shape).astype("float32")
    # Half a box away from its ends.
    middle = 0.25 * (low + high) + 0.5 * x
    ball = norms.get(norm)

    def points(x, far, middle, radius):
        key = noise.make_key(np.arange(8))
        step = ball.step(noise.normal(key, shape), middle, radius, box)
        inside = [
            x,
            ball.project(far, x, radius, box),
            ball.start(x, radius, key, box),
            ball.start(x, radius, key, box, on_sphere=True),
            # The very sphere, where a projection would make room for rounding.
            ops.clip(middle + step, *box),
        ]
        arguments = (
            ops.concatenate([*inside, far]),
            ops.concatenate([*4 * [x], middle, x]),
            ops.concatenate(6 * [radius]),
            box,
        )
        return (
            ops.concatenate(inside),
            ball.confine(*arguments),
            ball.contains(*arguments),
        )

    inside, confined, contained = numpy(
        backend.compile(points, jit_compile=False)(
            *(ops.convert_to_tensor(each) for each in (x, far, middle, radius))
        )
    )
    assert contained.tolist() == 40 * [True] + 8 * [False]
    np.testing.assert_array_equal(confined[:40], inside)
    # Those outside end on the sphere, or where the box ends before it.
    moved = confined[40:]
    assert_within(moved, x, radius.ravel() / (high - low), norm, box)
    reached = np.minimum(
        radius.ravel(), size(np.clip(far, low, high) - x, norm)
    )
    assert (size(moved - x, norm)[4:] > 0.99 * reached[4:]).all()


# === What a subclass defines ===


@keras.saving.register_keras_serializable("test_own_attacks")
class RandomPoints(Attack):
    """The worst of random points, all it takes for both uses."""

    def search_problem(self, problem, key, variant):
        tracker = Tracker(problem)

        def body(index, state):
            draw = noise.make_key(key, index)
            moved = problem.random_start(draw, on_sphere=True)
            return tracker.update(state, moved, problem.judge(moved))

        state = backend.fori_loop(0, self.steps, body, tracker.begin())
        return tracker.result(state)

    def perturb_problem(self, problem, key):
        return self.search_problem(problem, key, None).best

    def headline(self):
        return f"{self.steps} random points"

    def particulars(self):
        return ["without gradient", *super().particulars()]


@pytest.mark.parametrize("norm", NORMS)
def test_an_attack_of_ones_own(norm):
    attack = RandomPoints(20, norm)
    assert attack.can_train and attack.can_evaluate
    title = "20 random points, without gradient"
    assert attack.title == (title if norm == "linf" else f"{title}, {norm}")
    model = Linear((2, 2, 1), 2, n=64)
    epsilon, ratio = model.epsilons(norm)
    arguments = model, model.images, model.labels, epsilon
    result = run(attack, *arguments)
    assert not result.broken[ratio > 1 + 1e-5].any()
    assert result.broken.any() and not result.zero_gradient.any()
    perturbed = run(attack, *arguments, method="perturb")
    np.testing.assert_array_equal(perturbed, result.best)


@pytest.mark.parametrize("of", ["perturb", "search"])
def test_half_an_attack(of):
    method = f"{of}_problem"
    half = type("Half", (Attack,), {method: getattr(RandomPoints, method)})(1)
    assert half.can_train == (of == "perturb")
    assert half.can_evaluate == (of == "search")


@pytest.mark.parametrize(
    "old, new",
    [
        ("_perturb", r"perturb_problem\(self, problem, key\)"),
        ("_search", r"search_problem\(self, problem, key, variant\)"),
        ("_headline", r"headline\(self\)"),
        ("_particulars", r"particulars\(self\)"),
    ],
)
@pytest.mark.parametrize("base", [Attack, PGD])
def test_names_that_are_no_longer_called_are_refused(base, old, new):
    with pytest.raises(ValueError, match=f"`Mine` defines `{old}`.*{new}"):
        type("Mine", (base,), {old: lambda self, *args: None})


def test_the_gradient_is_read_by_name():
    model = Linear((2, 2, 1), 2, n=8)
    problem = Problem(PGD(1), model, model.images, model.labels, 0.01, BOX)
    seen = problem.gradient(problem.images)
    assert seen._fields == ("loss", "broken", "gradient", "vanishes")
    assert problem.judge(problem.images)._fields == ("loss", "broken")
    linear = problem.linearise(problem.images, problem.loss)
    assert linear._fields == ("loss", "gradient", "logits")
    np.testing.assert_allclose(numpy(linear.logits), numpy(model(model.images)))
