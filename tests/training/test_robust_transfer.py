"""TWINS and AutoLoRa: steps in closed form, what is kept, what is refused."""

import keras
import numpy as np
import pytest
from networks import (
    CLASSES,
    SHAPE,
    conv_net,
    drive,
    linear_net,
    linear_weights,
    logits_of,
    make_data,
    make_trainer,
)
from test_objectives import log_softmax, views_of

import keras_epsched as ke
from keras_epsched.training import batchnorm

EPSILON = 8 / 255
RATE = 1e-3
SIZE = int(np.prod(SHAPE))


def normalised_net(weights, mean, variance):
    """`(pixels - mean) / sqrt(variance)`, then a linear layer."""
    inputs = keras.Input(SHAPE)
    norm = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-6, momentum=0.5
    )
    dense = keras.layers.Dense(CLASSES, use_bias=False)
    outputs = dense(norm(keras.layers.Flatten()(inputs)))
    model = keras.Model(inputs, outputs)
    norm.set_weights([mean, variance])
    dense.set_weights([weights])
    return model


def twins_trainer(epsilon=EPSILON, weight=0.4, objective="adversarial"):
    rng = np.random.default_rng(3)
    # Far from those of the batches, so that the views are unlike.
    mean, variance = rng.uniform(0, 255, SIZE), rng.uniform(300, 9000, SIZE)
    weights = rng.normal(0, 0.1, (SIZE, CLASSES)).astype("float32")
    trainer = make_trainer(
        normalised_net(weights, mean, variance),
        objective=ke.training.TWINS(weight, objective),
        attack=ke.attacks.FGSM(random_start=objective == "trades"),
        epsilon=epsilon,
        compile_with={"optimizer": keras.optimizers.SGD(RATE)},
    )
    return trainer, weights.astype("float64"), mean, variance


def flat(images):
    return np.asarray(images, "float64").reshape(len(images), -1)


def both_views(images, mean, variance):
    """Each half by its own statistics, in float64."""
    first = (len(images) + 1) // 2
    one, other = flat(images[:first]), flat(images[first:])
    one = (one - one.mean(0)) / np.sqrt(one.var(0) + 1e-6)
    return np.concatenate([one, (other - mean) / np.sqrt(variance + 1e-6)])


def shares_of(count, weight):
    first = (count + 1) // 2
    return np.r_[
        np.full(first, 1 / first),
        np.full(count - first, weight / max(count - first, 1)),
    ]


@pytest.mark.parametrize("count", [pytest.param(24, marks=pytest.mark.ci), 7])
@pytest.mark.parametrize("weighted", [False, "(n,)", "(n, 1)"])
def test_a_step_of_twins_in_closed_form(count, weighted):
    trainer, weights, mean, variance = twins_trainer()
    images, labels = make_data(count)
    given = np.linspace(0.2, 2.0, count) if weighted else None
    views = views_of(trainer, images, labels)
    moved = np.concatenate([views["adaptive"], views["frozen"]])
    assert len(views["adaptive"]) == (count + 1) // 2
    shaped = given[:, None] if weighted == "(n, 1)" else given
    trainer.train_on_batch(images, labels, sample_weight=shaped)

    x = both_views(moved, mean, variance)
    error = np.exp(log_softmax(x @ weights)) - np.eye(CLASSES)[labels]
    shares = shares_of(count, 0.4) * (1 if given is None else given)
    gradient = x.T @ (shares[:, None] * error)
    found = np.asarray(trainer.model.layers[-1].kernel)
    change = RATE * np.abs(gradient).max()
    np.testing.assert_allclose(
        found - weights, -RATE * gradient, atol=max(1e-3 * change, 2e-8)
    )


def test_each_half_is_attacked_by_its_own_view():
    trainer, weights, mean, variance = twins_trainer()
    images, labels = make_data()
    views = views_of(trainer, images, labels)
    half = len(images) // 2
    x = both_views(images, mean, variance)[half:]
    error = np.exp(log_softmax(x @ weights)) - np.eye(CLASSES)[labels[half:]]
    signs = np.sign(error @ weights.T)
    expected = np.clip(flat(images[half:]) + 8 * signs, 0, 255)
    found = flat(views["frozen"])
    # The adaptive statistics would move many pixels the other way.
    assert np.mean(np.abs(found - expected) < 1e-3) > 0.999
    x = flat(images[half:])
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
    error = np.exp(log_softmax(x @ weights)) - np.eye(CLASSES)[labels[half:]]
    assert np.mean(np.sign(error @ weights.T) != signs) > 0.1


