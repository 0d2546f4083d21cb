"""Each self-check fires on a planted failure, and not on a healthy model."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops
from networks import CLASSES, conv_net, make_data, trained_net

import keras_epsched as ke
from keras_epsched.attacks import (
    APGD,
    FAB,
    FGSM,
    PGD,
    AttackEnsemble,
    MarginEnsemble,
    Square,
)
from keras_epsched.evaluation import check_sample, inspector
from keras_epsched.evaluation.stored_adversarials import is_within

GRID = np.linspace(0, 40 / 255, 9)
DATA = make_data(500, seed=4)
# A budget that leaves room for every check.
ATTACK = APGD(10)


@pytest.fixture(scope="module")
def trained():
    return trained_net(192, epochs=6, epsilon=8 / 255)


def evaluate(model, attack=ATTACK, data=DATA, epsilons=GRID, **kwargs):
    arguments = {"verbose": 0, "batch_size": 64, **kwargs}
    return ke.evaluate(model, data, epsilons, attack, **arguments)


def outcome(report, name):
    return {check["name"]: check for check in report.checks}[name]


def fired(model, name, attack=ATTACK, **kwargs):
    """Evaluates, expecting a check to fire, and returns the report."""
    with pytest.warns(UserWarning, match=name):
        report = evaluate(model, attack, **kwargs)
    assert outcome(report, name)["status"] == "fired"
    assert f"WARNING: self-check '{name}' failed: " in str(report)
    return report


def wrapped(model, before=None, after=None):
    """The model with something planted before or after it."""
    inputs = keras.Input(model.input_shape[1:])
    x = inputs
    if before is not None:
        x = keras.layers.Lambda(before, output_shape=x.shape[1:])(x)
    x = model(x)
    if isinstance(after, keras.layers.Layer):
        x = after(x)
    elif after is not None:
        x = keras.layers.Lambda(after, output_shape=x.shape[1:])(x)
    return keras.Model(inputs, x)


class Noise(keras.layers.Layer):
    """Adds noise, a new one at each call."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        noise = keras.random.normal(ops.shape(inputs), seed=self.seed_generator)
        return inputs + self.size * noise


NAMES = [
    "zero gradients",
    "random outputs",
    "float16 saturation",
    "unbounded attack",
    "accuracy against epsilon",
    "attack without gradients",
    "stronger attack",
    "stored adversarials",
]


@pytest.mark.parametrize(
    "attack",
    [
        MarginEnsemble(),
        pytest.param(
            AttackEnsemble([*MarginEnsemble().members, Square(20)]),
            marks=pytest.mark.ci,
        ),
    ],
    ids=["margin", "with_square"],
)
def test_a_healthy_evaluation_is_quiet(trained, attack):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = evaluate(trained, attack)
    assert [check["name"] for check in report.checks] == NAMES
    assert {check["status"] for check in report.checks} == {"passed"}
    checks = report.check_forward_passes + report.check_backward_passes
    passes = report.forward_passes + report.backward_passes
    assert 0.02 * passes < checks <= 0.1 * passes
    assert "self-checks passed: zero gradients" in str(report)


def test_checks_do_not_change_the_result(trained):
    with_checks, without = (
        evaluate(trained, self_check=flag) for flag in (True, False)
    )
    np.testing.assert_array_equal(with_checks.correct, without.correct)
    assert with_checks.backward_passes == without.backward_passes
    # Those of the gallery.
    assert without.check_forward_passes <= 64
    assert [check["name"] for check in without.checks] == NAMES[:1]


def test_checks_do_not_depend_on_batches_or_order(trained):
    def messages(report):
        return [check["message"] for check in report.checks]

    mixed = np.random.default_rng(0).permutation(500)
    shuffled = tuple(each[mixed] for each in DATA)
    first = evaluate(trained)
    other = evaluate(trained, data=shuffled, image_ids=mixed, batch_size=64)
    assert messages(first)[1:7] == messages(other)[1:7]


