"""Attacks on linear models, whose answer is known, and on a small network."""

import keras
import numpy as np
import pytest
from keras import ops
from linear import NORMS, Linear, assert_within, numpy, run, size
from networks import not_on

from keras_epsched import backend
from keras_epsched.attacks import (
    APGD,
    FAB,
    FGSM,
    NFGSM,
    PGD,
    Square,
    TargetedAPGD,
    losses,
    noise,
)
from keras_epsched.attacks.problem import Problem

RANGES = [(0, 255), (0, 1), (-1, 1)]

# Enough steps to forget the random start. Euclidean steps of a fixed length
# turn towards the gradient at a rate of `steps * step_ratio`, so PGD needs
# more than its default of 2.5 to be tight.
LINEAR_ATTACKS = {
    "fgsm": {norm: FGSM(norm) for norm in NORMS},
    "pgd": {
        "linf": PGD(20, "linf"),
        "l2": PGD(20, "l2", step_ratio=0.4),
        "l1": PGD(20, "l1"),
    },
    "apgd": {
        "linf": APGD(20, "linf"),
        "l2": APGD(20, "l2"),
        "l1": APGD(50, "l1"),
    },
    "targeted_apgd": {
        "linf": TargetedAPGD(20, "linf"),
        "l2": TargetedAPGD(20, "l2"),
        "l1": TargetedAPGD(50, "l1"),
    },
    "probability_margin": {
        "linf": APGD(20, "linf", "probability_margin"),
        "l2": APGD(20, "l2", "probability_margin"),
        "l1": APGD(50, "l1", "probability_margin"),
    },
    "targeted_probability_margin": {
        "linf": TargetedAPGD(20, "linf", loss="probability_margin"),
        "l2": TargetedAPGD(20, "l2", loss="probability_margin"),
        "l1": TargetedAPGD(50, "l1", loss="probability_margin"),
    },
}


def linear_cases():
    """Each attack in each norm, and one norm on another shape."""
    cases = [*((norm, (8, 8, 3)) for norm in NORMS), ("l2", (5, 7, 1))]
    for name in LINEAR_ATTACKS:
        for number, (norm, shape) in enumerate(cases):
            slow = norm == "l1" and name not in ("fgsm", "pgd")
            yield pytest.param(
                name,
                norm,
                shape,
                id=f"{name}-{norm}-shape{number}",
                marks=pytest.mark.ci if slow or shape == (5, 7, 1) else (),
            )


@pytest.mark.parametrize("name, norm, shape", linear_cases())
def test_binary_linear_model_is_broken_where_it_can_be(name, norm, shape):
    model = Linear(shape, num_classes=2)
    epsilon, ratio = model.epsilons(norm)
    attack = LINEAR_ATTACKS[name][norm]
    result = run(attack, model, model.images, model.labels, epsilon)
    assert_within(result.adversarial, model.images, epsilon, norm, (0, 255))
    assert not result.broken[ratio > 1 + 1e-5].any()
    tolerance = 0.05 if norm == "l1" and name != "fgsm" else 0.02
    assert result.broken[ratio < 1 - tolerance].all()
    assert not result.zero_gradient.any()
    # What is said to be broken is.
    wrong = model.logits64(result.adversarial).argmax(-1) != model.labels
    np.testing.assert_array_equal(wrong, result.broken)


# The l1 ball takes a sort in each step, which takes long to compile.
SLOW_IN_L1 = [
    pytest.param(norm, marks=pytest.mark.ci if norm == "l1" else ())
    for norm in NORMS
]


@pytest.mark.parametrize(
    "num_classes", [pytest.param(3, marks=pytest.mark.ci), 5]
)
@pytest.mark.parametrize("norm", SLOW_IN_L1)
@pytest.mark.parametrize("loss", ["dlr", "margin", "probability_margin"])
def test_all_targets_together_break_what_can_be_broken(loss, norm, num_classes):
    model = Linear((6, 9, 1), num_classes, n=96)
    epsilon, ratio = model.epsilons(norm)
    attack = TargetedAPGD(50, norm, targets=9, loss=loss)
    targets = attack.num_variants(num_classes)
    assert targets == num_classes - 1
    # Each image once for each target.
    images = np.repeat(model.images, targets, 0)
    result = run(
        attack,
        model,
        images,
        np.repeat(model.labels, targets),
        np.repeat(epsilon, targets),
        variant=np.tile(np.arange(targets), 96),
    )
    by_target = result.broken.reshape(96, targets)
    broken = by_target.any(1)
    assert not broken[ratio > 1 + 1e-5].any()
    # The probability margin follows the other classes too, far from its own.
    least = 0.95 if loss == "probability_margin" else 1.0
    assert broken[ratio < 0.98].mean() >= least
    # Later targets break what earlier ones do not.
    if num_classes > 3:
        assert by_target[~by_target[:, 0]].any()
    assert_within(
        result.adversarial,
        images,
        np.repeat(epsilon, targets),
        norm,
        (0, 255),
    )


