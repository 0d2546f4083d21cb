"""The search, with the shortest settings; needs the extra `study`."""

import json
import pathlib
import subprocess
import sys

import pytest

_LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"


def _run(script, *flags, code=0):
    done = subprocess.run(
        [sys.executable, str(_LAUNCH / script), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_bad_searches_are_told(tmp_path):
    text = _run("tune.py", "--lowest=1", "--highest=0.1", code=1)
    assert "--lowest must be positive and below" in text
    assert "run by tune.py" in _run("tune_trial.py", code=1)


@pytest.mark.slow
def test_a_search_writes_a_recipe_and_goes_on(tmp_path):
    pytest.importorskip("ray")
    output = tmp_path / "search"
    flags = ["--trials=2", "--epochs=2", "--train_steps=1", "--trial_cpus=2"]
    flags += ["--lowest=1e-4", "--highest=1e-2", f"--output={output}"]
    assert "recipe.json" in _run("tune.py", *flags)
    rows = json.loads((output / "trials.json").read_text())
    assert len(rows) == 2
    assert rows[0]["score"] >= rows[1]["score"] > 0.1
    recipe = json.loads((output / "recipe.json").read_text())
    assert recipe["flags"]["learning_rate"] == rows[0]["learning_rate"]
    assert 1e-4 <= recipe["flags"]["weight_decay"] <= 1e-2
    assert recipe["flags"]["epochs"] == 2
    # Nothing is left to do, and nothing is lost.
    _run("tune.py", *flags, "--resume")
    assert json.loads((output / "trials.json").read_text()) == rows
