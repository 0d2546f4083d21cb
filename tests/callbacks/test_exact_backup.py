"""A training that was killed ends as the one that was not."""

import errno
import os
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from networks import not_on, only_on

import keras_epsched as ke
from keras_epsched.callbacks import backup_files, callback_states

SIZE, CLASSES, BATCH, STEPS, EPOCHS = 8, 3, 8, 5, 3


class Killed(Exception):
    """Stands for a signal."""


class Kill(keras.callbacks.Callback):
    """Ends the process, so to speak, after a step."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = epoch, batch
        self.epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed


def network():
    """Dropout, stochastic depth, and statistics that move."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.Conv2D(4, 3, padding="same")(x)
    branch = layers.Conv2D(4, 3, padding="same")(x)
    branch = layers.BatchNormalization(momentum=0.9)(branch)
    branch = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(branch)
    x = layers.GlobalAveragePooling2D()(layers.add([x, branch]))
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def batches(seed=0, shuffle=True):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, BATCH * STEPS + 3)
    images = rng.integers(0, 200, (len(labels), SIZE, SIZE, 3)).astype("uint8")
    images[..., 0] += (20 * labels[:, None, None]).astype("uint8")
    examples = list(zip(images, labels, strict=True))
    return ke.datasets.ImageBatches(
        examples, (SIZE, SIZE), BATCH, shuffle=shuffle, augment=("flip",)
    )


def trainer(objective="adversarial", **kwargs):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = ke.AdversarialTrainer(
        network(),
        ke.attacks.FGSM(random_start=True),
        objective=objective,
        validation_attack=ke.attacks.FGSM(),
        clean_accuracy=True,
        seed=1,
    )
    model.compile(
        keras.optimizers.AdamW(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **kwargs,
    )
    return model


def train(folder, *callbacks, model=None, backup=None, schedulers=None):
    """A training, and all that it leaves."""
    backup = backup or ke.callbacks.ExactBackup(folder, 2, None)
    model = model or trainer()
    schedule = ke.schedules.TwoHinge(0.1)
    schedulers = schedulers or [
        ke.callbacks.EpsilonScheduler(schedule, "batch")
    ]
    history = model.fit(
        batches(),
        validation_data=batches(1, shuffle=False),
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[
            backup,
            *schedulers,
            *callbacks,
        ],
    )
    return history.history, [
        ops.convert_to_numpy(each)
        for each in (*model.variables, *model.optimizer.variables)
    ]


def assert_same(found, expected):
    assert found[0] == expected[0]
    for its, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(its, other)


def killed(folder, *at, **kwargs):
    with pytest.raises(Killed):
        train(folder, Kill(*at), **kwargs)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with warnings.catch_warnings():
        # A few steps are no training.
        warnings.filterwarnings("ignore", message=".*do not fit")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "kills",
    [
        # Before the first backup.
        pytest.param([(0, 0)], marks=pytest.mark.ci),
        pytest.param(
            [(0, 2), (0, 4), (1, 0), (1, 0), (2, 3)], marks=pytest.mark.ci
        ),
        [(1, 2)],
    ],
)
def test_a_killed_training_goes_on_exactly(whole, kills, tmp_path):
    for at in kills:
        killed(tmp_path, *at)
    assert_same(train(tmp_path), whole)


@pytest.mark.ci
def test_an_objective_with_weights_of_its_own(tmp_path):
    def made():
        # The network is small.
        return trainer(ke.training.AutoLoRa(rank=2))

    # With a schedule that remembers, too.
    given = {"schedulers": [ke.callbacks.PacedEpsilonScheduler(0.1)]}
    expected = train(tmp_path / "whole", model=made(), **given)
    killed(tmp_path / "killed", 1, 3, model=made(), **given)
    found = train(tmp_path / "killed", model=made(), **given)
    assert_same(found, expected)
    assert found[0]["epsilon"][-1] > 0


@pytest.mark.ci
def test_the_optimizer_is_there_before(whole, tmp_path):
    killed(tmp_path, 1, 3)
    model = trainer()
    model.optimizer.build(model.trainable_variables)
    assert_same(train(tmp_path, model=model), whole)