def test_only_the_adaptive_half_moves_the_statistics():
    trainer, _, mean, variance = twins_trainer(epsilon=0.0)
    images, labels = make_data()
    norm = batchnorm.batchnorm_layers(trainer.model)[0]
    trainer.train_on_batch(images, labels)
    half = flat(images[: len(images) // 2])
    np.testing.assert_allclose(
        np.asarray(norm.moving_mean), (mean + half.mean(0)) / 2, rtol=1e-4
    )
    np.testing.assert_allclose(
        np.asarray(norm.moving_variance),
        (variance + half.var(0)) / 2,
        rtol=1e-3,
    )


def test_the_statistics_of_the_pretraining_are_saved(tmp_path):
    trainer, _, mean, _ = twins_trainer()
    trainer.fit(*make_data(), epochs=2, verbose=0, callbacks=drive(EPSILON))
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert loaded.objective == trainer.objective
    kept = loaded.objective._statistics[0][1]
    np.testing.assert_allclose(np.asarray(kept), mean, rtol=1e-6)
    # In evaluation there is one network, with the statistics that moved.
    images, _ = make_data()
    np.testing.assert_allclose(
        logits_of(loaded, images), logits_of(trainer.model, images), atol=1e-4
    )


def test_twins_of_another_objective():
    trainer, weights, mean, variance = twins_trainer(objective="trades")
    images, labels = make_data()
    views = views_of(trainer, images, labels)
    logs = trainer.train_on_batch(images, labels, return_dict=True)
    clean, moved = (
        log_softmax(
            both_views(
                np.concatenate([views["adaptive"][n], views["frozen"][n]]),
                mean,
                variance,
            )
            @ weights
        )
        for n in ("clean", "adversarial")
    )
    divergence = (np.exp(clean) * (clean - moved)).sum(-1)
    losses = -clean[np.arange(len(labels)), labels] + 6 * divergence
    expected = (shares_of(len(images), 0.4) * losses).sum()
    assert logs["loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "attack_mode, objective",
    [
        ("training", "twins"),
        pytest.param("training", "autolora", marks=pytest.mark.ci),
        pytest.param("inference", "twins", marks=pytest.mark.ci),
        ("inference", "autolora"),
    ],
)
def test_uneven_batches_and_an_image_alone(attack_mode, objective):
    trainer = make_trainer(
        conv_net(width=16),
        objective=objective,
        attack_mode=attack_mode,
        validation_attack=ke.attacks.PGD(1),
    )
    images, labels = make_data(21)
    history = trainer.fit(
        images,
        labels,
        batch_size=10,
        epochs=2,
        verbose=0,
        shuffle=False,
        validation_data=(images, labels),
        callbacks=drive(EPSILON),
    ).history
    assert np.isfinite(history["loss"]).all()
    assert "val_natural_accuracy" not in history
    assert len(history["val_robust_accuracy"]) == 2


# === AutoLoRa ===


def two_layers(hidden=12):
    """`pixels @ w @ v`: a backbone and a head, both linear."""
    inputs = keras.Input(SHAPE)
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(hidden, use_bias=False, name="backbone")(x)
    head = keras.layers.Dense(CLASSES, use_bias=False, name="head")
    model = keras.Model(inputs, head(x))
    rng = np.random.default_rng(5)
    model.set_weights(
        [
            rng.normal(0, 2e-3, each.shape).astype("float32")
            if "backbone" in each.path
            else rng.normal(0, 0.5, each.shape).astype("float32")
            for each in model.weights
        ]
    )
    return model


def test_a_step_of_autolora_in_closed_form():
    share, beta = 0.6, 6.0
    trainer = make_trainer(
        two_layers(),
        objective=ke.training.AutoLoRa(beta, rank=4),
        epsilon=EPSILON,
        compile_with={"optimizer": keras.optimizers.SGD(RATE)},
    )
    factors = trainer.objective.trained()
    rng = np.random.default_rng(0)
    for each in factors:
        each.assign(rng.normal(0, 0.02, each.shape))
    trainer.objective._share.assign(share)
    variables = (*trainer.model.trainable_variables, *factors)
    w, v, a, b = before = [np.asarray(each, "float64") for each in variables]
    images, labels = make_data()
    views = views_of(trainer, images, labels)
    trainer.train_on_batch(images, labels)

    clean, moved = flat(views["clean"]), flat(views["adversarial"])
    branch = w + a @ b
    logs, other_logs = (
        log_softmax(clean @ branch @ v),
        log_softmax(moved @ w @ v),
    )
    p, q = np.exp(logs), np.exp(other_logs)
    one_hot = np.eye(CLASSES)[labels]
    ratio = logs - other_logs
    pull = p * (ratio - (p * ratio).sum(-1, keepdims=True))
    n = len(images)
    by_clean = ((1 - share) * (p - one_hot) + beta * share * pull) / n
    by_moved = (share * (q - one_hot) + beta * share * (q - p)) / n
    of_branch = clean.T @ by_clean @ v.T
    gradients = (
        # The backbone learns from the adversarial images alone.
        moved.T @ by_moved @ v.T,
        branch.T @ (clean.T @ by_clean) + w.T @ (moved.T @ by_moved),
        of_branch @ b.T,
        a.T @ of_branch,
    )
    for variable, old, gradient in zip(
        variables, before, gradients, strict=True
    ):
        change = RATE * np.abs(gradient).max()
        assert change > 1e-5
        np.testing.assert_allclose(
            np.asarray(variable, "float64") - old,
            -RATE * gradient,
            atol=max(2e-3 * change, 4e-8),
            err_msg=variable.path,
        )


def test_the_shares_follow_the_natural_accuracy():
    trainer = make_trainer(
        two_layers(),
        objective="autolora",
        compile_with={"optimizer": keras.optimizers.SGD(1e-5)},
    )
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(float(np.asarray(trainer.objective._share)))

    history = trainer.fit(
        *make_data(96),
        epochs=4,
        verbose=0,
        callbacks=[Look(), *drive(EPSILON)],
    ).history
    # At first only the task is learnt.
    assert seen[0] == 0
    assert seen[1:] == pytest.approx(history["natural_accuracy"][:-1])
    assert 0 < seen[-1] <= 1


def test_the_backbone_waits_in_the_first_epoch():
    trainer = make_trainer(
        two_layers(),
        objective="autolora",
        epsilon=EPSILON,
        compile_with={"optimizer": keras.optimizers.SGD(1e-5)},
    )
    w, v = (np.array(each) for each in trainer.model.trainable_variables)
    trainer.train_on_batch(*make_data())
    found = [np.array(each) for each in trainer.model.trainable_variables]
    np.testing.assert_array_equal(found[0], w)
    assert np.abs(found[1] - v).max() > 0
    # B moved, and A cannot before B has.
    a, b = (np.array(each) for each in trainer.objective.trained())
    assert np.abs(b).max() > 0


def test_the_branch_is_left_behind(tmp_path):
    model = conv_net(width=16)
    count = len(model.weights)
    trainer = make_trainer(model, objective=ke.training.AutoLoRa(rank=4))
    images, labels = make_data()
    trainer.fit(images, labels, epochs=3, verbose=0, callbacks=drive(EPSILON))
    assert len(trainer.model.weights) == count
    # What evaluation sees has no branch, though there is one.
    assert all(
        np.abs(np.asarray(each)).max() > 0
        for each in trainer.objective.trained()
    )
    np.testing.assert_array_equal(
        logits_of(trainer, images), logits_of(trainer.model, images)
    )
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    for its, other in zip(
        (*loaded.objective.trained(), loaded.objective._share),
        (*trainer.objective.trained(), trainer.objective._share),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(its), np.asarray(other))


def test_each_seed_has_a_branch_of_its_own():
    def first(seed):
        trainer = make_trainer(
            conv_net(width=16), objective="autolora", seed=seed
        )
        return np.asarray(trainer.objective.trained()[0])

    np.testing.assert_array_equal(first(1), first(1))
    assert np.abs(first(1) - first(2)).max() > 0


def unbuilt():
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: make_trainer(conv_net(batchnorm=False), objective="twins"),
            "there are none",
        ),
        (
            lambda: make_trainer(objective="twins", freeze_batchnorm=True),
            "are frozen",
        ),
        (lambda: ke.training.TWINS(-1), "weight=-1"),
        (lambda: ke.training.TWINS(objective="autolora"), "TWINS can use"),
        (lambda: make_trainer(unbuilt(), objective="twins"), "Build it first"),
        (lambda: make_trainer(unbuilt(), objective="autolora"), "Build it"),
        (lambda: ke.training.AutoLoRa(rank=0), "rank=0"),
        (lambda: ke.training.AutoLoRa(beta=-1), "beta=-1"),
        (
            lambda: make_trainer(
                linear_net(linear_weights()), objective="autolora"
            ),
            "outside the head",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["twins", "autolora"])
def test_an_objective_belongs_to_one_trainer(name):
    objective = ke.training.objectives.get(name)
    make_trainer(conv_net(width=16), objective=objective)
    with pytest.raises(ValueError, match="another for each trainer"):
        make_trainer(conv_net(width=16), objective=objective)
