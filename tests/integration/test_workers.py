"""Training in two processes on JAX, and what happens when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import keras_epsched as ke

_WORKER = """
import json, os, pathlib, sys
import keras

folder, addresses, index = pathlib.Path(sys.argv[1]), *sys.argv[2:4]
index = int(index)
options = json.loads(sys.argv[4])
count = len(addresses.split(","))
if count > 1:
    keras.distribution.initialize(addresses, count, index)
keras.distribution.set_distribution(
    keras.distribution.DataParallel(auto_shard_dataset=False)
)
import jax
import keras_epsched as ke
import numpy as np

assert jax.process_count() == count and jax.process_index() == index
keras.utils.set_random_seed(0)
layers = keras.layers
network = keras.Sequential(
    [
        keras.Input((16, 16, 3)),
        layers.Rescaling(1 / 127.5, -1),
        layers.Conv2D(8, 3, 2),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.Dropout(0.2),
        layers.Flatten(),
        layers.Dense(10),
    ]
)
data = ke.datasets.load(
    "digits", image_size=(16, 16), batch_size=64, augment=("color",), seed=0
)
train = ke.datasets.worker_rows(data.train, index, count)
trainer = ke.AdversarialTrainer(network, ke.attacks.PGD(2), seed=0)
trainer.compile(
    optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
schedule = ke.schedules.TwoHinge(0.1, 0.0, 0.5)
history = trainer.fit(
    train,
    validation_data=ke.datasets.worker_rows(data.validation, index, count),
    epochs=options["epochs"],
    shuffle=False,
    verbose=0,
    callbacks=[
        ke.callbacks.EpsilonScheduler(schedule, "batch"),
        ke.callbacks.ExactBackup(folder / "backups", every_steps=5),
    ],
).history
report = ke.evaluate(
    network,
    data.test,
    [0.0, 0.02, 0.05],
    ke.attacks.PGD(3),
    shard=(index, count),
    folder=folder / f"report{index}",
    batch_size=64,
    verbose=0,
)
np.savez(
    folder / f"end{index}.npz",
    loss=history["loss"],
    accuracy=history["accuracy"],
    validation=history["val_loss"],
    epsilon=history["epsilon"],
    **{f"w{i}": np.asarray(w) for i, w in enumerate(network.get_weights())},
)
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(folder, count, **options):
    """Starts all the workers of a training."""
    folder.mkdir(exist_ok=True)
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(count))
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    }
    options = json.dumps({"epochs": 3, **options})
    return [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, folder, addresses, str(index)]
            + [options],
            stderr=open(folder / f"error{index}.txt", "w"),
            env=environment,
        )
        for index in range(count)
    ]