@pytest.mark.ci
def test_steps_that_are_passed_over_are_not_backed_up(whole, tmp_path):
    def often():
        return ke.callbacks.ExactBackup(tmp_path, None, every_minutes=1e-9)

    killed(None, 1, 3, backup=often())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    killed(None, 1, 2, backup=often())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_same(train(None, backup=often()), whole)


@pytest.mark.ci
def test_a_finished_training_is_given_back(whole, tmp_path):
    train(tmp_path)
    steps = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    assert_same(train(tmp_path, count), whole)
    assert not steps


@pytest.mark.ci
@not_on("torch", "Keras has one step a call there")
def test_steps_that_are_executed_together(tmp_path):
    expected = train(tmp_path / "whole", model=trainer(steps_per_execution=2))
    killed(tmp_path, 1, 3, model=trainer(steps_per_execution=2))
    model = trainer(steps_per_execution=2)
    assert_same(train(tmp_path, model=model), expected)


@pytest.mark.ci
def test_pipelines_of_tensorflow(tmp_path):
    pytest.importorskip("tensorflow")

    def load():
        # Whatever else has drawn before.
        return ke.datasets.load(
            "digits", image_size=(SIZE, SIZE), batch_size=256, augment=True
        ).train

    def digits():
        model = ke.AdversarialTrainer(
            keras.Sequential(
                [
                    keras.Input((SIZE, SIZE, 3)),
                    keras.layers.Rescaling(1 / 255),
                    keras.layers.Flatten(),
                    keras.layers.Dropout(0.2, seed=3),
                    keras.layers.Dense(10),
                ]
            ),
            ke.attacks.PGD(1),
            seed=0,
        )
        model.compile(
            "adam",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        keras.utils.set_random_seed(0)
        return model

    def run(folder, *callbacks):
        keras.utils.set_random_seed(0)
        model = digits()
        model.fit(
            load(),
            epochs=2,
            verbose=0,
            shuffle=False,
            callbacks=[
                ke.callbacks.EpsilonScheduler(ke.schedules.Constant(0.1)),
                ke.callbacks.ExactBackup(folder, 1, None),
                *callbacks,
            ],
        )
        return model.get_weights()

    expected = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path, Kill(1, 2))
    for its, other in zip(run(tmp_path), expected, strict=True):
        np.testing.assert_array_equal(its, other)


@pytest.mark.ci
@not_on("torch", "dropout draws from a generator that Keras does not save")
def test_backup_and_restore_of_keras_is_exact_from_an_epoch_on(whole, tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path)

    killed(None, 1, 3, backup=backup())
    _, found = train(None, backup=backup())
    for its, other in zip(found, whole[1], strict=True):
        np.testing.assert_array_equal(its, other)


# === Files ===


@pytest.mark.ci
def test_a_corrupt_backup_falls_back_to_the_one_before(whole, tmp_path):
    killed(tmp_path, 1, 4)
    *_, last = sorted(tmp_path.glob("*.npz"))
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0xFF
    last.write_bytes(content)
    # Half a file, of a kill while it was written, is no backup.
    (tmp_path / ".backup-000002-000000000.12ab.tmp.npz").write_bytes(b"half")
    with pytest.warns(UserWarning, match=f"corrupt.*{last.name}"):
        found = train(tmp_path)
    assert_same(found, whole)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 what is this"])
def test_no_backup_can_be_read(content, tmp_path):
    for epoch in (1, 2):
        path = tmp_path / f"backup-00000{epoch}-000000000.npz"
        path.write_bytes(content)
    with pytest.raises(ValueError, match="move them away"):
        train(tmp_path)


def test_nothing_is_executed_that_a_backup_holds(tmp_path):
    # An object array is a pickle.
    np.savez(
        tmp_path / "backup-000000-000000001.npz",
        meta=np.array([{"a": 1}], dtype=object),
    )
    with pytest.raises(ValueError, match="allow_pickle=False"):
        train(tmp_path)


