"""The auto scheduler and the monitors, on planted cases."""

import re

import keras
import numpy as np
import pytest
from networks import (
    TRACES,
    conv_net,
    make_data,
    make_trainer,
    weights_of,
)

import keras_epsched as ke
from keras_epsched import onset
from keras_epsched.callbacks.monitored_images import MonitoredImages

TARGET = 8 / 255


@pytest.fixture(scope="module")
def trainer():
    made = make_trainer(conv_net(dropout=0, batchnorm=False))
    # As a step of training finds out.
    made.num_classes = 3
    return made


def drive(callback, trainer, accuracies, epsilons=None, state_at=None):
    """Calls a callback as `fit` does, with planted accuracies.

    Returns:
        The epsilon of each epoch, and its logs.
    """
    callback.set_model(trainer)
    callback.set_params({"epochs": len(accuracies), "steps": 4})
    callback.on_train_begin()
    seen, logs_seen = [], []
    for epoch, accuracy in enumerate(accuracies):
        if epoch == state_at:
            # Killed here: another one goes on.
            state = callback.get_state()
            callback.on_train_begin()
            callback.set_state(state)
        callback.on_epoch_begin(epoch)
        if epsilons is not None:
            trainer.epsilon = epsilons[epoch]
        logs = {} if accuracy is None else {"val_accuracy": accuracy}
        callback.on_epoch_end(epoch, logs)
        seen.append(trainer.epsilon)
        logs_seen.append(logs)
    callback.on_train_end()
    return np.array(seen), logs_seen


# === Auto ===

# It gains two points for the last time in epoch 4 (from 1).
CONVERGES = [0.3, 0.5, 0.6, 0.65, 0.66, 0.665] + 14 * [0.66]


@pytest.mark.parametrize("state_at", [None, 3, 7, 12])
def test_the_ramp_begins_when_accuracy_has_converged(trainer, state_at):
    callback = ke.callbacks.AutoEpsilonScheduler(TARGET)
    found, logs = drive(callback, trainer, CONVERGES, state_at=state_at)
    # Five epochs without a gain: 5 to 9. From 10 to the last, 20, it rises.
    assert callback.ramp_epoch == 10
    expected = np.concatenate([np.zeros(9), np.linspace(0, TARGET, 11)])
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert logs[-1]["epsilon"] == pytest.approx(TARGET)


def test_small_gains_add_up_and_half_way_is_the_latest(trainer):
    # A point an epoch is two points in two epochs: never converged.
    slow = np.linspace(0.3, 0.5, 21)
    callback = ke.callbacks.AutoEpsilonScheduler(TARGET)
    found, _ = drive(callback, trainer, slow)
    assert callback.ramp_epoch == 12  # The first that begins after a half.
    assert np.all(found[:12] == 0) and found[-1] == pytest.approx(TARGET)
    callback = ke.callbacks.AutoEpsilonScheduler(TARGET, latest=0.8)
    assert np.count_nonzero(drive(callback, trainer, slow)[0]) == 3


def test_without_validation_it_warns_and_begins_half_way(trainer):
    callback = ke.callbacks.AutoEpsilonScheduler(TARGET)
    with pytest.warns(UserWarning, match="whatever the accuracy"):
        found, _ = drive(callback, trainer, [None] * 10)
    assert callback.ramp_epoch == 6 and found[-1] == pytest.approx(TARGET)


def test_short_trainings_and_one_epoch(trainer):
    for epochs in (1, 2, 3):
        callback = ke.callbacks.AutoEpsilonScheduler(TARGET, latest=0.5)
        found, _ = drive(callback, trainer, [0.5] * epochs)
        assert found[-1] == pytest.approx(0.0 if epochs == 1 else TARGET)


