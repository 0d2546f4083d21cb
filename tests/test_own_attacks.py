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


def beyond_the_ball(problem):
    inwards = ops.where(problem.images < 128, 1.0, -1.0)
    return one_pixel(problem, problem.images + 1.5 * problem.radius * inwards)


def beyond_the_box(problem):
    return one_pixel(
        problem, ops.where(problem.images < 128, -1e-3, 255 + 1e-3)
    )


def not_a_number(problem):
    return one_pixel(problem, np.nan)


def infinite(problem):
    return one_pixel(problem, np.inf)


def one_pixel(problem, value):
    """The images, with another value for their first pixel."""
    first = np.zeros((1, *problem.images.shape[1:]), "bool")
    first[0, 0, 0, 0] = True
    return ops.where(first, value, problem.images)


PLANTED = [beyond_the_ball, beyond_the_box, not_a_number, infinite]


class Planted(Attack):
    """Goes where it must not, with every other image, and claims them all."""

    def __init__(self, where, norm="linf"):
        super().__init__(1, norm)
        self.where = where

    def get_config(self):
        return {"where": self.where.__name__, "norm": self.norm}

    def perturb_problem(self, problem, key):
        odd = ops.arange(ops.shape(problem.labels)[0]) % 2 == 1
        inside = problem.random_start(key)
        return problem.select(odd, self.where(problem), inside)

    def search_problem(self, problem, key, variant):
        moved = self.perturb_problem(problem, key)
        all_of_them = ops.ones_like(problem.labels, "bool")
        # What is said of the distance is not believed.
        nothing = ops.zeros_like(problem.labels, "float32")
        return SearchResult(moved, all_of_them, moved, ~all_of_them, nothing)


class Everywhere(Planted):
    """Goes there with every image."""

    def perturb_problem(self, problem, key):
        return self.where(problem)


class Free(Planted):
    """For training outside of the ball."""

    stays_in_ball = False


class Nearest(Everywhere):
    """Claims to be near."""

    minimises_distance = True


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (6, 4, 5, 3))
    # At the ends of the box too.
    images[:, 0, 0, 0] = [0, 0, 255, 255, 0, 255]
    return images.astype("float32")