@pytest.mark.parametrize("norm", SLOW_IN_L1)
@pytest.mark.parametrize(
    "loss, num_classes, least",
    [("ce", 10, 0.7), ("dlr", 3, 0.4), ("probability_margin", 10, 0.5)],
)
def test_no_attack_breaks_a_certified_image(loss, norm, num_classes, least):
    model = Linear((5, 6, 2), num_classes, n=128)
    epsilon, ratio = model.epsilons(norm)
    for attack in (PGD(10, norm, loss), APGD(10, norm, loss)):
        result = run(attack, model, model.images, model.labels, epsilon)
        assert not result.broken[ratio > 1 + 1e-5].any()
        # The nearest class is not always the one that is followed.
        assert result.broken[ratio < 0.9].mean() > least


def spiky_images(value_range, shape=(6, 8, 8, 3)):
    rng = np.random.default_rng(3)
    low, high = value_range
    images = rng.uniform(low, high, shape)
    ends = rng.choice([low, high], shape)
    return np.where(rng.random(shape) < 0.4, ends, images).astype("float32")


def convnet(num_classes=3, shape=(8, 8, 3), value_range=(0, 255), gain=1.0):
    low, high = value_range
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(
                1 / (high - low), -low / (high - low), dtype="float32"
            ),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(num_classes),
            keras.layers.Rescaling(gain, dtype="float32"),
        ]
    )


@pytest.mark.parametrize(
    "norm, value_range",
    [
        *(("linf", value_range) for value_range in RANGES),
        ("l2", (0, 255)),
        pytest.param("l2", (-1, 1), marks=pytest.mark.ci),
        pytest.param("l1", (0, 255), marks=pytest.mark.ci),
    ],
)
@pytest.mark.parametrize("attack_class", [PGD, APGD])
def test_adversarials_stay_in_the_ball_and_the_box(
    attack_class, norm, value_range
):
    network = convnet(value_range=value_range)
    images = spiky_images(value_range)
    labels = np.arange(6) % 3
    scale = {"linf": 1, "l2": 8, "l1": 60}[norm]
    epsilon = np.asarray([0, 1 / 255, 8 / 255, 0.2, 1e-6, 0.0]) * scale
    attack = attack_class(4, norm)
    result = run(attack, network, images, labels, epsilon, value_range)
    perturbed = run(
        attack, network, images, labels, epsilon, value_range, "perturb"
    )
    for moved in (result.adversarial, result.best, perturbed):
        assert_within(moved, images, epsilon, norm, value_range)
        zero = epsilon == 0
        np.testing.assert_array_equal(moved[zero], images[zero])
    # The radii are used: the perturbation of training reaches the sphere.
    reached = size(perturbed - images, norm)[1:4]
    width = value_range[1] - value_range[0]
    assert (reached > 0.4 * width * epsilon[1:4]).all()


@pytest.mark.parametrize(
    "norm", ["l2", pytest.param("l1", marks=pytest.mark.ci)]
)
@pytest.mark.parametrize("attack", [PGD(3), APGD(3)])
def test_large_images_stay_in_the_ball(attack, norm):
    attack = type(attack)(3, norm)
    network = convnet(shape=(64, 64, 3))
    images = spiky_images((0, 255), (4, 64, 64, 3))
    epsilon = np.asarray([0.001, 0.1, 2.0, 50.0])
    result = run(attack, network, images, np.zeros(4), epsilon)
    for moved in (result.adversarial, result.best):
        assert_within(moved, images, epsilon, norm, (0, 255))


