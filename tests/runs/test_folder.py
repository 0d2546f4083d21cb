"""Run folders: claimed, locked, and resumed by the same values."""

import json

import pytest

from keras_epsched.runs import (
    Comparison,
    Config,
    ConfigError,
    RunUnderWay,
    folder,
)
from keras_epsched.studies import Search


def begun(path, config):
    """Leaves a run folder that has begun."""
    with folder.opened(config.replace(output=str(path)), "run", "program"):
        (path / "history.csv").write_text("epoch\n")


def resumed(path, config):
    config = config.replace(output=str(path), resume=True)
    with folder.opened(config, "run") as (_, found):
        return found


def test_a_folder_is_claimed_and_not_taken_twice(tmp_path):
    path = tmp_path / "run with spaces ü"
    config = Config(output=str(path))
    # What a run leaves that failed at once is no obstacle.
    for _ in range(2):
        with folder.opened(config, "run", "program --seed=0") as (where, _):
            assert where == path
    stored = json.loads((path / "config.json").read_text())
    assert stored["command"] == "program --seed=0"
    assert stored["flags"] == config.as_dict()
    (path / "history.csv").write_text("epoch\n")
    with pytest.raises(ConfigError, match="already holds a run"):
        with folder.opened(config, "run"):
            pass
    with pytest.raises(ConfigError, match="needs the `output`"):
        with folder.opened(Config(resume=True), "run"):
            pass


def test_one_run_at_a_time(tmp_path):
    with folder.opened(Config(output=str(tmp_path)), "run"):
        with pytest.raises(RunUnderWay, match="under way"):
            with folder.locked(tmp_path):
                pass
    # Given back, also within the same process.
    with folder.locked(tmp_path):
        pass


def test_a_run_resumes_by_its_own_values(tmp_path):
    values = {"epochs": 3, "epsilon": "4/255", "augment": "flip,color"}
    config = Search(trials=4, **values)
    begun(tmp_path, config)
    exempt = {"trial_minutes": 3, "trial_cpus": 2, "trial_gpus": 0.5}
    resumed(tmp_path, config.replace(**exempt, backup_minutes=1))
    with pytest.raises(ConfigError) as error:
        resumed(tmp_path, config.replace(trials=5, augment=["flip"], seed=1))
    text = str(error.value)
    assert "trials: stored 4, received 5" in text
    assert "augment: stored ('flip', 'color'), received ('flip',)" in text
    assert "seed: stored 0, received 1" in text
    assert text.count("stored") == 3 and "epsilon" not in text
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        resumed(tmp_path, config)


def test_an_older_run_does_not_resume_by_another_attack(tmp_path):
    begun(tmp_path, Config())
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    # As it was before there was the default of today.
    stored["flags"]["eval_attack"] = "apgd"
    del stored["flags"]["bisect"]
    path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError) as error:
        resumed(tmp_path, Config())
    text = str(error.value)
    assert "eval_attack: stored 'apgd', received 'margin_ensemble'" in text
    assert "bisect: stored False, received None" in text
    resumed(tmp_path, Config(eval_attack="apgd", bisect=False))


def test_an_older_run_keeps_its_defaults(tmp_path):
    earlier = {"ramp_start": 0.25, "ramp_end": 0.75, "schedule": "scheduled"}
    begun(tmp_path, Config(**earlier, decay_start=None))
    # Older than this value.
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["flags"]["decay_start"]
    path.write_text(json.dumps(stored))
    found = resumed(tmp_path, Config())
    assert (found.ramp_start, found.ramp_end) == (0.25, 0.75)
    assert (found.schedule, found.decay_start) == ("scheduled", None)
    with pytest.raises(ConfigError, match="ramp_end: stored 0.75"):
        resumed(tmp_path, Config(ramp_end=0.74))
    other = tmp_path / "other"
    begun(other, Config(ramp_start=0.1, schedule="scheduled"))
    with pytest.raises(ConfigError, match="ramp_start: stored 0.1"):
        resumed(other, Config())
    # For a while the default was another.
    peak = tmp_path / "peak"
    begun(peak, Config(schedule="peak"))
    assert resumed(peak, Config()).schedule == "peak"
    with pytest.raises(ConfigError, match="schedule: stored 'peak'"):
        resumed(peak, Config(schedule="scheduled"))
    third = tmp_path / "third"
    arms = ("standard", "fixed", "scheduled")
    begun(third, Comparison(schedules=arms))
    assert resumed(third, Comparison()).schedules == arms


def test_how_a_run_was_begun_stays(tmp_path):
    begun(tmp_path, Config())
    config = Config(output=str(tmp_path), resume=True)
    for _ in range(2):
        with folder.opened(config, "run") as (where, found):
            folder.write_config(where, found, "again", splits={"train": 1})
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["command"] == "program" and stored["splits"] == {"train": 1}
    # The same call is noted once.
    assert [each["command"] for each in stored["resumed"]] == ["again"]