@pytest.mark.ci
def test_a_full_disk_loses_nothing(whole, tmp_path, monkeypatch):
    killed(tmp_path, 1, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(backup_files.np, "savez", full)
        with pytest.raises(OSError, match="No space left.*kept.*resume"):
            train(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after == before
    assert_same(train(tmp_path), whole)


@pytest.mark.ci
def test_backups_are_cleared(tmp_path):
    folder, trash = tmp_path / "backups", tmp_path / "trash"
    trash.mkdir()
    backup = ke.callbacks.ExactBackup(folder, 2, None)

    def bin_of_a_drive(batch=None, logs=None):
        # What is deleted stays there, as it was last.
        for path in folder.glob("backup-*.npz"):
            if not (trash / path.name).exists():
                os.link(path, trash / path.name)

    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=bin_of_a_drive,
        on_train_end=bin_of_a_drive,
    )
    train(folder, watch, backup=backup)
    kept = {path.name for path in folder.iterdir()}
    thrown = {path.name for path in trash.iterdir()} - kept
    assert len(kept) == 2 and len(thrown) > 2
    assert not any((trash / name).stat().st_size for name in thrown)
    assert all((trash / name).stat().st_size for name in kept)
    backup.clear()
    assert not folder.exists()
    assert not any(path.stat().st_size for path in trash.iterdir())
    backup.clear()


# === Callbacks ===


@pytest.mark.ci
def test_callbacks_remember(tmp_path):
    def callbacks(folder):
        images, labels = batches()[0]
        return [
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=5, restore_best_weights=True
            ),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1),
            ke.callbacks.RobustCheckpoint(folder / "best.keras"),
            ke.callbacks.CatastrophicOverfittingAlarm(
                images, labels, gap=0.99, action="fall_back"
            ),
        ]

    first = callbacks(tmp_path)
    expected = train(tmp_path / "whole", *first)
    with pytest.raises(Killed):
        train(tmp_path / "killed", *callbacks(tmp_path), Kill(2, 3))
    again = callbacks(tmp_path)
    found = train(tmp_path / "killed", *again)
    assert_same(found, expected)
    for its, other in zip(again, first, strict=True):
        mine, theirs = (
            callback_states.get_state(each) for each in (its, other)
        )
        assert mine.keys() == theirs.keys() != set()
        for name, value in mine.items():
            np.testing.assert_equal(value, theirs[name])


@pytest.mark.ci
def test_a_training_that_was_stopped_is_over(tmp_path):
    def stopping():
        # No epoch is better than the first by so much.
        return keras.callbacks.EarlyStopping(
            "val_loss", min_delta=99.0, patience=1, restore_best_weights=True
        )

    expected = train(tmp_path, stopping())
    assert len(expected[0]["loss"]) == 2
    assert_same(train(tmp_path, stopping()), expected)


@pytest.mark.ci
def test_an_attack_that_was_given_up_stays_so(tmp_path):
    images, labels = batches()[0]
    for last in (False, True):
        alarm = ke.callbacks.CatastrophicOverfittingAlarm(
            images, labels, action="fall_back", fallback=ke.attacks.PGD(3)
        )
        # It fires in the second epoch, whatever happens.
        alarm.on_epoch_end = lambda epoch, logs=None, alarm=alarm: (
            epoch == 1
            and (setattr(alarm, "fired_at", 2), alarm._act(epoch, 1.0, 0.0))
        )
        model = trainer()
        if last:
            train(tmp_path, alarm, model=model)
        else:
            with (
                pytest.warns(UserWarning, match="catastrophic overfitting"),
                pytest.raises(Killed),
            ):
                train(tmp_path, alarm, Kill(2, 2), model=model)
        assert model.attack == ke.attacks.PGD(3)


# === Errors ===


@pytest.mark.ci
def test_another_network_is_refused(tmp_path):
    killed(tmp_path, 1, 2)
    model = trainer()
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    with pytest.raises(ValueError, match="another network, optimizer"):
        train(tmp_path, model=model)


def test_data_without_an_order_of_its_own_is_refused(tmp_path):
    images, labels = batches()[0]
    schedule = ke.callbacks.EpsilonScheduler(ke.schedules.Constant(0.1))
    backup = ke.callbacks.ExactBackup(tmp_path)
    with pytest.raises(ValueError, match="seek.*ImageBatches"):
        trainer().fit(images, labels, verbose=0, callbacks=[schedule, backup])


