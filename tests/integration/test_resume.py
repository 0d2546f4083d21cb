"""Launchers that are killed by a signal, and go on with --resume."""

import contextlib
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
from keras_epsched.runs import finetuning

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
        "--eval_attack=apgd",
        "--eval_steps=2",
        "--num_epsilons=3",
        "--test_examples=200",
        "--probe_epochs=1",
        "--reestimate_batchnorm",
        "--deterministic",
        "--backup_minutes=1e-9",
        "--resume",
        *flags,
    ]


def run(*arguments, code=0):
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def start(*arguments):
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def has_written(folder, since):
    """Whether there is a result that is newer than a process."""
    names = ("backups/*", "*/*/backups/*", "history.json", "*/*/history.json")
    names += ("parts/*", "*/*/*/parts/*", "report.json", "*/*/*/report.json")
    times = []
    for each in names:
        # Backups and parts come and go, also while they are looked at.
        with contextlib.suppress(FileNotFoundError):
            times += [path.stat().st_mtime for path in folder.glob(each)]
    return max(times, default=0) > since


def run_and_kill(seconds, script, backbone, output, *flags):
    """Kills a run, so long after it began to write; or finds that it ended.

    Returns:
        Whether it was killed.
    """
    since = time.time()
    process = start(script, backbone, output, *flags)
    while process.poll() is None and not has_written(output, since):
        time.sleep(0.02)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() != 0


def left_in(folder):
    """What a kill has left, in short."""
    names = ("backups/*", "history.json", "evaluation.json", "report.json")
    return [path.name for each in names for path in sorted(folder.glob(each))]


def assert_same(folder, other):
    """All results are equal bit by bit."""
    for name in ("history.csv", "history.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
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
    run("finetune.py", backbone, tmp_path / "whole")
    draws = random.Random(0)
    kills, moments = 0, set()
    while kills < _KILLS:
        output = tmp_path / f"killed at {kills}"
        # Most of the time goes into the first epoch, which is compiled.
        while kills < _KILLS and run_and_kill(
            draws.uniform(0, 4), "finetune.py", backbone, output
        ):
            kills += 1
            left = left_in(output)
            moments.add(tuple(left))
            print(f"killed, and left {left}")
        run("finetune.py", backbone, output)
        assert_same(output, tmp_path / "whole")
    # Not all at the same place.
    assert len(moments) > _KILLS / 4


@pytest.mark.slow
def test_a_comparison_goes_on_with_its_arms(backbone, tmp_path):
    rates = "--learning_rate=1e-3,3e-3"
    whole, output = tmp_path / "whole", tmp_path / "killed"
    run("compare.py", backbone, whole, rates)
    for seconds in (1, 9, 6):
        assert run_and_kill(seconds, "compare.py", backbone, output, rates)
        print(sorted(str(each) for each in output.glob("seed0/*/*")))
    text = run("compare.py", backbone, output, rates)
    results = [(each / "results.json").read_text() for each in (output, whole)]
    assert results[0] == results[1]
    assert "expected robustness" in text


@pytest.mark.ci
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
    assert "resumed" not in run(*arguments)
    before = (output / "report.json").read_text()
    config = json.loads((output / "config.json").read_text())
    assert f"resumed: the training in {output} is finished" in run(*arguments)
    assert (output / "report.json").read_text() == before
    after = json.loads((output / "config.json").read_text())
    assert after["versions"] == config["versions"]
    assert len(after["splits"]) == 3


@pytest.mark.ci
def test_a_training_tells_that_it_resumes(tmp_path, capsys):
    class Interrupted(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    config = ke.runs.Config(epochs=3, train_steps=1)
    scheduler = ke.callbacks.EpsilonScheduler(ke.schedules.Constant(0.0))
    arguments = config, scheduler, 1e-3, 0, tmp_path
    with pytest.raises(KeyboardInterrupt):
        finetuning.train(*arguments, callbacks=[Interrupted()])
    assert "resumed" not in capsys.readouterr().out
    finetuning.train(*arguments)
    assert "resumed: 2 of 3 epochs are done\n" in capsys.readouterr().out


@pytest.mark.slow
def test_two_runs_at_once_and_other_flags_are_refused(backbone, tmp_path):
    output = tmp_path / "run with spaces ü"
    arguments = "finetune.py", backbone, output
    first = start(*arguments, "--epochs=500")
    try:
        while not list(output.glob("backups/*.npz")):
            assert first.poll() is None
            time.sleep(0.2)
        text = run(*arguments, "--epochs=500", code=1)
        assert "another run is under way" in text
    finally:
        first.kill()
        first.wait()
    # The lock of the one that was killed is gone.
    text = run(*arguments, "--epochs=2", code=1)
    assert "--epochs: stored 500, received 2" in text