def constant(images):
    """A network that is right on everything."""
    score = ops.mean(images, axis=(1, 2, 3))
    return ops.stack([0.0 * score + 1.0, 0.0 * score], -1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("where", PLANTED)
def test_images_to_train_on_stay_in_the_ball_and_the_box(where, norm, images):
    moved = run(
        Planted(where, norm),
        constant,
        images,
        np.zeros(6),
        EPSILON[norm],
        method="perturb",
    )
    assert_within(moved, images, EPSILON[norm], norm, BOX)
    assert (moved[::2] != images[::2]).mean() > 0.9


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("where", PLANTED)
def test_no_point_outside_breaks_an_image(where, norm, images):
    result = run(
        Planted(where, norm), constant, images, np.zeros(6), EPSILON[norm]
    )
    assert result.broken.tolist() == [True, False] * 3
    assert np.asarray(result.distance).item() is None
    for moved in (result.adversarial, result.best):
        assert_within(moved, images, EPSILON[norm], norm, BOX)


@pytest.mark.parametrize("norm", NORMS)
def test_training_may_leave_the_ball_but_not_the_box(norm, images):
    for where in PLANTED:
        moved = run(
            Free(where, norm),
            constant,
            images,
            np.zeros(6),
            EPSILON[norm],
            method="perturb",
        )
        assert moved.min() >= 0 and moved.max() <= 255
        if where is beyond_the_ball:
            away = size(moved - images, norm)
            assert (away[1::2] > 1.2 * 255 * EPSILON[norm]).all()
        # An evaluation has no such freedom.
        result = run(
            Free(where, norm), constant, images, np.zeros(6), EPSILON[norm]
        )
        assert result.broken.tolist() == [True, False] * 3
    # Noise and step leave the box, if nothing holds them.
    moved = run(
        NFGSM(norm), constant, images, np.zeros(6), 1.0, method="perturb"
    )
    assert moved.min() >= 0 and moved.max() <= 255


@pytest.mark.parametrize("norm", NORMS)
def test_distances_are_measured(norm, images):
    arguments = constant, images, np.zeros(6), EPSILON[norm]
    result = run(Nearest(beyond_the_ball, norm), *arguments)
    away = size(result.adversarial - images, norm) / 255
    np.testing.assert_allclose(result.distance, away, rtol=1e-5)
    assert (away > EPSILON[norm]).all() and not result.broken.any()
    assert_within(result.best, images, EPSILON[norm], norm, BOX)
    for where in PLANTED[1:]:
        result = run(Nearest(where, norm), *arguments)
        assert np.isinf(result.distance).all() and not result.broken.any()
        assert_within(result.adversarial, images, EPSILON[norm], norm, BOX)


def test_fab_stays_in_the_box_of_an_image_that_does_not():
    # As the pixels of a resized image, which rounding may have left outside.
    model = Linear((6, 9, 1), 3, n=32)
    box = (100.0, 130.0)
    images = np.clip(model.images, 100.0, 130.0002).astype("float32")
    assert images.max() > 130
    labels = model.logits64(images).argmax(-1)
    result = run(FAB(10), model, images, labels, 1.0, value_range=box)
    assert result.broken.all()
    assert result.adversarial.max() <= 130
    wrong = model.logits64(result.adversarial).argmax(-1) != labels
    assert wrong.all()


@pytest.mark.parametrize("attack", [Everywhere, Nearest])
@pytest.mark.parametrize("where", PLANTED)
def test_an_evaluation_counts_no_point_outside(where, attack):
    model = conv_net(batchnorm=False)
    images, _ = make_data(16)
    labels = model.predict(images, verbose=0).argmax(-1)
    # Radii of which one and a half is not the next.
    grid = [0.01, 0.011] if attack is Nearest else [0.01, 0.1]
    report = ke.evaluate(
        model,
        (images, labels),
        grid,
        attack(where),
        self_check=False,
        verbose=0,
    )
    np.testing.assert_array_equal(report.accuracy, 1.0)


@pytest.mark.parametrize("where", PLANTED)
def test_a_trainer_gets_no_point_outside(where):
    images, labels = make_data(8)
    trainer = make_trainer(conv_net(batchnorm=False), attack=Planted(where))
    trainer.epsilon = 0.03
    moved = numpy(trainer.attacked(images, labels, (0, 0)))
    assert_within(moved, images, 0.03, "linf", trainer.value_range)


# === What lies inside is kept ===


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(6, 5, 2), (64, 64, 3)])
@pytest.mark.parametrize("box", [(0.0, 255.0), (-1.0, 1.0)])
def test_points_inside_are_kept_bit_for_bit(box, shape, norm):
    rng = np.random.default_rng(1)
    low, high = box
    x = rng.uniform(low, high, (8, *shape))
    ends = rng.choice([low, high], x.shape)
    x = np.where(rng.random(x.shape) < 0.3, ends, x).astype("float32")
    reach = {"linf": 1.0, "l2": 8.0, "l1": 60.0}[norm] * (high - low)
    radius = reach * np.asarray([0, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1.0])
    radius = radius.astype("float32").reshape(8, 1, 1, 1)
    far = x + (high - low) * rng.standard_normal(x.shape).astype("float32")
    ball = norms.get(norm)

    def points(x, far, radius):
        key = noise.make_key(np.arange(8))
        inside = (
            x,
            ball.project(far, x, radius, box),
            ball.start(x, radius, key, box),
            ball.start(x, radius, key, box, on_sphere=True),
        )
        kept = [ball.confine(each, x, radius, box) for each in inside]
        seen = [ball.contains(each, x, radius, box) for each in inside]
        return inside, kept, seen, ball.confine(far, x, radius, box)

    inside, kept, seen, confined = numpy(
        backend.compile(points, jit_compile=False)(
            *(ops.convert_to_tensor(each) for each in (x, far, radius))
        )
    )
    for before, after, contained in zip(inside, kept, seen, strict=True):
        np.testing.assert_array_equal(before, after)
        assert contained.all()
    # And those outside are the nearest points, beside one that is inside.
    np.testing.assert_array_equal(confined, inside[1])


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