def test_a_scalar_epsilon_and_a_given_start():
    # Brighter is worse: were it not projected, the start would be the best.
    def network(moved):
        score = 0.01 * ops.mean(moved, axis=(1, 2, 3))
        return ops.stack([0.0 * score, score], -1)

    images = spiky_images((0, 255))
    labels = np.zeros(6)
    far = np.clip(images + 50, 0, 255)
    use_start = np.arange(6) < 3
    for attack in (PGD(1, step_ratio=1e-9), APGD(1)):
        plain = run(attack, network, images, labels, 8 / 255)
        result = run(
            attack,
            network,
            images,
            labels,
            8 / 255,
            start=far,
            use_start=use_start,
        )
        assert_within(result.best, images, 8 / 255, "linf", (0, 255))
        np.testing.assert_array_equal(result.best[3:], plain.best[3:])
    # The step is next to nothing, so the start is what is left.
    result = run(
        PGD(1, step_ratio=1e-9),
        network,
        images,
        labels,
        8 / 255,
        start=far,
        use_start=use_start,
    )
    expected = np.clip(far, images - 8, np.clip(images + 8, 0, 255))
    np.testing.assert_allclose(result.best[:3], expected[:3], atol=1e-3)


@pytest.fixture(scope="module")
def trained():
    """A small network that tells three kinds of noisy stripes apart."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 3, 384)
    wave = np.cos(np.arange(8)[:, None] * np.asarray([0.8, 1.6, 3.1]))
    images = 128 + 40 * wave.T[labels][:, :, None, None]
    images = images + 25 * rng.standard_normal((384, 8, 8, 3))
    images = np.clip(images, 0, 255).astype("float32")
    network = convnet()
    network.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    network.fit(images, labels, batch_size=32, epochs=12, verbose=0)
    accuracy = network.evaluate(images, labels, verbose=0)[1]
    assert accuracy > 0.9
    return network, images[:96], labels[:96]


def cross_entropies(network, images, labels):
    values = keras.losses.sparse_categorical_crossentropy(
        labels, network(images), from_logits=True
    )
    return ops.convert_to_numpy(values)


@pytest.mark.parametrize("norm", SLOW_IN_L1)
@pytest.mark.parametrize("attack_class", [PGD, APGD])
def test_bookkeeping(attack_class, norm, trained):
    network, images, labels = trained
    epsilon = {"linf": 0.06, "l2": 0.6, "l1": 4.0}[norm]
    result = run(attack_class(8, norm), network, images, labels, epsilon)
    logits = ops.convert_to_numpy(network(result.adversarial))
    np.testing.assert_array_equal(logits.argmax(-1) != labels, result.broken)
    assert 0 < result.broken.mean() < 1
    whole = ~result.broken
    np.testing.assert_array_equal(result.adversarial[whole], result.best[whole])
    found = cross_entropies(network, result.best, labels)
    clean = cross_entropies(network, images, labels)
    assert (found >= clean - 1e-5).all()
    assert found.mean() > clean.mean() + 0.1


def test_once_broken_stays_broken():
    # The network errs at one of its calls only.
    def record(index):
        calls = keras.Variable(0, dtype="int32", trainable=False)

        def logits_fn(images):
            now = calls.value + 0
            calls.assign(now + 1)
            score = ops.mean(images, axis=(1, 2, 3))
            wrong = ops.cast(ops.equal(now, index), "float32")
            return ops.stack([0 * score, 1e-3 * score + 2 * wrong - 1], -1)

        return logits_fn, calls

    def broken(attack, index):
        logits_fn, calls = record(index)
        images = np.full((2, 4, 4, 1), 100.0, "float32")
        return run(
            attack, logits_fn, images, [0, 0], 0.01, variables=[calls]
        ).broken

    for attack in (PGD(2), APGD(2)):
        for call in range(3):
            assert broken(attack, call).all()
        assert not broken(attack, 3).any()


@pytest.mark.parametrize("attack_class", [PGD, APGD])
def test_what_broke_an_image_is_kept_when_the_best_point_does_not(
    attack_class,
):
    # The loss leads back from the errors that the random start finds.
    def retreat(labels, logits):
        return -losses.margin(labels, logits)

    model = Linear((2, 2, 1), 2, n=64)
    epsilon = model.radii("linf") * 3
    result = run(
        attack_class(5, loss=retreat),
        model,
        model.images,
        model.labels,
        epsilon,
    )
    assert 0 < result.broken.sum() < 64
    wrong = model.logits64(result.adversarial).argmax(-1) != model.labels
    np.testing.assert_array_equal(wrong, result.broken)
    best = model.logits64(result.best).argmax(-1)
    np.testing.assert_array_equal(best, model.labels)


def test_the_best_point_of_apgd_is_no_worse_than_its_start(trained):
    network, images, labels = trained
    results = [
        run(APGD(steps), network, images, labels, 0.05).best
        for steps in (1, 2, 12)
    ]
    one, two, twelve = (cross_entropies(network, r, labels) for r in results)
    # Both follow the same path for the first step.
    assert (two >= one - 1e-5).all()
    assert (twelve >= one - 1e-3).mean() > 0.97


def test_more_steps_raise_the_loss_more(trained):
    network, images, labels = trained

    def mean_loss(attack):
        moved = run(
            attack, network, images, labels, 0.06, method="perturb", seed=1
        )
        return cross_entropies(network, moved, labels).mean()

    clean = cross_entropies(network, images, labels).mean()
    fgsm, pgd = mean_loss(FGSM()), mean_loss(PGD(20))
    apgd = mean_loss(APGD(20))
    assert fgsm > clean + 0.1
    assert pgd > fgsm
    assert apgd > pgd - 0.01


@pytest.mark.parametrize(
    "attack", [PGD(3, random_start=False), APGD(3, random_start=False)]
)
def test_a_gradient_that_ends_later_is_no_zero_gradient(attack):
    def saturates(images):
        score = ops.minimum(ops.mean(images, axis=(1, 2, 3)) - 100.0, 0.5)
        return ops.stack([0.0 * score, score - 1.0], -1)

    images = np.full((2, 4, 4, 1), 100.0, "float32")
    images[1] = 101.0
    result = run(attack, saturates, images, np.zeros(2, "int32"), 0.02)
    np.testing.assert_array_equal(result.zero_gradient, [False, True])


def test_zero_gradient_is_reported():
    network = convnet()
    images = spiky_images((0, 255))

    def half_dead(moved):
        alive = ops.reshape(ops.cast(np.arange(6) < 3, "float32"), (6, 1))
        return network(moved) * alive

    for attack in (PGD(3), APGD(3), APGD(3, "l1")):
        result = run(attack, half_dead, images, np.zeros(6), 0.02)
        np.testing.assert_array_equal(result.zero_gradient, np.arange(6) >= 3)


def test_logits_that_are_not_finite_count_as_broken():
    def logits_fn(moved):
        score = ops.mean(moved, axis=(1, 2, 3))
        nan = ops.where(score > 128.0, np.nan, 1.0)
        return ops.stack([score * nan, 0 * score], -1)

    images = np.stack([np.full((4, 4, 1), v, "float32") for v in (90, 200)])
    for attack in (PGD(3), APGD(3)):
        result = run(attack, logits_fn, images, [0, 0], 0.01)
        assert result.broken.tolist() == [False, True]
        assert np.isfinite(result.adversarial).all()


def test_a_gradient_that_overflows_breaks_no_image():
    # The gain lies behind the logits of float16, so only gradients overflow.
    def logits_fn(moved):
        score = ops.mean(ops.cast(moved, "float16"), axis=(1, 2, 3))
        score = 1e6 * ops.cast(score, "float32")
        return ops.stack([score, 0 * score], -1)

    images = np.full((2, 4, 4, 1), 100.0, "float32")
    for attack in (PGD(2), APGD(2), APGD(2, "l1")):
        result = run(attack, logits_fn, images, [0, 0], 0.01)
        assert not result.broken.any()
        assert result.zero_gradient.all()
        assert np.isfinite(result.best).all()


def pixel_gradient(network, images, labels, scale=1.0):
    """Gradient that an attack follows, in a compiled function."""

    def gradient(images):
        def logits_fn(moved):
            return scale * ops.cast(network(moved), "float32")

        problem = Problem(PGD(1), logits_fn, images, labels, 0.01, (0, 255))
        return problem.gradient(problem.images).gradient

    images = ops.convert_to_tensor(images)
    return numpy(backend.compile(gradient, jit_compile=False)(images))


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-3])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_confidence_and_float16_do_not_zero_the_gradient(
    policy, scale, trained
):
    network, images, labels = trained
    expected = pixel_gradient(network, images, labels, scale)
    keras.config.set_dtype_policy(policy)
    same = convnet()
    same.set_weights(network.get_weights())
    found = pixel_gradient(same, images, labels, scale)
    assert np.isfinite(found).all()
    unscaled = pixel_gradient(network, images, labels)
    assert (found == 0).mean() <= (unscaled == 0).mean() + 0.01
    agree = np.sign(found) == np.sign(expected)
    assert agree.mean() > 0.97


def noisy_network(images, labels):
    """A network whose every answer is a coin, but for the last image.

    Also returns the variables that it changes.
    """
    draws = keras.random.SeedGenerator(0)

    def logits_fn(moved):
        noise = keras.random.normal((len(labels),), seed=draws)
        sure = np.zeros(len(labels), "float32")
        sure[-1] = 100.0
        sway = 1e-3 * ops.mean(moved, axis=(1, 2, 3))
        return ops.stack([noise + sure + 0.0 * sway, sway], -1)

    return logits_fn, [draws.state]


def test_no_single_draw_of_a_random_network_decides():
    images = np.full((200, 4, 4, 1), 100.0, "float32")
    labels = np.zeros(200)
    network, variables = noisy_network(images, labels)

    def broken_by(attack):
        arguments = network, images, labels, 0.01
        return run(attack, *arguments, variables=variables).broken

    # One of ten looks at a coin comes up tails.
    assert broken_by(APGD(10))[:-1].mean() > 0.99
    broken = broken_by(APGD(10, eot=8))
    assert 0.2 < broken[:-1].mean() < 0.9 and not broken[-1]


def test_more_steps_on_a_random_network_are_not_weaker():
    # Noise on the logits of a linear model, and the radii without it.
    model = Linear((5, 6, 1), 3, n=96)
    draws = keras.random.SeedGenerator(0)
    width = 0.3 * np.std(model.logits64(model.images))

    def noisy(moved):
        noise = width * keras.random.normal((96, 3), seed=draws)
        return model(moved) + noise

    epsilon = 1.5 * model.radii("linf").astype("float32")
    few, many = (
        run(
            APGD(steps, loss="margin", eot=8),
            noisy,
            model.images,
            model.labels,
            epsilon,
            variables=[draws.state],
        ).broken.mean()
        for steps in (5, 40)
    )
    assert many >= few - 0.05 and many > 0.8


def test_gradients_of_a_random_network_are_averaged():
    # Half of the draws have no gradient, half have it five times.
    calls = keras.Variable(0, dtype="int32", trainable=False)

    def logits_fn(moved):
        now = calls.value + 0
        calls.assign(now + 1)
        score = ops.mean(moved, axis=(1, 2, 3)) - 100.0
        seen = ops.cast(now % 2, "float32")
        return ops.stack([0.5 - 10.0 * seen * score, 0.0 * score], -1)

    images = np.full((1, 4, 4, 1), 100.0, "float32")

    def gradient(images):
        problem = Problem(
            APGD(1, eot=2, loss="margin"),
            logits_fn,
            images,
            [0],
            0.01,
            (0, 255),
        )
        return problem.gradient(problem.images)

    loss, _, slope, vanishes = numpy(
        backend.compile(gradient, jit_compile=False)(
            ops.convert_to_tensor(images)
        )
    )
    np.testing.assert_allclose(slope, np.full_like(images, 5.0 / 16))
    np.testing.assert_allclose(loss, [-0.5])
    np.testing.assert_array_equal(vanishes, [False])


@not_on("torch", "torch.compile takes minutes")
@pytest.mark.parametrize(
    "attack",
    [
        PGD(3, "l2"),
        APGD(3),
        pytest.param(TargetedAPGD(3, "l1"), marks=pytest.mark.ci),
        pytest.param(FAB(2), marks=pytest.mark.ci),
        Square(9),
    ],
)
def test_xla_changes_nothing(attack):
    model = Linear((3, 3, 1), 2, n=16)
    epsilon, ratio = model.epsilons(attack.norm)
    plain, xla = (
        run(attack, model, model.images, model.labels, epsilon, jit_compile=jit)
        for jit in (False, True)
    )
    np.testing.assert_array_equal(plain.broken, xla.broken)
    np.testing.assert_allclose(plain.adversarial, xla.adversarial, atol=1e-3)
    broken = xla.broken
    assert_within(
        xla.adversarial[broken],
        model.images[broken],
        epsilon[broken],
        attack.norm,
        (0, 255),
    )
    assert not broken[ratio > 1 + 1e-5].any()
    assert broken.any()


def test_results_do_not_depend_on_the_batch(trained):
    network, images, labels = trained
    keys = noise.make_key(3, np.arange(8))
    for attack in (PGD(3), APGD(3)):
        together = attack.perturb(network, images[:8], labels[:8], 0.03, keys)
        alone = attack.perturb(
            network, images[5:6], labels[5:6], 0.03, keys[5:6]
        )
        np.testing.assert_allclose(together[5:6], alone, atol=1e-3)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: PGD(norm="l3"), "l3"),
        (lambda: APGD(norm="inf"), "inf"),
        (lambda: PGD(loss="hinge"), "hinge"),
        (lambda: PGD(steps=0), "steps"),
        (lambda: APGD(steps=-1), "steps"),
        (lambda: APGD(steps=2.5), "steps"),
        (lambda: PGD(step_ratio=0), "step_ratio"),
        (lambda: FGSM(step_ratio=-1.0), "step_ratio"),
    ],
)
def test_wrong_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("attack", [FGSM(), PGD(2), APGD(2)])
def test_a_model_without_gradient_is_refused(attack):
    def rounds(images):
        levels = ops.cast(ops.cast(images, "int32"), "float32")
        score = ops.mean(levels, axis=(1, 2, 3))
        return ops.stack([score, 100 - score], -1)

    with pytest.raises(ValueError, match="differentiable"):
        run(attack, rounds, spiky_images((0, 255)), np.zeros(6), 0.01)


@keras.saving.register_keras_serializable(package="test_attacks")
def first_logit(labels, logits):
    return logits[:, 0]


@pytest.mark.parametrize(
    "attack",
    [
        FGSM("l2", step_ratio=1.25, random_start=True),
        PGD(3, "l1", "margin", step_ratio=0.5, random_start=False),
        PGD(4, loss=first_logit),
        APGD(5, "l2", "dlr", random_start=False),
        NFGSM("l2", noise_ratio=1.5),
    ],
)
def test_serialisation(attack):
    config = keras.saving.serialize_keras_object(attack)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy == attack and type(copy) is type(attack)
    assert hash(copy) == hash(attack)
    assert repr(copy) == repr(attack)
    assert copy != type(attack)()


# === N-FGSM ===


@pytest.mark.parametrize("norm", NORMS)
def test_nfgsm_is_a_step_from_noise_beyond_the_ball(norm):
    model = Linear((8, 8, 3), num_classes=2)
    epsilon = 4 / 255
    arguments = (model, model.images, model.labels, epsilon)
    noisy = run(NFGSM(norm, step_ratio=1e-9), *arguments, method="perturb")
    moved = run(NFGSM(norm), *arguments, method="perturb")
    # The step against a linear model is known, whatever the noise.
    direction = model.weights[:, 1] - model.weights[:, 0]
    direction = direction.reshape(8, 8, 3).astype("float64")
    direction = (
        np.where(model.labels == 0, 1, -1)[:, None, None, None]
        * (direction[None])
    )
    if norm == "linf":
        step = 4 * np.sign(direction)
        np.testing.assert_allclose(moved - noisy, step, atol=1e-4)
    gain = ((moved - noisy) * direction).sum((1, 2, 3))
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    np.testing.assert_allclose(gain, 4 * size(direction, dual), rtol=1e-3)
    reach = size(noisy - model.images, norm)
    assert 4 < reach.max() <= 8 + 1e-3
    assert size(moved - model.images, norm).max() > 4.5


def test_nfgsm_is_for_training_only():
    import keras_epsched as ke

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert NFGSM().can_train and not NFGSM().can_evaluate
    with pytest.raises(ValueError, match="for training only"):
        ke.AdversarialTrainer(model, validation_attack=NFGSM())
    data = np.full((4, 4), 9.0, "float32"), np.zeros(4, "int64")
    with pytest.raises(ValueError, match="for training only"):
        ke.evaluate(model, data, [0.1], NFGSM(), verbose=0)
    for name in ("noise_ratio", "step_ratio"):
        with pytest.raises(ValueError, match=name):
            NFGSM(**{name: 0.0})