def test_auto_under_fit():
    model = make_trainer(conv_net(dropout=0, batchnorm=False))
    images, labels = make_data()
    callback = ke.callbacks.AutoEpsilonScheduler(TARGET, patience=1)
    history = model.fit(
        images,
        labels,
        validation_data=(images, labels),
        epochs=4,
        verbose=0,
        callbacks=[callback],
    ).history
    assert history["epsilon"][0] == 0
    assert history["epsilon"][-1] == pytest.approx(TARGET)
    assert model.target_epsilon == pytest.approx(TARGET)


# === Paced ===


@pytest.mark.parametrize("state_at", [None, 2, 5])
def test_epsilon_rises_while_accuracy_holds(trainer, state_at):
    callback = ke.callbacks.PacedEpsilonScheduler(TARGET)
    # Twice chance, of three classes, in epoch 2 (from 1); the 0.6 and the 0.5
    # are less than nine tenths of the best.
    accuracies = [0.4, 0.7, 0.72, 0.6, 0.5, 0.7, 0.7, 0.7, 0.7] + 11 * [0.7]
    found, _ = drive(callback, trainer, accuracies, state_at=state_at)
    # A quarter of the target is an epoch's rise: a fifth of 20 epochs are 4.
    expected = [0, 0, 1, 2, 2, 2, 3, 4] + 12 * [4]
    np.testing.assert_allclose(found, np.array(expected) * TARGET / 4)


def test_epsilon_rises_at_last(trainer):
    callback = ke.callbacks.PacedEpsilonScheduler(TARGET)
    found, _ = drive(callback, trainer, [0.34] * 20)
    shares = np.clip((np.arange(20) / 20 - 0.5) / 0.25, 0, 1)
    np.testing.assert_allclose(found, shares * TARGET, atol=1e-7)
    with pytest.warns(UserWarning, match="whatever the accuracy"):
        found, _ = drive(callback, trainer, [None] * 20)
    np.testing.assert_allclose(found, shares * TARGET, atol=1e-7)


# === Transfer ===

