"""The search, with the shortest settings; needs the extra `study`."""

import functools
import json
import os
import types

import pytest

from keras_epsched import runs, studies
from keras_epsched.runs import build
from keras_epsched.runs import folder as run_folder
from keras_epsched.studies import devices, trial, tuning


def test_what_a_trial_asks_for():
    resources = functools.partial(devices.resources, of="trial")
    one = {"cpu": 1.0, "gpu": 0.0}
    assert resources([{"CPU": 4.0}], 1.0, None) == one
    assert resources([{"CPU": 4.0}], 1.0, 0.0) == one
    machine = {"CPU": 64.0, "GPU": 2.0, "memory": 1e9}
    # One each: 64 networks would not fit on two GPUs.
    assert resources([machine], 1.0, None) == {"cpu": 1, "gpu": 1}
    assert resources([machine], 4.0, 0.25) == {"cpu": 4, "gpu": 0.25}
    with pytest.warns(
        UserWarning, match="on the CPU, and 2 GPU.* are not used"
    ):
        assert resources([machine], 1.0, 0.0) == one
    with pytest.raises(ValueError, match="trial_gpus=1, but Ray sees 4 CPUs"):
        resources([{"CPU": 4.0}], 1.0, 1.0)
    with pytest.raises(ValueError, match="trial_cpus=8 .*: no trial would"):
        resources([{"CPU": 4.0}], 8.0, None)
    # What two machines have together is no use.
    with pytest.raises(ValueError, match="4 CPUs, 2 GPUs; 4 CPUs, 2 GPUs"):
        resources([{"CPU": 4.0, "GPU": 2.0}] * 2, 1.0, 4.0)


@pytest.fixture
def environment(monkeypatch):
    """The environment of the process, which a trial changes."""
    with monkeypatch.context() as patch:
        for name in list(os.environ):
            patch.setenv(name, os.environ[name])
        before = dict(os.environ)
        yield patch
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.slow
def test_a_trial_reports_each_epoch_within_its_budget(environment):
    tune = pytest.importorskip("ray.tune")
    reported, loaded = [], []
    environment.setattr(tune, "report", reported.append)
    load = build.load_data
    environment.setattr(
        build,
        "load_data",
        lambda config, seed: loaded.append(seed) or load(config, seed),
    )
    config = studies.Search(
        train_steps=1,
        num_epsilons=3,
        epochs=3,
        select_images=80,
        seed=5,
        select="expected_robustness",
    )
    draw, resources = {"learning_rate": 1e-3}, {"cpu": 1, "gpu": 0}
    trial.run(draw, config, resources)
    # To train on, and for all the reports.
    assert len(reported) == 3 and loaded == [5, 5]
    trial.run(draw, config.replace(select="clean", trial_minutes=0), resources)
    assert len(reported) == 4
    assert all(0 <= each["score"] <= 1 for each in reported)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"


@pytest.mark.parametrize("before", ["0,1", None])
def test_the_driver_leaves_the_gpus_to_the_trials(
    before, monkeypatch, environment
):
    name = "CUDA_VISIBLE_DEVICES"
    os.environ.pop(name, None)
    os.environ.update({} if before is None else {name: before})
    seen = []

    class Prepared:
        def __enter__(self):
            seen.append(os.environ[name])
            return types.SimpleNamespace(folder=None, config=None)

        def __exit__(self, *details):
            pass

    monkeypatch.setattr(tuning, "prepared", lambda *args, **more: Prepared())
    with tuning._opened(studies.Search(), None):
        assert os.environ.get(name) == before
    assert seen == ["-1"]


def draws(**values):
    config = studies.Search(**values)
    spec = {"run": lambda config: None, "config": tuning.make_space(config)}
    generator = tuning.make_generator(config)
    generator.add_configurations({"search": {**spec, "num_samples": 2}})
    return [generator.next_trial().config for _ in range(2)]


def test_draws_repeat_with_the_seed():
    pytest.importorskip("ray")
    first = draws(seed=3, tune_head=True)
    assert draws(seed=3, tune_head=True) == first
    assert set(first[0]) == {"learning_rate", "weight_decay", "head_multiplier"}
    other = draws(seed=4, tune_head=True)
    assert len({draw["learning_rate"] for draw in first + other}) == 4


def test_a_recipe_is_what_a_config_takes(tmp_path):
    config = studies.Search(epochs=7, augment="flip", eval_attack="apgd")
    best = {"learning_rate": 1e-4, "weight_decay": 1e-3}
    row = {**best, "score": 0.5, "epochs": 7, "seconds": 1.0}
    path = tuning.write_recipe(config, tmp_path, row)
    found = runs.Config(recipe=str(path))
    assert (found.learning_rate, found.weight_decay) == (1e-4, 1e-3)
    assert (found.epochs, found.augment) == (7, ("flip",))
    # Schedule and final attack are not the search's to choose.
    assert found.schedule == runs.Config().schedule != config.schedule
    assert found.eval_attack == "margin_ensemble"
    assert "best of 16 trials by clean" in path.read_text()


def test_bad_searches_are_told(tmp_path):
    with pytest.raises(ValueError, match="`lowest` must be positive and below"):
        studies.search(studies.Search(lowest=1, highest=0.1))
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="leave out `resume`"):
        studies.search(studies.Search(resume=True, output=str(tmp_path)))


@pytest.mark.slow
def test_a_search_writes_a_recipe_and_goes_on(tmp_path):
    ray = pytest.importorskip("ray")
    values = {"trials": 2, "epochs": 2, "lowest": 1e-4, "highest": 1e-2}
    config = studies.Search(
        train_steps=1, trial_cpus=2, output=str(tmp_path / "search"), **values
    )
    found = studies.search(config)
    rows = json.loads((found.folder / "trials.json").read_text())
    assert len(rows) == 2
    rates = {row["learning_rate"] for row in rows}
    assert rates == {draw["learning_rate"] for draw in draws(**values)}
    assert rows[0]["score"] >= rows[1]["score"] > 0.1
    recipe = json.loads(found.recipe.read_text())
    assert recipe["flags"]["learning_rate"] == rows[0]["learning_rate"]
    assert 1e-4 <= recipe["flags"]["weight_decay"] <= 1e-2
    assert recipe["flags"]["epochs"] == 2
    ray.shutdown()
    # Nothing is left to do, and nothing is lost.
    again = config.replace(resume=True, trial_minutes=5)
    studies.search(again)
    assert json.loads((found.folder / "trials.json").read_text()) == rows
    ray.shutdown()
    with pytest.raises(ValueError, match="seed: stored 0, received 1"):
        run_folder.as_begun(
            again.replace(seed=1), found.folder / run_folder.CONFIG
        )
