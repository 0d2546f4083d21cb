"""Statistics of BatchNorm that are estimated again after a training."""

import keras
import networks
import numpy as np
import pytest
from keras import ops

import keras_epsched as ke


def make_trainer(epsilon, **kwargs):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(momentum=0.99),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    return ke.AdversarialTrainer(
        network, ke.attacks.FGSM(), epsilon=epsilon, seed=0, **kwargs
    )


def batches(count=5):
    rng = np.random.default_rng(1)
    return [
        (
            rng.uniform(30 * (index % 5), 255, (8, 4, 4, 3)).astype("float32"),
            rng.integers(0, 3, 8),
        )
        for index in range(count)
    ]


def layer_of(trainer):
    return trainer.model.layers[1]


def statistics(trainer):
    layer = layer_of(trainer)
    return (
        ops.convert_to_numpy(layer.moving_mean),
        ops.convert_to_numpy(layer.moving_variance),
    )


def test_without_attack_they_are_those_of_all_images():
    trainer = make_trainer(0.0)
    ke.training.reestimate_batchnorm(trainer, batches())
    images = np.concatenate([each for each, _ in batches()]).reshape(40, -1)
    mean, variance = statistics(trainer)
    np.testing.assert_allclose(mean, images.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, images.var(axis=0), rtol=1e-4)
    assert layer_of(trainer).momentum == 0.99


def test_of_the_images_that_training_sees():
    trainer = make_trainer(0.1)
    ke.training.reestimate_batchnorm(trainer, batches())
    images = np.concatenate([each for each, _ in batches()]).reshape(40, -1)
    moved = np.abs(statistics(trainer)[0] - images.mean(axis=0))
    # FGSM goes to the corners of the ball, or to the end of the range.
    assert 1.0 < moved.max() <= 0.1 * 255 + 1e-2
    # Whatever stood there before.
    other = make_trainer(0.1)
    layer_of(other).moving_mean.assign(np.full(48, 7.0))
    ke.training.reestimate_batchnorm(other, batches())
    for mine, its in zip(statistics(trainer), statistics(other), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5)


def test_frozen_statistics_stay_and_data_must_be_there():
    trainer = make_trainer(0.0, freeze_batchnorm=True)
    ke.training.reestimate_batchnorm(trainer, batches())
    np.testing.assert_array_equal(statistics(trainer)[0], np.zeros(48))
    trainer = make_trainer(0.0)
    with pytest.raises(ValueError, match="no batch"):
        ke.training.reestimate_batchnorm(trainer, [])
    assert layer_of(trainer).momentum == 0.99


@pytest.mark.ci
def test_what_is_computed_beside_the_steps_is_compiled_once(counter):
    trainer = networks.make_trainer()
    images, labels = networks.make_data()

    def twice():
        for _ in range(2):
            trainer.fit(images, labels, callbacks=networks.drive(), verbose=0)
            ke.training.reestimate_batchnorm(trainer, [(images, labels)])

    twice()
    # The look at the data, the monitor of the two losses, the statistics of
    # every batch.
    assert counter.made == 3
    assert counter.traced == 3 * networks.TRACES
    trainer.attack = ke.attacks.FGSM()
    trainer.make_train_function(force=True)
    twice()
    # The look is at clean images.
    assert counter.made == 5


def fit(trainer, steps, **kwargs):
    """Moving means after `fit` on batches `(8, 4, 4, 3)`, without attack."""
    if not trainer.compiled:
        trainer.compile("sgd", networks.cross_entropy())
    images, labels = map(np.concatenate, zip(*batches(steps), strict=True))
    kwargs = {"batch_size": 8, "shuffle": False, "verbose": 0, **kwargs}
    trainer.fit(images, labels, callbacks=networks.drive(0.0), **kwargs)
    return statistics(trainer)[0]


def expected_mean(steps, momentum, mean=0.0):
    for images, _ in batches(steps):
        of_batch = images.reshape(8, -1).mean(axis=0)
        mean = momentum * mean + (1 - momentum) * of_batch
    return mean