def test_few_passes_are_not_exceeded(trained):
    few = tuple(each[:20] for each in DATA)
    report = evaluate(trained, PGD(2), data=few, epsilons=[0.01])
    checks = report.check_forward_passes + report.check_backward_passes
    # One look at each stored image is the least.
    assert checks <= 0.1 * (
        report.forward_passes + report.backward_passes
    ) + len(few[0])
    assert outcome(report, "unbounded attack")["status"] == "not run"


def test_randomness(trained):
    noisy = wrapped(trained, after=Noise(0.5))
    fired(noisy, "random outputs")


@pytest.mark.ci
def test_averaged_randomness_is_no_failure(trained):
    noisy = wrapped(trained, after=Noise(0.05))
    report = evaluate(noisy, APGD(4, eot=4), epsilons=GRID[::4])
    assert outcome(report, "random outputs")["status"] == "passed"


def test_zero_gradients(trained):
    dead = wrapped(trained, before=lambda x: ops.stop_gradient(x) + 0.0 * x)
    report = fired(dead, "zero gradients")
    assert report.zero_gradient_images == report.correct[:, 0].sum()


@pytest.mark.parametrize(
    "attack", [ATTACK, PGD(10), FAB(2)], ids=["apgd", "pgd", "fab"]
)
def test_vanishing_gradients(trained, attack):
    vanishing = wrapped(
        trained, before=lambda x: ops.stop_gradient(x) + 1e-9 * x
    )
    report = fired(vanishing, "zero gradients", attack)
    assert report.zero_gradient_images == report.correct[:, 0].sum()


def test_small_logits_have_gradients(trained):
    small = wrapped(trained, after=lambda logits: 1e-9 * logits)
    report = evaluate(small)
    assert outcome(report, "zero gradients")["status"] == "passed"


def test_saturation(trained):
    inputs = keras.Input(trained.input_shape[1:])
    layer = keras.layers.Lambda(
        lambda x: ops.clip(1e5 * x, -65504.0, 65504.0),
        output_shape=(CLASSES,),
        dtype="float16",
    )
    fired(
        keras.Model(inputs, layer(trained(inputs))),
        "float16 saturation",
    )


def reversed_gradient(x):
    # The value of x, and the gradient of its opposite.
    return 2 * ops.stop_gradient(x) - x


def test_misleading_gradients(trained):
    model = wrapped(trained, before=reversed_gradient)
    report = fired(model, "unbounded attack")
    assert outcome(report, "attack without gradients")["status"] == "fired"
    # The ensemble finds out by itself.
    fired(
        model,
        "attack without gradients",
        AttackEnsemble([APGD(10), Square(200)]),
    )


class Fading(PGD):
    """Does nothing at a large radius."""

    def search(self, logits_fn, images, labels, epsilon, *args, **kwargs):
        epsilon = keras.ops.where(epsilon > 0.14, 0.0, epsilon)
        return super().search(
            logits_fn, images, labels, epsilon, *args, **kwargs
        )


def test_an_attack_that_makes_no_use_of_its_radius(trained):
    report = fired(trained, "accuracy against epsilon", Fading(10))
    # The nested curve does not show it.
    assert (np.diff(report.accuracy) <= 0).all()


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(FGSM(), marks=pytest.mark.ci),
        pytest.param(PGD(2), marks=pytest.mark.ci),
        pytest.param(APGD(10), marks=pytest.mark.ci),
        PGD(10, step_ratio=0.01),
    ],
    ids=["fgsm", "pgd2", "apgd10", "tiny_steps"],
)
def test_a_weak_attack(trained, attack):
    # A tenth of the cost of few steps pays for the check on many images.
    data = make_data(3000, seed=5) if attack.steps < 10 else DATA
    report = fired(trained, "stronger attack", attack, data=data)
    found = outcome(report, "stronger attack")["estimate"]
    assert found["accuracy"] == report.accuracy_at(found["epsilon"])
    assert found["low"] < found["overstated"] <= found["high"]
    # What it advises confirms it.
    epsilon = found["epsilon"]
    advised = evaluate(
        trained, MarginEnsemble(), data, [epsilon], self_check=False
    )
    assert found["accuracy"] - found["low"] > advised.accuracy_at(epsilon)


