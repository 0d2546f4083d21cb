"""Objectives: the loss, its gradient and what the attack maximises."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from linear import run
from networks import (
    conv_net,
    linear_net,
    linear_weights,
    logits_of,
    make_data,
    make_trainer,
    weights_of,
)

import keras_epsched as ke
from keras_epsched.training import objectives

EPSILON = 8 / 255


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def kl_divergence(logits, others):
    logs, other_logs = log_softmax(logits), log_softmax(others)
    return (np.exp(logs) * (logs - other_logs)).sum(-1)


def views_of(trainer, images, labels):
    """What the next step trains on."""
    state = np.asarray(trainer.seed_generator.state)
    views = trainer.perturb((images, labels))[0]
    trainer.seed_generator.state.assign(state)
    return views


def trades_gradient(weights, clean, adversarial, labels, shares, beta):
    """Gradient of the loss of TRADES for a linear model, in float64."""
    one_hot = np.eye(weights.shape[1])[labels]
    logs, other_logs = (
        log_softmax(flat @ weights) for flat in (clean, adversarial)
    )
    p, q = np.exp(logs), np.exp(other_logs)
    ratio = logs - other_logs
    # Of sum p (log p - log q): by the first logits, and by the second.
    by_clean = p * (ratio - (p * ratio).sum(-1, keepdims=True))
    shares = shares[:, None] / len(labels)
    return clean.T @ (shares * (p - one_hot + beta * by_clean)) + (
        adversarial.T @ (shares * beta * (q - p))
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_of_trades_in_closed_form(weighted):
    images, labels = make_data()
    weights = linear_weights()
    trainer = make_trainer(
        linear_net(weights),
        objective=ke.training.TRADES(beta=6.0),
        epsilon=EPSILON,
        compile_with={"optimizer": keras.optimizers.SGD(1e-6)},
    )
    shares = np.linspace(0.2, 2.0, len(labels)) if weighted else None
    views = views_of(trainer, images, labels)
    trainer.train_on_batch(images, labels, sample_weight=shares)

    clean, adversarial = (
        np.asarray(views[name], "float64").reshape(len(images), -1)
        for name in ("clean", "adversarial")
    )
    assert np.abs(clean - adversarial).max() == pytest.approx(8, abs=1e-3)
    gradient = trades_gradient(
        weights,
        clean,
        adversarial,
        labels,
        np.ones(len(labels)) if shares is None else shares,
        beta=6.0,
    )
    (result,) = weights_of(trainer.model)
    change = np.abs(1e-6 * gradient).max()
    assert change > 1e-5
    np.testing.assert_allclose(
        result, weights - 1e-6 * gradient, atol=1e-3 * change
    )


def cross_entropy(logits, labels):
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def mixed_loss(clean, moved, labels):
    return 0.7 * cross_entropy(clean, labels) + 0.3 * cross_entropy(
        moved, labels
    )


def alp_loss(clean, moved, labels):
    half = 0.5 * (cross_entropy(clean, labels) + cross_entropy(moved, labels))
    return half + 2.0 * ((clean - moved) ** 2).mean(-1)


def mart_loss(clean, moved, labels):
    p, q = np.exp(log_softmax(clean)), np.exp(log_softmax(moved))
    rows = np.arange(len(labels))
    wrong = q.copy()
    wrong[rows, labels] = 0.0
    boosted = cross_entropy(moved, labels) - np.log(
        1.0001 - wrong.max(-1) + 1e-12
    )
    share = 1.0000001 - p[rows, labels]
    return boosted + 5.0 * share * kl_divergence(clean, moved)


@pytest.mark.parametrize(
    "weighted", [pytest.param(False, marks=pytest.mark.ci), True]
)
@pytest.mark.parametrize(
    "objective, loss",
    [
        (ke.training.MixedObjective(0.3), mixed_loss),
        (ke.training.ALP(beta=2.0), alp_loss),
        (ke.training.MART(beta=5.0), mart_loss),
    ],
)
def test_a_step_follows_the_gradient_of_the_paper(objective, loss, weighted):
    images, labels = make_data()
    weights = linear_weights()
    trainer = make_trainer(
        linear_net(weights),
        objective=objective,
        epsilon=EPSILON,
        compile_with={"optimizer": keras.optimizers.SGD(1e-6)},
    )
    shares = np.linspace(0.2, 2.0, len(labels)) if weighted else None
    views = views_of(trainer, images, labels)
    logs = trainer.train_on_batch(
        images, labels, sample_weight=shares, return_dict=True
    )
    clean, moved = (
        np.asarray(views[name], "float64").reshape(len(images), -1)
        for name in ("clean", "adversarial")
    )
    shares = np.ones(len(labels)) if shares is None else shares

    def total(weights):
        return (shares * loss(clean @ weights, moved @ weights, labels)).mean()

    assert logs["loss"] == pytest.approx(total(weights), rel=1e-5)
    # By central differences, in float64.
    exact = weights.astype("float64")
    gradient = np.empty_like(exact)
    for place in np.ndindex(exact.shape):
        step = np.zeros_like(exact)
        step[place] = 1e-7
        gradient[place] = (total(exact + step) - total(exact - step)) / 2e-7
    (result,) = weights_of(trainer.model)
    change = np.abs(1e-6 * gradient).max()
    assert change > 1e-6
    np.testing.assert_allclose(
        result, weights - 1e-6 * gradient, atol=2e-3 * change
    )


def test_half_and_half_at_epsilon_zero_is_plain_training():
    data = make_data()
    trainers = [
        make_trainer(conv_net(dropout=0, batchnorm=False), objective=each)
        for each in ("mixed", "alp", "adversarial")
    ]
    for trainer in trainers:
        trainer.train_on_batch(*data)
    *others, plain = [weights_of(trainer.model) for trainer in trainers]
    for other in others:
        for one, its in zip(plain, other, strict=True):
            np.testing.assert_allclose(one, its, atol=1e-6)


@pytest.mark.parametrize("form", ["classes", "column", "rows"])
def test_smoothed_labels(form):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (6, 4)).astype("float32")
    labels = rng.integers(0, 4, 6)
    rows = np.eye(4)[labels]
    given = {"classes": labels, "column": labels[:, None], "rows": rows}[form]
    loss = ke.training.SmoothedCrossentropy(0.2)
    expected = -((0.8 * rows + 0.05) * log_softmax(logits)).sum(-1).mean()
    found = float(ops.convert_to_numpy(loss(given, logits)))
    assert found == pytest.approx(expected, rel=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


@pytest.mark.ci
def test_smoothed_labels_reach_each_objective():
    images, labels = make_data()
    weights = linear_weights()
    for objective in ("adversarial", "mixed", "trades", "mart", "alp"):
        losses = []
        for loss in (
            ke.training.SmoothedCrossentropy(0.3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ):
            trainer = make_trainer(
                linear_net(weights),
                objective=objective,
                compile_with={"loss": loss},
            )
            logs = trainer.train_on_batch(images, labels, return_dict=True)
            losses.append(logs["loss"])
        assert abs(losses[0] - losses[1]) > 1e-3, objective


def test_the_attack_finds_the_corner_of_largest_divergence():
    # The divergence is convex in the pixels of a linear model, so its
    # maximum over the ball is at one of the 16 corners.
    rng = np.random.default_rng(0)
    images = rng.uniform(100, 150, (64, 2, 2, 1)).astype("float32")
    weights = rng.normal(0, 0.02, (4, 3)).astype("float32")
    flat = images.reshape(64, 4).astype("float64")
    corners = np.array(list(itertools.product([-1, 1], repeat=4)))
    moved = flat[:, None] + 255 * EPSILON * corners
    divergences = kl_divergence((flat @ weights)[:, None], moved @ weights)
    # The labels are wrong throughout, and must not matter.
    labels = (flat @ weights).argmin(-1)

    def logits_fn(x):
        return ops.reshape(x, (-1, 4)) @ ops.convert_to_tensor(weights)

    loss = objectives.TRADES().attack_loss(
        logits_fn, ops.convert_to_tensor(images)
    )
    reached = []
    for seed in range(8):
        found = run(
            ke.attacks.PGD(steps=10),
            logits_fn,
            images,
            labels,
            EPSILON,
            method="perturb",
            seed=seed,
            loss=loss,
        )
        adversarial = found.reshape(64, 4).astype("float64")
        reached.append(kl_divergence(flat @ weights, adversarial @ weights))
    best = divergences.max(1)
    assert (np.max(reached, 0) <= best * 1.0001).all()
    # A start may lead to another corner, a local maximum.
    assert (np.max(reached, 0) > 0.999 * best).mean() > 0.95
    assert (np.min(reached, 0) > np.sort(divergences, 1)[:, 8]).all()


def test_the_inner_loss_may_be_that_of_the_attack():
    data = make_data()
    model = conv_net(dropout=0, batchnorm=False)
    ours, trades, kl = (
        make_trainer(model, epsilon=EPSILON, objective=each).perturb(data)[0]
        for each in (
            "adversarial",
            ke.training.TRADES(inner_loss="attack"),
            "trades",
        )
    )
    np.testing.assert_array_equal(ours, trades["adversarial"])
    assert np.abs(ours - kl["adversarial"]).max() > 1
    np.testing.assert_array_equal(kl["clean"], data[0])


def test_regularisers_count_once_and_metrics_see_adversarial_images():
    images, labels = make_data()
    inputs = keras.Input(images.shape[1:])
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    kernel = linear_weights()
    dense.set_weights([kernel, np.zeros(3)])
    trainer = make_trainer(
        model,
        objective="trades",
        epsilon=EPSILON,
        compile_with={"optimizer": keras.optimizers.SGD(0.0)},
    )
    views = views_of(trainer, images, labels)
    logs = trainer.train_on_batch(images, labels, return_dict=True)
    clean, moved = (
        np.asarray(views[name], "float64").reshape(len(images), -1) @ kernel
        for name in ("clean", "adversarial")
    )
    rows = np.arange(len(labels))
    expected = -log_softmax(clean)[rows, labels].mean()
    expected += 6.0 * kl_divergence(clean, moved).mean()
    expected += 0.1 * (kernel**2).sum()
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)
    accuracy = np.mean(moved.argmax(-1) == labels)
    assert accuracy != np.mean(clean.argmax(-1) == labels)
    assert logs["accuracy"] == pytest.approx(accuracy)


def test_batchnorm_averages_both_views():
    images, labels = make_data()
    trainer = make_trainer(
        conv_net(dropout=0), objective="trades", epsilon=EPSILON
    )
    model = trainer.model
    norm = next(
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    before = keras.Model(model.inputs, norm.input)
    views = views_of(trainer, images, labels)
    expected = np.asarray(norm.moving_mean)
    for name in ("clean", "adversarial"):
        mean = logits_of(before, views[name]).mean((0, 1, 2))
        expected = 0.99 * expected + 0.01 * mean
    trainer.train_on_batch(images, labels)
    np.testing.assert_allclose(norm.moving_mean, expected, atol=1e-6)


def test_at_epsilon_zero_the_pull_is_none():
    data = make_data()
    ours, theirs = (
        make_trainer(conv_net(dropout=0, batchnorm=False), objective=each)
        for each in ("trades", "adversarial")
    )
    for trainer in (ours, theirs):
        trainer.train_on_batch(*data)
    for one, other in zip(
        weights_of(ours.model), weights_of(theirs.model), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_a_trainer_with_trades_is_saved(tmp_path):
    trainer = make_trainer(
        epsilon=EPSILON, objective=ke.training.TRADES(beta=2.0)
    )
    trainer.train_on_batch(*make_data())
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert loaded.objective == ke.training.TRADES(beta=2.0)
    for each in (trainer, loaded):
        each.train_on_batch(*make_data())
    for one, other in zip(
        weights_of(trainer.model), weights_of(loaded.model), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_half_precision_takes_the_divergence_in_float32():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (8, 5)).astype("float32")
    others = logits + rng.normal(0, 1e-3, (8, 5)).astype("float32")
    found = objectives.kl_divergence(logits, others)
    expected = kl_divergence(logits.astype(float), others.astype(float))
    np.testing.assert_allclose(found, expected, atol=3e-7)
    # Confidence that probabilities could not hold.
    far = objectives.kl_divergence([[200.0, 0.0]], [[0.0, 200.0]])
    np.testing.assert_allclose(far, [200.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ke.training.TRADES(beta=-1), "beta"),
        (lambda: ke.training.TRADES(inner_loss="ce"), "inner_loss"),
        (lambda: ke.training.MART(beta=float("nan")), "beta"),
        (lambda: ke.training.MixedObjective(1.5), "weight"),
        (lambda: ke.training.SmoothedCrossentropy(1.0), "label_smoothing"),
        (lambda: objectives.get("trade"), "trades"),
        (
            lambda: make_trainer(objective="trades", attack=ke.attacks.FGSM()),
            "random_start=True",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# === Adversarial weight perturbation ===


@pytest.mark.parametrize("objective", ["adversarial", "trades"])
def test_a_step_at_the_worst_weights_nearby(objective):
    images, labels = make_data()
    weights = linear_weights()
    trainer = make_trainer(
        linear_net(weights),
        objective=objective,
        epsilon=EPSILON,
        weight_perturbation=0.05,
        compile_with={"optimizer": keras.optimizers.SGD(1e-6)},
    )
    views = views_of(trainer, images, labels)
    trainer.train_on_batch(images, labels)
    views = views if isinstance(views, dict) else {"adversarial": views}
    flat = {
        name: np.asarray(view, "float64").reshape(len(images), -1)
        for name, view in views.items()
    }

    def gradient(weights):
        if objective == "trades":
            return trades_gradient(
                weights,
                flat["clean"],
                flat["adversarial"],
                labels,
                np.ones(len(labels)),
                6.0,
            )
        moved = flat["adversarial"]
        p = np.exp(log_softmax(moved @ weights))
        return moved.T @ (p - np.eye(3)[labels]) / len(labels)

    norm = np.linalg.norm
    at_first = gradient(weights.astype("float64"))
    delta = 0.05 * norm(weights) / norm(at_first) * at_first
    expected = 1e-6 * gradient(weights + delta)
    (result,) = weights_of(trainer.model)
    change = np.abs(expected).max()
    # It is not the step of the weights themselves.
    assert np.abs(expected - 1e-6 * at_first).max() > 0.05 * change
    # The weights move by delta and back in float32.
    rounding = 3 * np.spacing(np.float32(np.abs(weights + delta).max()))
    np.testing.assert_allclose(
        result, weights - expected, atol=2e-3 * change + rounding
    )


def test_only_kernels_move_and_nothing_else_is_touched():
    images, labels = make_data()
    model = conv_net(dropout=0.5)
    trainer = make_trainer(
        model,
        epsilon=EPSILON,
        weight_perturbation=0.01,
        compile_with={"optimizer": keras.optimizers.SGD(0.0)},
    )
    before = weights_of(model)
    seeds = [np.asarray(each) for each in trainer._seed_states()]
    moves = trainer.weight_perturbations(trainer.perturb((images, labels)))
    by_id = {id(each): each for each in trainer.trainable_variables}
    assert moves and all(by_id[key].ndim >= 2 for key in moves)
    for key, move in moves.items():
        norms = [
            np.linalg.norm(ops.convert_to_numpy(each))
            for each in (move, by_id[key])
        ]
        assert norms[0] == pytest.approx(0.01 * norms[1], rel=1e-4)
    for one, other in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(one, other)
    # But that of the attack's random start.
    for one, other in zip(seeds[1:], trainer._seed_states()[1:], strict=True):
        np.testing.assert_array_equal(one, np.asarray(other))
    # A step of size 0 leaves the kernels, but for rounding.
    trainer.train_on_batch(images, labels)
    for one, other in zip(
        [w for w in before if w.ndim >= 2],
        [w for w in weights_of(model) if w.ndim >= 2],
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_weight_perturbation_is_saved_and_checked(tmp_path):
    trainer = make_trainer(weight_perturbation=0.005)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert loaded.weight_perturbation == 0.005
    with pytest.raises(ValueError, match="weight_perturbation=-1"):
        make_trainer(weight_perturbation=-1)
    model = conv_net()
    for layer in model.layers:
        layer.dtype_policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    with pytest.raises(ValueError, match="not available in float16"):
        make_trainer(model, weight_perturbation=0.1)
    average = keras.optimizers.SGD(0.1, use_ema=True)
    trainer = make_trainer(
        weight_perturbation=0.1, compile_with={"optimizer": average}
    )
    with pytest.raises(ValueError, match="averages the weights"):
        trainer.train_on_batch(*make_data())