def test_batches_in_an_order_of_keras_are_refused(tmp_path):
    schedule = ke.callbacks.EpsilonScheduler(ke.schedules.Constant(0.1))
    backup = ke.callbacks.ExactBackup(tmp_path)
    callbacks = [schedule, backup]
    with pytest.raises(ValueError, match="shuffle=False"):
        trainer().fit(batches(), verbose=0, callbacks=callbacks)
    with pytest.raises(ValueError, match="no `steps_per_epoch`"):
        trainer().fit(
            batches(),
            steps_per_epoch=2,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )


@not_on("torch", "Keras has one step a call there")
@pytest.mark.ci
def test_the_middle_of_another_epoch_is_refused(tmp_path):
    killed(tmp_path, 1, 3)
    with pytest.raises(ValueError, match=r"\[5, 1\]. Received: \[5, 2\]"):
        train(tmp_path, model=trainer(steps_per_execution=2))


@pytest.mark.ci
def test_the_next_training_begins_anew(tmp_path):
    train(tmp_path)
    model = trainer()
    train(tmp_path, model=model)
    model.epsilon = 0.1
    # Keras would go on with the epoch of the backup.
    history = model.fit(batches(), epochs=2, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2


@pytest.mark.ci
def test_an_interrupted_pass_over_is_forgotten(whole, tmp_path):
    killed(tmp_path, 1, 4)
    model = trainer()
    killed(tmp_path, 1, 1, model=model)
    assert_same(train(tmp_path, model=model), whole)


@pytest.mark.ci
def test_logs_may_be_anything_that_json_holds(whole, tmp_path):
    def add(epoch, logs):
        logs.update(each=np.array([1.0, epoch]), note="text")

    callback = keras.callbacks.LambdaCallback(on_epoch_end=add)
    expected = [[1.0, epoch] for epoch in range(EPOCHS)]
    with pytest.raises(Killed):
        train(tmp_path, callback, Kill(2, 3))
    history, _ = train(tmp_path, callback)
    assert [np.asarray(each).tolist() for each in history["each"]] == expected
    assert history["note"] == ["text"] * EPOCHS
    assert history["loss"] == whole[0]["loss"]


def test_a_plain_model_is_refused(tmp_path):
    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="AdversarialTrainer"):
        model.fit(
            np.zeros((2, SIZE, SIZE, 3)),
            np.zeros((2, CLASSES)),
            verbose=0,
            callbacks=[ke.callbacks.ExactBackup(tmp_path)],
        )


@pytest.mark.parametrize("argument", ["every_steps", "every_minutes"])
def test_wrong_arguments(argument, tmp_path):
    with pytest.raises(ValueError, match=argument):
        ke.callbacks.ExactBackup(tmp_path, **{argument: 0})


# === Several replicas ===

_TWO_REPLICAS = """
import sys
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
tf.config.experimental.enable_op_determinism()
sys.path[:0] = sys.argv[1], sys.argv[1] + "/callbacks"
import keras
import test_exact_backup as tests
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

# It would forget the scope.
keras.backend.clear_session = lambda: None

def made():
    with strategy.scope():
        return tests.trainer()

whole = tests.train(sys.argv[2] + "/whole", model=made())
folder = sys.argv[2] + "/killed"
tests.killed(folder, 1, 3, model=made())
found = tests.train(folder, model=made())
# What the network in inference mode gives is the same up to the kill only. Each
# replica has moving statistics of its own, and those of the first are saved.
for name in list(whole[0]):
    if name.startswith(("val_", "clean_")) or name.endswith("_inference"):
        assert whole[0].pop(name)[0] == found[0].pop(name)[0], name
tests.assert_same(found, whole)
print("equal")
"""


@only_on("tensorflow", "tf.distribute is TensorFlow's own")
@pytest.mark.slow
def test_two_replicas_go_on(tmp_path):
    here = pathlib.Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _TWO_REPLICAS, str(here), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equal" in done.stdout
