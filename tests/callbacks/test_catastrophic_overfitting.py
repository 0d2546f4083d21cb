"""The alarm fires on attacks that only seem to work, and not on sound ones."""

import keras
import numpy as np
import pytest
from networks import (
    conv_net,
    cross_entropy,
    drive,
    linear_net,
    linear_weights,
    make_data,
    make_trainer,
    weights_of,
)

import keras_epsched as ke
from keras_epsched.callbacks import CatastrophicOverfittingAlarm

EPSILON = 24 / 255
IMAGES, LABELS = make_data(96)


class Nothing(ke.attacks.FGSM):
    """An attack that leaves the images as they are, as a misled one does."""

    def perturb_problem(self, problem, key):
        return problem.images


def fit(action="warn", attack=None, schedule=None, epochs=3, **kwargs):
    trainer = make_trainer(
        conv_net(dropout=0, batchnorm=False),
        attack=Nothing() if attack is None else attack,
        compile_with={"optimizer": keras.optimizers.Adam(3e-3)},
    )
    alarm = CatastrophicOverfittingAlarm(
        IMAGES, LABELS, action=action, **kwargs
    )
    scheduler = drive(EPSILON)
    if schedule is not None:
        scheduler = [ke.callbacks.EpsilonScheduler(schedule)]
    history = trainer.fit(
        IMAGES,
        LABELS,
        batch_size=8,
        epochs=epochs,
        callbacks=[*scheduler, alarm],
        verbose=0,
    ).history
    return trainer, alarm, history


class Weights(keras.callbacks.Callback):
    """Notes the weights after each epoch, before the alarm looks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(weights_of(self.model.model))


def test_an_attack_that_does_nothing_is_noticed():
    with pytest.warns(UserWarning, match="catastrophic overfitting") as caught:
        trainer, alarm, history = fit(epochs=6)
    assert alarm.fired_at is not None
    found = [w for w in caught if "catastrophic" in str(w.message)]
    # Once, though it goes on.
    assert len(found) == 1
    gap = history["probe_training_accuracy"][-1]
    gap -= history["probe_robust_accuracy"][-1]
    assert gap > 0.2 and len(history["loss"]) == 6
    assert trainer.attack == Nothing()


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    ("attack", "epsilon"),
    [
        (ke.attacks.PGD(steps=4), EPSILON),
        (ke.attacks.FGSM(random_start=True), EPSILON / 3),
    ],
    ids=["pgd", "fgsm"],
)
def test_sound_attacks_are_not(attack, epsilon):
    schedule = ke.schedules.Constant(epsilon)
    _, alarm, history = fit(attack=attack, schedule=schedule, epochs=4)
    assert alarm.fired_at is None
    # They differ, so the probe has seen two attacks.
    assert (
        history["probe_training_accuracy"] != history["probe_robust_accuracy"]
    )


def test_lagging_statistics_are_no_overfitting():
    """Both attacks see the network that is asked, whatever the training's."""
    found = []
    for mode in ("training", "inference"):
        keras.utils.set_random_seed(0)
        net = conv_net(dropout=0)
        for layer in net.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                # Far from those of any batch.
                shift = np.where(np.arange(8) % 2, 2.0, -2.0)
                layer.moving_mean.assign(shift)
        trainer = make_trainer(
            net, attack=ke.attacks.FGSM(), epsilon=4 / 255, attack_mode=mode
        )
        alarm = CatastrophicOverfittingAlarm(IMAGES, LABELS)
        alarm.set_model(trainer)
        alarm.on_train_begin()
        found.append(alarm.measure()[0])
    np.testing.assert_array_equal(*found)
    assert 0 < found[0].mean() < 1


def test_stopping_brings_back_the_last_sound_weights():
    notes = Weights()
    # Nothing parts while epsilon is small.
    schedule = ke.schedules.PiecewiseLinear(
        [(0.0, 0.1 / 255), (0.5, 0.1 / 255), (0.51, EPSILON), (1.0, EPSILON)]
    )
    trainer = make_trainer(
        conv_net(dropout=0, batchnorm=False),
        attack=Nothing(),
        compile_with={"optimizer": keras.optimizers.Adam(3e-3)},
    )
    alarm = CatastrophicOverfittingAlarm(IMAGES, LABELS, action="stop")
    with pytest.warns(UserWarning, match="last epoch without it"):
        history = trainer.fit(
            IMAGES,
            LABELS,
            batch_size=8,
            epochs=12,
            callbacks=[ke.callbacks.EpsilonScheduler(schedule), notes, alarm],
            verbose=0,
        ).history
    assert 7 <= alarm.fired_at == len(history["loss"]) < 12
    sound = notes.seen[alarm.fired_at - 2]
    for ours, theirs in zip(weights_of(trainer.model), sound, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_falling_back_goes_on_with_another_attack():
    fallback = ke.attacks.PGD(steps=3)
    with pytest.warns(UserWarning, match=r"continues with PGD\(steps=3"):
        trainer, alarm, history = fit("fall_back", fallback=fallback, epochs=10)
    assert trainer.attack == fallback
    assert len(history["loss"]) == 10 and alarm.fired_at < 8
    # It is the new attack that the network trains on.
    robust = history["probe_robust_accuracy"]
    assert robust[-1] > robust[alarm.fired_at - 1] + 0.1
    training = history["probe_training_accuracy"]
    assert training[-1] - robust[-1] < 0.2


def test_at_epsilon_zero_there_is_nothing_to_probe():
    _, _, history = fit(schedule=ke.schedules.Constant(0.0), epochs=1)
    assert "probe_robust_accuracy" not in history


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "shout"}, "action"),
        ({"gap": 2.0}, "gap"),
        ({"attack": "pgd"}, "attack"),
        ({"fallback": ke.attacks.Square(5)}, "cannot train"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        CatastrophicOverfittingAlarm(IMAGES, LABELS, **arguments)


def test_model_and_norm_are_checked():
    model = conv_net()
    model.compile(loss=cross_entropy())
    alarm = CatastrophicOverfittingAlarm(IMAGES, LABELS)
    with pytest.raises(ValueError, match="AdversarialTrainer"):
        model.fit(IMAGES, LABELS, callbacks=[alarm], verbose=0)
    alarm = CatastrophicOverfittingAlarm(
        IMAGES, LABELS, attack=ke.attacks.PGD(norm="l2")
    )
    trainer = make_trainer(linear_net(linear_weights()))
    with pytest.raises(ValueError, match="norm"):
        trainer.fit(
            IMAGES, LABELS, callbacks=[*drive(EPSILON), alarm], verbose=0
        )