def test_a_random_network_is_not_judged_by_single_draws(trained):
    report = evaluate(wrapped(trained, after=Noise(0.5)))
    assert outcome(report, "stronger attack")["status"] == "not run"


def test_too_few_images_tell_nothing(trained, monkeypatch):
    monkeypatch.setattr(inspector, "_BUDGET", 50.0)
    few = tuple(each[:12] for each in DATA)
    report = evaluate(trained, MarginEnsemble(), data=few)
    found = outcome(report, "stronger attack")
    assert found["status"] == "not run" and found["estimate"] is None
    assert "images withstood the evaluation" in found["message"]


class Outside(PGD):
    """Adversarials that leave the ball."""

    def search(self, *args, **kwargs):
        result = super().search(*args, **kwargs)
        moved = keras.ops.clip(result.adversarial + 60.0, 0, 255)
        return result._replace(adversarial=moved)


class Mixed(PGD):
    """Adversarials of the wrong images."""

    def search(self, *args, **kwargs):
        result = super().search(*args, **kwargs)
        rolled = keras.ops.roll(result.adversarial, 1, axis=0)
        return result._replace(adversarial=rolled)


class Boasting(PGD):
    """Claims to break everything."""

    def search(self, *args, **kwargs):
        result = super().search(*args, **kwargs)
        return result._replace(broken=result.broken | True)


@pytest.mark.parametrize("attack_class", [Outside, Mixed, Boasting])
def test_stored_adversarials_that_are_none(trained, attack_class):
    fired(trained, "stored adversarials", attack_class(10))


def test_softmax_is_refused(trained):
    with pytest.raises(ValueError, match="softmax"):
        evaluate(wrapped(trained, after=ops.softmax))


def test_nothing_to_check_is_said():
    model = conv_net(batchnorm=False)
    images, _ = DATA
    wrong = (np.argmax(model.predict(images, verbose=0), -1) + 1) % CLASSES
    report = evaluate(model, data=(images, wrong))
    assert report.accuracy.max() == 0
    statuses = {check["status"] for check in report.checks}
    assert statuses == {"passed", "not run"}


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_is_within(norm):
    images = np.full((4, 2, 2, 1), 100.0, "float32")
    moved = images.copy()
    moved[:, 0, 0] += 25.5
    moved[1, 0, 0] += 0.01
    moved[2, 1, 1] -= 26.5
    inside = is_within(moved, images, np.full(4, 0.1), norm, (0, 255))
    assert inside.tolist() == [True, False, False, True]
    inside = is_within(moved, images, np.full(4, 0.1), norm, (0, 125))
    assert not inside.any()


@pytest.mark.ci
def test_a_weak_attack_of_many_steps(trained):
    attack = PGD(60, step_ratio=1e-5, random_start=False)
    fired(trained, "stronger attack", attack)


def test_single_draws_in_an_ensemble_are_reported(trained):
    noisy = wrapped(trained, after=Noise(0.5))
    attack = AttackEnsemble([APGD(3, eot=4), Square(20)])
    fired(noisy, "random outputs", attack, epsilons=GRID[::4])


def test_the_sample_holds_no_window():
    chosen = check_sample.CheckSample()
    pixels = np.zeros((500, 4, 4, 1))
    chosen.add(range(500), pixels, range(500), range(500), np.zeros((500, 2)))
    for _, (image, _, breakers) in chosen.drawn:
        assert image.base is None and breakers.base is None


def test_the_sample_keeps_the_smallest_priorities():
    rng = np.random.default_rng(0)
    priorities = rng.integers(0, 2**31, 1000)
    chosen = check_sample.CheckSample()
    for at in range(0, 1000, 90):
        part = slice(at, at + 90)
        chosen.add(
            priorities[part],
            np.arange(1000)[part, None],
            np.zeros(1000)[part],
            np.arange(1000)[part],
            np.zeros((1000, 2))[part],
        )
    pixels, _, numbers, _ = chosen.arrays()
    expected = np.argsort(priorities)[: check_sample.SAMPLE_SIZE]
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_array_equal(pixels[:, 0], expected)
