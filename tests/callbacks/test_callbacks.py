"""The scheduler and the robust checkpoint, under a real `fit`."""

import csv
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import (
    conv_net,
    cross_entropy,
    linear_net,
    linear_weights,
    make_data,
    make_trainer,
    not_on,
    whenever_it_runs,
)

import keras_epsched as ke
from keras_epsched.callbacks.base import TrainerCallback

TARGET = 8 / 255
TARGET_SCHEDULE = ke.schedules.Constant(TARGET)


def small_trainer(**kwargs):
    kwargs.setdefault("attack", ke.attacks.FGSM())
    return make_trainer(linear_net(linear_weights()), **kwargs)


class Recorder(keras.callbacks.Callback):
    """Notes epsilon as the training step is about to read it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(self.model.epsilon)


def test_history_has_the_epsilon_of_every_epoch(capsys):
    schedule = ke.schedules.TwoHinge(TARGET, 0.2, 0.6)
    trainer = small_trainer()
    recorder = Recorder()
    history = trainer.fit(
        *make_data(),
        epochs=5,
        batch_size=12,
        verbose=0,
        callbacks=[
            ke.callbacks.EpsilonScheduler(schedule, verbose=1),
            recorder,
        ],
    ).history
    expected = [schedule(epoch / 5) for epoch in range(5)]
    assert expected[0] == 0 and expected[-1] == TARGET
    np.testing.assert_allclose(history["epsilon"], expected, rtol=1e-6)
    np.testing.assert_allclose(recorder.seen, np.repeat(expected, 2), rtol=1e-6)
    assert trainer.target_epsilon == pytest.approx(TARGET)
    assert "Epoch 5: epsilon is 8/255." in capsys.readouterr().out


def test_batch_frequency_counts_steps():
    schedule = ke.schedules.LinearWarmup(TARGET, 1.0)
    recorder = Recorder()
    scheduler = ke.callbacks.EpsilonScheduler(schedule, "batch")
    history = (
        small_trainer()
        .fit(
            *make_data(),
            epochs=2,
            batch_size=6,
            verbose=0,
            callbacks=[scheduler, recorder],
        )
        .history
    )
    expected = [schedule(step / 8) for step in range(8)]
    np.testing.assert_allclose(recorder.seen, expected, rtol=1e-6)
    np.testing.assert_allclose(history["epsilon"], expected[3::4], rtol=1e-6)


@not_on("torch", "Keras has one step a call there")
def test_steps_per_execution_make_a_staircase():
    schedule = ke.schedules.LinearWarmup(TARGET, 1.0)
    recorder = Recorder()
    trainer = small_trainer(compile_with={"steps_per_execution": 2})
    trainer.fit(
        *make_data(),
        epochs=2,
        batch_size=6,
        verbose=0,
        callbacks=[
            ke.callbacks.EpsilonScheduler(schedule, "batch"),
            recorder,
        ],
    )
    expected = [schedule(step / 8) for step in (0, 2, 4, 6)]
    np.testing.assert_allclose(recorder.seen, expected, rtol=1e-6)


@pytest.mark.parametrize("update_freq", ["epoch", "batch"])
def test_a_resumed_training_sees_the_same_epsilons(update_freq):
    schedule = ke.schedules.CosineRamp(TARGET, 0.1, 0.9)

    def run(initial_epoch):
        recorder = Recorder()
        small_trainer(epsilon=0.01).fit(
            *make_data(),
            initial_epoch=initial_epoch,
            epochs=4,
            batch_size=12,
            verbose=0,
            callbacks=[
                ke.callbacks.EpsilonScheduler(schedule, update_freq),
                recorder,
            ],
        )
        return recorder.seen

    assert run(2) == run(0)[4:]


def test_epsilon_reaches_the_csv_log(tmp_path):
    schedule = ke.schedules.LinearWarmup(TARGET, 0.5)
    small_trainer().fit(
        *make_data(),
        epochs=2,
        verbose=0,
        callbacks=[
            # Whatever the order.
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            ke.callbacks.EpsilonScheduler(schedule),
        ],
    )
    with open(tmp_path / "log.csv", newline="") as file:
        rows = [float(row["epsilon"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, [0.0, TARGET], rtol=1e-6)


def test_a_plain_model_is_refused():
    model = conv_net()
    model.compile(loss=cross_entropy())
    scheduler = ke.callbacks.EpsilonScheduler(ke.schedules.TwoHinge(TARGET))
    with pytest.raises(ValueError, match="AdversarialTrainer"):
        model.fit(*make_data(), verbose=0, callbacks=[scheduler])


def test_an_unknown_number_of_steps_matters_for_batches_only():
    images, labels = make_data()

    def batches():
        for at in range(0, 24, 12):
            yield images[at : at + 12], labels[at : at + 12]

    dataset = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, 8, 8, 3)),
            tf.TensorSpec((None,), "int64"),
        ),
    )
    schedule = ke.schedules.LinearWarmup(TARGET)

    def fit(update_freq):
        scheduler = ke.callbacks.EpsilonScheduler(schedule, update_freq)
        return small_trainer().fit(dataset, verbose=0, callbacks=[scheduler])

    with pytest.raises(ValueError, match="number of steps"):
        fit("batch")
    assert "epsilon" in fit("epoch").history


def test_the_scale_must_fit_the_norm():
    schedule = ke.schedules.Constant(2.0)
    callbacks = [ke.callbacks.EpsilonScheduler(schedule)]
    data = make_data()
    with pytest.raises(ValueError, match="divide by 255"):
        small_trainer().fit(*data, verbose=0, callbacks=callbacks)
    trainer = small_trainer(attack=ke.attacks.FGSM("l2"))
    history = trainer.fit(*data, verbose=0, callbacks=callbacks).history
    assert history["epsilon"] == [2.0]


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="update_freq"):
        ke.callbacks.EpsilonScheduler(ke.schedules.Constant(0.0), "step")
    with pytest.raises(ValueError, match="EpsilonSchedule"):
        ke.callbacks.EpsilonScheduler(0.1)


def checkpoint_fit(folder, schedule, epochs=4, attack=True, **options):
    trainer = small_trainer(
        validation_attack=ke.attacks.FGSM() if attack else None
    )
    path = folder / "{epoch}.weights.h5"
    data = make_data()
    trainer.fit(
        *data,
        epochs=epochs,
        verbose=0,
        callbacks=[
            ke.callbacks.EpsilonScheduler(schedule),
            ke.callbacks.RobustCheckpoint(str(path), save_weights_only=True),
        ],
        **{"validation_data": data, **options},
    )
    return sorted(int(file.name.split(".")[0]) for file in folder.iterdir())


def test_checkpoints_come_after_the_ramp(tmp_path):
    schedule = ke.schedules.TwoHinge(TARGET, 0.25, 0.5)
    saved = checkpoint_fit(tmp_path, schedule)
    # Epochs are named from 1: the third is the first at the target.
    assert saved and saved[0] == 3


def test_a_checkpoint_that_never_comes_warns(tmp_path):
    schedule = ke.schedules.LinearWarmup(TARGET, 1.0)
    with pytest.warns(UserWarning, match="no checkpoint was saved"):
        assert checkpoint_fit(tmp_path, schedule, epochs=2) == []


def test_a_training_without_attack_has_no_checkpoint(tmp_path):
    schedule = ke.schedules.Constant(0.0)
    with pytest.warns(UserWarning, match="the target epsilon is 0"):
        assert checkpoint_fit(tmp_path, schedule, epochs=1) == []


def test_a_checkpoint_that_withstands_nothing_warns(tmp_path):
    # No network withstands that.
    schedule = ke.schedules.Constant(0.9)
    with pytest.warns(UserWarning, match="was 0 in every epoch"):
        assert checkpoint_fit(tmp_path, schedule, epochs=2) == [1]


def test_an_epoch_without_validation_is_never_saved(tmp_path):
    schedule = ke.schedules.Constant(TARGET)
    saved = checkpoint_fit(tmp_path, schedule, epochs=3, validation_freq=2)
    assert saved == [2]
    (tmp_path / "2.weights.h5").unlink()
    with pytest.warns(UserWarning, match="Pass `validation_data`"):
        assert not checkpoint_fit(tmp_path, schedule, validation_data=None)


def test_a_checkpoint_needs_a_trainer(tmp_path):
    model = conv_net()
    model.compile(loss=cross_entropy())
    checkpoint = ke.callbacks.RobustCheckpoint(tmp_path / "best.keras")
    with pytest.raises(ValueError, match="AdversarialTrainer"):
        model.fit(*make_data(), callbacks=[checkpoint], verbose=0)


def test_robust_validation_is_at_the_target_also_after_a_peak():
    seen = []

    class Spy(ke.attacks.FGSM):
        def search(self, logits_fn, images, labels, epsilon, *args, **kwargs):
            whenever_it_runs(lambda each: seen.append(float(each)), epsilon)
            return super().search(
                logits_fn, images, labels, epsilon, *args, **kwargs
            )

    trainer = small_trainer(validation_attack=Spy())
    schedule = ke.schedules.PiecewiseLinear(
        [(0.0, 0.2), (0.5, 0.2), (0.75, 0.03)]
    )
    data = make_data()
    trainer.fit(
        *data,
        validation_data=data,
        epochs=4,
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
    )
    assert trainer.epsilon == pytest.approx(0.03)
    assert seen == pytest.approx([0.03] * len(seen)) and len(seen) >= 4


@pytest.mark.parametrize(
    "epochs, update_freq, warns",
    [(5, "epoch", True), (5, "batch", False), (10, "epoch", False)],
)
def test_a_training_that_ends_above_the_target_is_told(
    epochs, update_freq, warns
):
    schedule = ke.schedules.Peak(TARGET)
    scheduler = ke.callbacks.EpsilonScheduler(schedule, update_freq)
    scheduler.set_model(small_trainer())
    scheduler.set_params({"epochs": epochs, "steps": 3})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        scheduler.on_train_begin()
    above = [each for each in found if "1.25 times the target" in str(each)]
    assert len(above) == warns


def test_a_checkpoint_needs_robust_validation(tmp_path):
    with pytest.raises(ValueError, match="validation_attack"):
        checkpoint_fit(tmp_path, ke.schedules.Constant(TARGET), attack=False)


# === What `fit` asks of a callback ===


class Named(TrainerCallback):
    """Notes what it is told, and when it is called."""

    def __init__(self, fit_order, called):
        super().__init__()
        self.fit_order, self.called = fit_order, called

    def before_fit(self, data, seek, shuffle, callbacks):
        self.told = data, seek, shuffle, callbacks

    def on_epoch_begin(self, epoch, logs=None):
        self.called.append((self.fit_order, self.model.epsilon))


def test_callbacks_are_called_in_their_order():
    images, labels = make_data()
    called = []
    named = [Named(order, called) for order in (2, 0, -2, 1)]
    plain = keras.callbacks.Callback()
    small_trainer().fit(
        images,
        labels,
        verbose=0,
        callbacks=[
            *named,
            plain,
            ke.callbacks.EpsilonScheduler(ke.schedules.Constant(TARGET)),
        ],
    )
    # The scheduler, at -1, comes between the first two.
    assert [order for order, _ in called] == [-2, 0, 1, 2]
    epsilons = [epsilon for _, epsilon in called]
    assert epsilons == pytest.approx([0.0, TARGET, TARGET, TARGET])
    for each in named:
        data, seek, shuffle, callbacks = each.told
        assert data is images and seek is None and shuffle is True
        ours = [one for one in callbacks if one in (*named, plain)]
        assert ours == [named[2], named[1], plain, named[3], named[0]]


def test_fit_tells_how_the_data_are_sought():
    images, labels = make_data()
    data = ke.datasets.ImageBatches(
        list(zip(images.astype("uint8"), labels, strict=True)), (8, 8), 8
    )
    named = Named(0, [])

    def told(**arguments):
        small_trainer(epsilon=TARGET).fit(
            data, verbose=0, callbacks=[named], **arguments
        )
        return named.told[1:3]

    assert told(shuffle=False) == (data.seek, False)
    # Keras spreads an epoch of the data over several of its own.
    assert told(steps_per_epoch=1) == (None, True)


@pytest.mark.filterwarnings("error:epsilon is 0")
def test_whoever_drives_epsilon_says_so():
    class Drives(keras.callbacks.Callback):
        drives_epsilon = True

        def on_epoch_begin(self, epoch, logs=None):
            self.model.epsilon = TARGET

    trainer = small_trainer()
    trainer.fit(*make_data(), verbose=0, callbacks=[Drives()])
    assert trainer.epsilon == pytest.approx(TARGET)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: ke.callbacks.EpsilonScheduler(TARGET_SCHEDULE),
        lambda folder: ke.callbacks.AutoEpsilonScheduler(TARGET),
        lambda folder: ke.callbacks.PacedEpsilonScheduler(TARGET),
        lambda folder: ke.callbacks.TransferMonitor(3),
        lambda folder: ke.callbacks.RobustCheckpoint(folder / "best.keras"),
        lambda folder: ke.callbacks.ExactBackup(folder),
        lambda folder: ke.callbacks.RobustOverfittingMonitor(*make_data()),
        lambda folder: ke.callbacks.CatastrophicOverfittingAlarm(*make_data()),
        lambda folder: ke.callbacks.AdversarialImages(*make_data(), folder),
    ],
)
def test_each_callback_says_that_it_needs_a_trainer(make, tmp_path):
    callback = make(tmp_path)
    callback.set_model(conv_net())
    name = type(callback).__name__
    with pytest.raises(ValueError, match=f"`{name}` needs a .*Received: a mod"):
        callback.on_train_begin()