def end(folder, processes):
    codes = [process.wait(300) for process in processes]
    errors = [each.read_text() for each in sorted(folder.glob("error*"))]
    assert codes == [0] * len(codes), errors
    return [np.load(folder / f"end{i}.npz") for i in range(len(codes))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("alone")
    return folder, end(folder, start(folder, 1))[0]


def assert_same(one, other, **tolerance):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_allclose(
            one[name], other[name], err_msg=name, **tolerance
        )


@pytest.mark.slow
def test_two_workers_agree_with_one(alone, tmp_path):
    folder, whole = alone
    first, second = end(tmp_path, start(tmp_path, 2))
    # Random starts, augmentation and BatchNorm over the whole batch included.
    # Of the validation, images may be left out that do not divide.
    assert_same(dict(first), dict(second), rtol=1e-6)
    validation = dict(whole), dict(first)
    losses = [each.pop("validation") for each in validation]
    np.testing.assert_allclose(*losses, rtol=0.05)
    assert_same(*validation, rtol=2e-3, atol=2e-4)
    shards = [ke.Report.load(tmp_path / f"report{i}") for i in range(2)]
    report = ke.Report.load(folder / "report0")
    merged = ke.evaluation.merge(shards)
    assert merged.num_images == report.num_images
    np.testing.assert_array_equal(merged.image_ids, report.image_ids)
    # The weights differ by rounding.
    np.testing.assert_allclose(merged.accuracy, report.accuracy, atol=0.005)


@pytest.mark.slow
def test_a_dead_worker_is_reported_and_the_training_goes_on(tmp_path):
    whole = end(tmp_path / "whole", start(tmp_path / "whole", 2, epochs=20))
    folder = tmp_path / "killed"
    workers = start(folder, 2, epochs=20)
    while not list(folder.glob("backups/backup-000002-*.npz")):
        assert workers[0].poll() is None, (folder / "error0.txt").read_text()
        time.sleep(0.02)
    workers[1].send_signal(signal.SIGKILL)
    # It does not wait for ever.
    assert workers[0].wait(200) != 0
    assert (folder / "error0.txt").read_text()
    assert not (folder / "end0.npz").exists()
    resumed = end(folder, start(folder, 2, epochs=20))
    for one, other in zip(whole, resumed, strict=True):
        assert_same(dict(one), dict(other), rtol=1e-6)


def test_rows_of_a_batch(tmp_path):
    data = ke.datasets.load("digits", image_size=(8, 8), batch_size=30)
    for split in (data.train, data.test):
        parts = [ke.datasets.worker_rows(split, i, 4) for i in range(4)]
        assert all(each.split_info == split.split_info for each in parts)
        if hasattr(split, "seek"):
            split.seek(3)
            batches = list(split)
            mine = []
            for each in parts:
                each.seek(3)
                mine.append(list(each))
        else:
            batches, mine = list(split), [list(each) for each in parts]
        for index, (images, labels) in enumerate(batches):
            kept = len(labels) // 4 * 4
            taken = zip(*(batches[index] for batches in mine), strict=True)
            found = [np.concatenate(each) for each in taken]
            np.testing.assert_array_equal(found[0], images[:kept])
            np.testing.assert_array_equal(found[1], labels[:kept])
    # 360 images in batches of 30 do not divide by 4 times 2 devices.
    part = ke.datasets.worker_rows(data.train, 1, 4, devices=2)
    assert {len(labels) for _, labels in part} == {6}
    with pytest.raises(ValueError, match="below `count`"):
        ke.datasets.worker_rows(data.train, 2, 2)
    with pytest.raises(ValueError, match="Received: list"):
        ke.datasets.worker_rows([1], 0, 2)


@pytest.mark.parametrize("kind", ["tf.data", "batches"])
def test_no_batch_is_empty(kind):
    images = np.arange(9 * 12).reshape(9, 2, 2, 3).astype("uint8")
    labels = np.arange(9)
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    else:
        examples = list(zip(images, labels, strict=True))
        batches = ke.datasets.ImageBatches(examples, (2, 2), 4)
    parts = [list(ke.datasets.worker_rows(batches, i, 2)) for i in range(2)]
    assert [len(part) for part in parts] == [2, 2]
    found = [int(i) for b in zip(*parts, strict=True) for p in b for i in p[1]]
    assert found == list(range(8))


_TWO_DEVICES = """
import os
os.environ["KERAS_BACKEND"], os.environ["JAX_PLATFORMS"] = "jax", "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import keras
keras.distribution.set_distribution(keras.distribution.DataParallel())
import keras_epsched as ke
layers = keras.layers
network = keras.Sequential(
    [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Flatten()]
    + [layers.Dense(10)]
)
data = ke.datasets.load("digits", image_size=(8, 8), batch_size=64)
trainer = ke.AdversarialTrainer(network, ke.attacks.PGD(1))
trainer.compile(
    "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
history = trainer.fit(
    data.train,
    validation_data=ke.datasets.worker_rows(data.validation, 0, 1, 2),
    shuffle=False,
    verbose=0,
    callbacks=[ke.callbacks.EpsilonScheduler(ke.schedules.Constant(0.1))],
).history
assert 0 < history["val_loss"][0] < 10, history
report = ke.evaluate(network, data.test, [0.0, 0.1], ke.attacks.PGD(1))
assert report.num_images == 500
"""


@pytest.mark.slow
def test_two_devices_of_one_process():
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