STANDARD = [0.4, 0.6, 0.7, 0.75, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
RAMP = [0, 0, 0, *np.linspace(0, TARGET, 6)[1:], TARGET, TARGET]
PEAK = [0, 0, 0, *np.linspace(0, 1.25 * TARGET, 5)[1:], TARGET, TARGET, TARGET]


@pytest.mark.parametrize(
    "accuracies, epsilons, verdict, advice",
    [
        # Never adapts, with the target from the start.
        ([0.1] * 10, [TARGET] * 10, "failure", "`ramp_start=0.4`"),
        ([0.1] * 10, [0.0] * 10, "failure", "There was no attack"),
        # Adapts late, and ends far below.
        (
            [0.1] * 6 + [0.3, 0.4, 0.5, 0.5],
            [TARGET] * 10,
            "suboptimal",
            r"30.0 points below.*`ramp_start=0.4`",
        ),
        # Adapts, then the ramp takes all.
        (
            [0.4, 0.6, 0.7, 0.6, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1],
            RAMP,
            "failure",
            "from 70.0% to 10.0%.*`ramp_end`",
        ),
        (
            [0.4, 0.6, 0.7, 0.6, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4],
            RAMP,
            "suboptimal",
            "`ramp_end`",
        ),
        # The ramp began before the task was adapted to.
        (
            [0.2, 0.3, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
            RAMP,
            "suboptimal",
            "set a later `ramp_start`",
        ),
        # It began after that, and took some of it.
        (
            [0.4, 0.7, 0.78, 0.78, 0.75, 0.72, 0.7, 0.68, 0.68, 0.68],
            RAMP,
            "suboptimal",
            r"Before epsilon rose, it was 78.0%.*`ramp_end`",
        ),
        # All is well.
        (
            [0.4, 0.6, 0.7, 0.75, 0.8, 0.79, 0.78, 0.78, 0.77, 0.77],
            RAMP,
            "healthy",
            "Keep the schedule.$",
        ),
        # Hardly an epoch at the target.
        (
            [0.4, 0.6, 0.7, 0.75] + [0.78] * 10,
            [0, 0, 0, *np.linspace(0, TARGET, 11)],
            "healthy",
            "only 1 of 14 epochs.*earlier `ramp_end`",
        ),
        # None, for it was stopped; the largest epsilon so far is no target.
        (
            [0.4, 0.6, 0.7, 0.75] + [0.78] * 6,
            [0, 0, 0, *np.linspace(0, TARGET, 11)[:7]],
            "healthy",
            "only 0 of 10 epochs",
        ),
        # A ramp that ends with the training cannot end later.
        (
            [0.4, 0.6, 0.7, 0.75] + [0.4] * 10,
            [0, 0, 0, *np.linspace(0, TARGET, 11)],
            "suboptimal",
            "more epochs or set an earlier `ramp_start`",
        ),
        # Another epsilon in each epoch is no ramp.
        (
            [0.4, 0.6, 0.7, 0.75] + [0.78] * 6,
            [TARGET / 3, TARGET / 9] * 5,
            "healthy",
            "Keep the schedule.$",
        ),
        # A peak, whose hinges no flag moves: it took all, or came early.
        (
            [0.4, 0.6, 0.7, 0.6, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1],
            PEAK,
            "failure",
            "Do not train above the target: take `TwoHinge`",
        ),
        (
            [0.2, 0.3, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
            PEAK,
            "suboptimal",
            "epsilon at 0 for longer: take `TwoHinge`",
        ),
        ([0.1] * 10, PEAK, "failure", "epsilon at 0 for longer: take `TwoH"),
        # Without any attack.
        (STANDARD, [0] * 10, "healthy", "without any attack"),
    ],
)
def test_verdicts(trainer, accuracies, epsilons, verdict, advice):
    monitor = ke.callbacks.TransferMonitor(10, reference=STANDARD)
    trainer.target_epsilon = TARGET
    if verdict == "healthy":
        drive(monitor, trainer, accuracies, epsilons)
    else:
        with pytest.warns(UserWarning, match=f"{verdict} transfer"):
            drive(monitor, trainer, accuracies, epsilons)
    assert monitor.verdict == verdict
    assert re.search(advice, monitor.advice), monitor.advice
    assert monitor.advice.count(".") >= 1


def test_without_a_standard_run_little_is_known(trainer):
    trainer.target_epsilon = TARGET
    monitor = ke.callbacks.TransferMonitor(10)
    drive(monitor, trainer, [0.4] * 10, [TARGET] * 10)
    assert monitor.verdict == "undecided"
    assert "compare with a standard fine-tuning" in monitor.advice


@pytest.mark.parametrize("state_at", [None, 1, 8])
def test_onset_delay_and_gap(trainer, state_at):
    monitor = ke.callbacks.TransferMonitor(10, reference=STANDARD)
    accuracies = [0.1, 0.1, 0.19, 0.2, 0.5, 0.6, 0.7, 0.74, 0.75, 0.76]
    _, logs = drive(monitor, trainer, accuracies, RAMP, state_at)
    # Twice chance is 20 %.
    assert monitor.onset == 4 and monitor.delay == 3
    assert [each["onset"] for each in logs] == [0, 0, 0, 4, 4, 4, 4, 4, 4, 4]
    assert logs[0]["transfer_gap"] == pytest.approx(0.7)
    assert logs[-1]["transfer_gap"] == pytest.approx(0.04)


def test_thresholds_are_above_chance():
    threshold = onset.onset_threshold
    assert threshold(1000) == 0.05 and threshold(10) == 0.2
    assert threshold(3) == pytest.approx(2 / 3) and threshold(2) == 0.75
    assert onset.onset([0.1, 0.3], 10) == 2
    assert onset.onset([0.1, 0.1], 10) is None


# === Robust overfitting ===


def fit(model, monitor, epochs, *callbacks):
    constant = ke.callbacks.EpsilonScheduler(ke.schedules.Constant(TARGET))
    return model.fit(
        *make_data(),
        epochs=epochs,
        verbose=0,
        callbacks=[constant, *callbacks, monitor],
    ).history


class Spoil(keras.callbacks.Callback):
    """Makes the network lose its robustness, an epoch after the other."""

    def __init__(self, begin):
        super().__init__()
        self.begin, self.weights = begin, None

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.begin:
            self.weights = self.model.model.get_weights()
        if epoch + 1 > self.begin:
            rng = np.random.default_rng(epoch)
            self.model.model.set_weights(
                [rng.normal(0, 0.3, w.shape) for w in self.weights]
            )


def sound():
    """A trainer of a network that withstands a little already."""
    model = make_trainer(
        conv_net(dropout=0, batchnorm=False),
        compile_with={"optimizer": keras.optimizers.Adam(3e-3)},
    )
    constant = ke.callbacks.EpsilonScheduler(ke.schedules.Constant(TARGET))
    model.fit(*make_data(), epochs=15, verbose=0, callbacks=[constant])
    return model


def test_lost_robustness_is_noticed_and_the_best_comes_back():
    images, labels = make_data()
    model = sound()
    monitor = ke.callbacks.RobustOverfittingMonitor(
        images, labels, patience=2, action="stop"
    )
    spoil = Spoil(2)
    with pytest.warns(UserWarning, match="robust overfitting.*are restored"):
        history = fit(model, monitor, 9, spoil)
    assert monitor.fired_at == 4 and monitor.best_epoch <= 2
    assert len(history["loss"]) == 4
    probes = history["probe_target_accuracy"]
    assert max(probes[:2]) == monitor.best > max(probes[2:]) + 0.05
    if monitor.best_epoch == 2:
        for one, other in zip(
            weights_of(model.model), spoil.weights, strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("error:.*robust overfitting")
def test_a_healthy_training_is_left_alone():
    images, labels = make_data()
    monitor = ke.callbacks.RobustOverfittingMonitor(images, labels)
    model = sound()
    history = fit(model, monitor, 2)
    assert monitor.fired_at is None
    assert len(history["probe_target_accuracy"]) == 2


def test_a_monitor_that_judges_is_on_the_margin_and_says_so(capsys):
    images, labels = make_data()
    monitor = ke.callbacks.RobustOverfittingMonitor(images, labels)
    make_trainer(conv_net(dropout=0, batchnorm=False)).fit(
        images,
        labels,
        verbose=2,
        callbacks=[
            ke.callbacks.EpsilonScheduler(ke.schedules.Constant(TARGET)),
            monitor,
        ],
    )
    assert (
        "probe_target_accuracy: accuracy under APGD-10 on the probability "
        "margin, at epsilon 8/255\n"
    ) in capsys.readouterr().out


def test_epochs_of_the_ramp_do_not_count():
    images, labels = make_data()
    monitor = ke.callbacks.RobustOverfittingMonitor(images, labels)
    schedule = ke.schedules.TwoHinge(TARGET, 0.3, 0.7)
    model = make_trainer(conv_net(dropout=0, batchnorm=False))
    history = model.fit(
        images,
        labels,
        epochs=6,
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule), monitor],
    ).history
    at_target = np.isclose(history["epsilon"], TARGET)
    assert 0 < at_target.sum() < 6
    # All are measured, so that the columns of a log are those of its first.
    probes = np.array(history["probe_target_accuracy"])
    assert len(probes) == 6
    assert monitor.best == probes[at_target].max()
    assert at_target[monitor.best_epoch - 1]


class Moved(MonitoredImages):
    """What the attack makes of the images."""

    def measure_batch(self, images, labels, places):
        found = self.search(images, labels, places, TARGET)
        return [found.adversarial, places]


def test_monitored_images_are_the_same_in_small_batches():
    images, labels = make_data()
    model = make_trainer(conv_net(dropout=0, batchnorm=False))
    moved = []
    for batch_size in (5, len(images)):
        monitor = Moved(
            images, labels, ke.attacks.PGD(3), batch_size=batch_size
        )
        monitor.set_model(model)
        monitor.on_train_begin()
        adversarial, places = monitor.measure()
        assert places.tolist() == list(range(len(images)))
        moved.append(adversarial)
    # Starts belong to the image, not to its place in a batch.
    np.testing.assert_allclose(*moved, atol=1e-3)
    size = np.abs(moved[0] - images).max(axis=(1, 2, 3))
    # It may break an image before it reaches the edge of the ball.
    assert 4 < size.min() and size.max() < 255 * TARGET + 1e-3


def test_a_measurement_is_compiled_once(counter):
    images, labels = make_data(13)
    model = make_trainer(conv_net(dropout=0, batchnorm=False))
    schedule = ke.schedules.Constant(TARGET)
    # Batches of 5, 4 and 4 images.
    monitor = Moved(images, labels, ke.attacks.PGD(2), batch_size=5)
    for _ in range(2):
        model.fit(
            images,
            labels,
            epochs=2,
            callbacks=[ke.callbacks.EpsilonScheduler(schedule), monitor],
            verbose=0,
        )
        adversarial, places = monitor.measure()
        assert places.tolist() == list(range(13))
        assert adversarial.shape == images.shape
    # The look at the data, and the measurement.
    assert counter.made == 2
    assert counter.traced == 2 * TRACES


def test_stopping_with_averaged_weights_is_refused():
    model = make_trainer(
        conv_net(dropout=0, batchnorm=False),
        compile_with={"optimizer": keras.optimizers.SGD(use_ema=True)},
    )
    monitor = ke.callbacks.RobustOverfittingMonitor(*make_data(), action="stop")
    with pytest.raises(ValueError, match="use_ema"):
        model.fit(*make_data(), verbose=0, callbacks=[monitor])


# === Mistakes ===


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ke.callbacks.AutoEpsilonScheduler(8), "255"),
        (lambda: ke.callbacks.AutoEpsilonScheduler(0.1, -1), "tolerance=-1"),
        (
            lambda: ke.callbacks.AutoEpsilonScheduler(0.1, patience=0),
            "patience",
        ),
        (lambda: ke.callbacks.AutoEpsilonScheduler(0.1, latest=1), "latest=1"),
        (lambda: ke.callbacks.PacedEpsilonScheduler(0.1, 0), "pace=0"),
        (lambda: ke.callbacks.PacedEpsilonScheduler(0.1, hold=2), "hold=2"),
        (lambda: ke.callbacks.TransferMonitor(1), "num_classes=1"),
        (lambda: ke.callbacks.TransferMonitor(5, [70.0]), r"in \[0, 1\]"),
        (
            lambda: ke.callbacks.RobustOverfittingMonitor(
                *make_data(), action="halt"
            ),
            "action='halt'",
        ),
        (
            lambda: ke.callbacks.RobustOverfittingMonitor(
                *make_data(), patience=0
            ),
            "patience=0",
        ),
        (
            lambda: ke.callbacks.RobustOverfittingMonitor(
                *make_data(), attack="pgd"
            ),
            "attack='pgd'",
        ),
    ],
)
def test_mistakes_are_named(make, message, trainer):
    with pytest.raises(ValueError, match=message):
        callback = make()
        drive(callback, trainer, [0.5])


def test_monitors_need_their_logs(trainer):
    with pytest.raises(ValueError, match="needs 'val_accuracy'"):
        drive(ke.callbacks.TransferMonitor(3), trainer, [None])
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for callback in (
        ke.callbacks.TransferMonitor(3),
        ke.callbacks.RobustOverfittingMonitor(*make_data()),
    ):
        with pytest.raises(ValueError, match="AdversarialTrainer"):
            drive(callback, network, [0.5])
