"""The search, with the shortest settings; needs the extra `study`."""

import functools
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


def _python(code, *arguments, fails=False):
    """Runs code beside the launchers, for their flags are of a process."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=_LAUNCH,
        capture_output=True,
        text=True,
        check=False,
    )
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def test_what_a_trial_asks_for(monkeypatch):
    monkeypatch.syspath_prepend(str(_LAUNCH))
    import ray_devices

    resources = functools.partial(ray_devices.resources, of="trial")
    one = {"cpu": 1.0, "gpu": 0.0}
    assert resources([{"CPU": 4.0}], 1.0, None) == one
    assert resources([{"CPU": 4.0}], 1.0, 0.0) == one
    machine = {"CPU": 64.0, "GPU": 2.0, "memory": 1e9}
    # One each: 64 networks would not fit on two GPUs.
    assert resources([machine], 1.0, None) == {"cpu": 1, "gpu": 1}
    assert resources([machine], 4.0, 0.25) == {"cpu": 4, "gpu": 0.25}
    with pytest.warns(UserWarning, match="on the CPU, and 2 GPU.* stand idle"):
        assert resources([machine], 1.0, 0.0) == one
    with pytest.raises(ValueError, match="--trial_gpus=1, but Ray sees 4 CPUs"):
        resources([{"CPU": 4.0}], 1.0, 1.0)
    with pytest.raises(ValueError, match="--trial_cpus=8 .*: no trial would"):
        resources([{"CPU": 4.0}], 8.0, None)
    # What two machines have together is no use.
    with pytest.raises(ValueError, match="4 CPUs, 2 GPUs; 4 CPUs, 2 GPUs"):
        resources([{"CPU": 4.0, "GPU": 2.0}] * 2, 1.0, 4.0)


# Two trials in one process, as Ray may have them, with its part left out.
_TRIALS = """
import json, sys, types
reported, loaded = [], []
ray = types.ModuleType("ray")
ray.tune = types.SimpleNamespace(report=reported.append)
sys.modules["ray"] = ray
import common, tune_trial
load = common.load_data
common.load_data = lambda seed: loaded.append(seed) or load(seed)
flags = ["--train_steps=1", "--num_epsilons=3"]
flags += ["--epochs=3", "--select_images=80", "--seed=5"]
draw = {"learning_rate": 1e-3}
tune_trial.run(draw, flags, "expected_robustness", 30.0, {"cpu": 1, "gpu": 0})
first = [*reported], [*loaded]
reported.clear()
tune_trial.run(draw, flags, "clean", 0.0, {"cpu": 1, "gpu": 0})
import os
assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
print(json.dumps([*first, reported]))
"""


@pytest.mark.slow
def test_a_trial_reports_each_epoch_within_its_budget():
    reported, loaded, without_time = json.loads(
        _python(_TRIALS).splitlines()[-1]
    )
    assert len(reported) == 3 and len(without_time) == 1
    assert all(0 <= each["score"] <= 1 for each in reported + without_time)
    # To train on, and for all the reports.
    assert loaded == [5, 5]


_DRIVER = """
import os
import common, run_folders, tune
tune.FLAGS(["tune"])
name = "CUDA_VISIBLE_DEVICES"
common.prepare = lambda _: [os.environ[name]]
for before in ("0,1", None):
    os.environ.pop(name, None)
    os.environ.update({} if before is None else {name: before})
    assert tune.open_folder() == "-1"
    assert os.environ.get(name) == before
"""


def test_the_driver_leaves_the_gpus_to_the_trials():
    _python(_DRIVER)


_RESUME = """
import pathlib, sys
import common, run_folders, tune
path, first, second = sys.argv[1:]
tune.FLAGS(["tune", *first.split()])
config = pathlib.Path(path) / "config.json"
if not config.exists():
    run_folders.write_config(config.parent)
tune.FLAGS.unparse_flags()
tune.FLAGS(["tune", *second.split()])
may_differ = (*run_folders.MAY_DIFFER, *tune.MAY_DIFFER)
run_folders.check_flags_as_stored(config, may_differ)
"""


def test_a_search_goes_on_with_its_own_flags(tmp_path):
    first = "--trials=4 --epochs=3 --epsilon=4/255 --augment=flip,color"
    exempt = "--resume --output=elsewhere --trial_minutes=3 --trial_cpus=2"
    _python(_RESUME, tmp_path, first, f"{first} {exempt} --trial_gpus=0.5")
    other = "--trials=5 --epochs=3 --epsilon=4/255 --augment=flip --seed=1"
    text = _python(_RESUME, tmp_path, first, other, fails=True)
    error = text[text.index("ValueError") :]
    assert "--trials: stored 4, received 5" in error
    assert "--augment: stored ['flip', 'color'], received ['flip']" in error
    assert "--seed: stored 0, received 1" in error
    assert error.count("stored") == 3 and "--epsilon" not in error
    (tmp_path / "config.json").write_text("{}")
    text = _python(_RESUME, tmp_path, first, first, fails=True)
    assert "cannot be read" in text


@pytest.mark.ci
def test_an_older_run_does_not_go_on_by_another_attack(tmp_path):
    _python(_RESUME, tmp_path, "", "")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    # As it was before there was the default of today.
    config["flags"]["eval_attack"] = "apgd"
    del config["flags"]["bisect"]
    path.write_text(json.dumps(config))
    error = _python(_RESUME, tmp_path, "", "", fails=True)
    assert "--eval_attack: stored 'apgd', received 'margin_ensemble'" in error
    assert "--bisect: stored False, received None" in error
    _python(_RESUME, tmp_path, "", "--eval_attack=apgd --nobisect")


_DRAWS = """
import json, sys
import tune
tune.FLAGS(["tune", *sys.argv[1:]])
spec = {"run": lambda config: None, "config": tune.make_space()}
generator = tune.make_generator()
generator.add_configurations({"search": {**spec, "num_samples": 2}})
print(json.dumps([generator.next_trial().config for _ in range(2)]))
"""


def draws(*flags):
    return json.loads(_python(_DRAWS, *flags).splitlines()[-1])


def test_draws_repeat_with_the_seed():
    pytest.importorskip("ray")
    first = draws("--seed=3", "--tune_head")
    assert draws("--seed=3", "--tune_head") == first
    assert set(first[0]) == {"learning_rate", "weight_decay", "head_multiplier"}
    other = draws("--seed=4", "--tune_head")
    assert len({draw["learning_rate"] for draw in first + other}) == 4


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
    rates = {row["learning_rate"] for row in rows}
    assert rates == {draw["learning_rate"] for draw in draws(*flags)}
    assert rows[0]["score"] >= rows[1]["score"] > 0.1
    recipe = json.loads((output / "recipe.json").read_text())
    assert recipe["flags"]["learning_rate"] == rows[0]["learning_rate"]
    assert 1e-4 <= recipe["flags"]["weight_decay"] <= 1e-2
    assert recipe["flags"]["epochs"] == 2
    # Nothing is left to do, and nothing is lost.
    _run("tune.py", *flags, "--resume", "--trial_minutes=5")
    assert json.loads((output / "trials.json").read_text()) == rows
    text = _run("tune.py", *flags, "--resume", "--seed=1", code=1)
    assert "--seed: stored 0, received 1" in text