@pytest.mark.parametrize(
    "own, steps, lowered",
    [
        pytest.param(0.99, 1, 0.2, marks=pytest.mark.ci),
        (0.99, 5, 0.2 ** (1 / 5)),
        (0.9, 16, 0.9),
        pytest.param(0.5, 4, 0.5, marks=pytest.mark.ci),
    ],
)
def test_short_epochs_lower_the_momentum(own, steps, lowered):
    trainer = make_trainer(0.0)
    layer_of(trainer).momentum = own
    mean = fit(trainer, steps)
    np.testing.assert_allclose(mean, expected_mean(steps, lowered), rtol=1e-4)
    assert layer_of(trainer).momentum == own


def test_long_epochs_keep_any_momentum():
    highest = ke.training.batchnorm.highest_momentum
    assert highest(160) < 0.99 < highest(161)
    assert highest(15) < 0.9 < highest(16)
    # As many steps as leave a fifth of what was there before the epoch.
    assert highest(18) ** 18 == pytest.approx(0.2)


def test_a_momentum_that_was_asked_for_stays():
    trainer = make_trainer(0.0, batchnorm_momentum=0.99)
    mean = fit(trainer, 2)
    np.testing.assert_allclose(mean, expected_mean(2, 0.99), rtol=1e-4)


def test_each_fit_has_the_momentum_of_its_epochs():
    trainer = make_trainer(0.0)
    trainer.compile("sgd", networks.cross_entropy())
    trainer.train_on_batch(*batches(1)[0])
    layer_of(trainer).moving_mean.assign(np.zeros(48))
    mean = fit(trainer, 5)
    np.testing.assert_allclose(
        mean, expected_mean(5, 0.2 ** (1 / 5)), rtol=1e-4
    )
    later = fit(trainer, 1)
    np.testing.assert_allclose(later, expected_mean(1, 0.2, mean), rtol=1e-4)
    # A step that was compiled for the same momentum serves again, and single
    # steps go on by it.
    step = trainer.train_function
    mean = fit(trainer, 1)
    trainer.train_on_batch(*batches(1)[0])
    assert trainer.train_function is step
    mean = expected_mean(1, 0.2, mean)
    np.testing.assert_allclose(statistics(trainer)[0], mean, rtol=1e-4)
    # Longer epochs are compiled anew.
    later = fit(trainer, 9)
    mean = expected_mean(9, 0.2 ** (1 / 9), mean)
    np.testing.assert_allclose(later, mean, rtol=1e-4)


def test_what_is_saved_within_fit_has_its_own_momentum(tmp_path):
    trainer = make_trainer(0.0)
    path = tmp_path / "model.keras"
    trainer.compile("sgd", networks.cross_entropy())
    images, labels = batches(1)[0]
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: trainer.model.save(path)
    )
    trainer.fit(
        images, labels, callbacks=[*networks.drive(0.0), save], verbose=0
    )
    assert ke.models.load(path).layers[1].momentum == 0.99


def test_a_fit_that_fails_leaves_the_momentum(capsys):
    trainer = make_trainer(0.0)
    fit(trainer, 5, verbose=2)
    assert "momentum 0.725 instead of 0.99" in capsys.readouterr().out

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    images, labels = batches(1)[0]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(
            images, labels, callbacks=[*networks.drive(0.0), Stop()], verbose=0
        )
    assert layer_of(trainer).momentum == 0.99


def test_epochs_of_unknown_length():
    import tensorflow as tf

    trainer = make_trainer(0.0)
    trainer.compile("sgd", networks.cross_entropy())
    images = tf.TensorSpec((None, 4, 4, 3), tf.float32)
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches(3)),
        output_signature=(images, tf.TensorSpec((None,), tf.int64)),
    )
    trainer.fit(data, callbacks=networks.drive(0.0), verbose=0)
    np.testing.assert_allclose(
        statistics(trainer)[0], expected_mean(3, 0.9), rtol=1e-4
    )


def test_a_momentum_that_is_set_after_fit_holds():
    trainer = make_trainer(0.0)
    trainer.compile("sgd", networks.cross_entropy(), run_eagerly=True)
    mean = fit(trainer, 5)
    layer_of(trainer).momentum = 0.5
    trainer.train_on_batch(*batches(1)[0])
    expected = expected_mean(1, 0.5, mean)
    np.testing.assert_allclose(statistics(trainer)[0], expected, rtol=1e-4)
    assert layer_of(trainer).momentum == 0.5
    # And the next training lowers none that is low enough.
    later = fit(trainer, 4)
    np.testing.assert_allclose(
        later, expected_mean(4, 0.5, expected), rtol=1e-4
    )
    assert layer_of(trainer).momentum == 0.5
