"""Launchers that are killed by a signal, and go on with --resume."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pyarrow.parquet as parquet
import pytest

import keras_epsched as ke

_LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
_KILLS = 20


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A network with dropout, stochastic depth and BatchNorm."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.Conv2D(8, 3, 2, padding="same")(x)
    branch = layers.Conv2D(8, 3, padding="same")(x)
    branch = layers.BatchNormalization(momentum=0.9)(branch)
    branch = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(branch)
    x = layers.GlobalAveragePooling2D()(layers.add([x, branch]))
    x = layers.Dropout(0.2)(x)
    path = tmp_path_factory.mktemp("backbone") / "net.keras"
    keras.Model(inputs, layers.Dense(10)(x)).save(path)
    return path


def command(script, backbone, output, *flags):
    """A short run, which backs up after every step."""
    return [
        sys.executable,
        str(_LAUNCH / script),
        f"--backbone={backbone}",
        f"--output={output}",
        "--scale=1",
        "--offset=0",
        "--image_size=16",
        "--batch_size=16",
        "--augment=flip,color",
        "--epochs=3",
        "--update_freq=batch",
        "--train_steps=1",
        "--eval_steps=2",
        "--num_epsilons=3",
        "--test_examples=200",
        "--probe_epochs=1",
        "--deterministic",
        "--backup_minutes=1e-9",
        "--resume",
        *flags,
    ]


def run(*arguments):
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_and_kill(seconds, *arguments):
    """Starts a run and kills it; returns whether it had ended before."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def left_in(folder):
    """What a kill has left, in short."""
    names = ("backups/*", "history.json", "evaluation.json", "report.json")
    return [path.name for each in names for path in sorted(folder.glob(each))]


def assert_same(folder, other):
    """All results are equal bit by bit."""
    for name in ("history.csv", "history.json"):
        assert (folder / name).read_text() == (other / name).read_text()
    weights, others = (
        ke.models.load(each / "model.keras").get_weights()
        for each in (folder, other)
    )
    for mine, its in zip(weights, others, strict=True):
        np.testing.assert_array_equal(mine, its)
    tables = [
        parquet.read_table(each / "per_image.parquet")
        for each in (folder, other)
    ]
    assert tables[0].equals(tables[1])
    reports = [ke.Report.load(each) for each in (folder, other)]
    np.testing.assert_array_equal(reports[0].accuracy, reports[1].accuracy)
    assert not (folder / "backups").exists()


@pytest.mark.slow
def test_twenty_kills_change_nothing(backbone, tmp_path):
    started = time.monotonic()
    run("finetune.py", backbone, tmp_path / "whole")
    whole = time.monotonic() - started
    draws = random.Random(0)
    kills = runs = 0
    while kills < _KILLS:
        output = tmp_path / f"killed{runs}"
        runs += 1
        # From the imports to the pictures.
        while kills < _KILLS:
            started = time.monotonic()
            seconds = draws.uniform(0.3 * whole, 0.95 * whole)
            if run_and_kill(seconds, "finetune.py", backbone, output):
                # The machine has become faster.
                whole = min(whole, time.monotonic() - started)
                break
            kills += 1
            print(f"killed after {seconds:.1f} s: {left_in(output)}")
        run("finetune.py", backbone, output)
        assert_same(output, tmp_path / "whole")


@pytest.mark.slow
def test_a_comparison_goes_on_with_its_arms(backbone, tmp_path):
    rates = "--learning_rates=1e-3,3e-3"
    started = time.monotonic()
    run("compare.py", backbone, tmp_path / "whole", rates)
    whole = time.monotonic() - started
    output = tmp_path / "killed"
    for share in (0.4, 0.6, 0.8):
        run_and_kill(share * whole, "compare.py", backbone, output, rates)
    text = run("compare.py", backbone, output, rates)
    results = [
        (each / "results.json").read_text()
        for each in (output, tmp_path / "whole")
    ]
    assert results[0] == results[1]
    assert "expected robustness" in text


def test_a_finished_run_is_read(tmp_path):
    # LoRA's update is merged when it is saved: other weights, same network.
    layers = keras.layers
    inputs = keras.Input((16, 16, 3))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    x = layers.Dense(16, activation="relu", name="query")(x)
    backbone = tmp_path / "net.keras"
    keras.Model(inputs, layers.Dense(10)(x)).save(backbone)
    output = tmp_path / "run"
    arguments = "finetune.py", backbone, output, "--adaptation=lora"
    run(*arguments)
    before = (output / "report.json").read_text()
    config = json.loads((output / "config.json").read_text())
    run(*arguments)
    assert (output / "report.json").read_text() == before
    after = json.loads((output / "config.json").read_text())
    assert after["versions"] == config["versions"]
    assert len(after["splits"]) == 3


@pytest.mark.slow
def test_two_runs_at_once_and_other_flags_are_refused(backbone, tmp_path):
    output = tmp_path / "run with spaces ü"
    first = subprocess.Popen(
        command("finetune.py", backbone, output, "--epochs=500"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not list(output.glob("backups/*.npz")):
            assert first.poll() is None
            time.sleep(0.2)
        second = subprocess.run(
            command("finetune.py", backbone, output, "--epochs=500"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert "another run is under way" in second.stderr
    finally:
        first.kill()
        first.wait()
    # The lock of the one that was killed is gone.
    third = subprocess.run(
        command("finetune.py", backbone, output, "--epochs=2"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert third.returncode == 1
    assert "--epochs: stored 500, received 2" in third.stderr
