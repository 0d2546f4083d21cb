"""Grids of fine-tunings, and the reports of their results."""

import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pandas as pd
import pytest
from tables_of_pages import columns_of

import keras_epsched as ke
from keras_epsched import files, runs, studies
from keras_epsched.configs.values import entries
from keras_epsched.studies import (
    budget,
    candidates,
    claims,
    figures,
    layout,
    methods,
    paired,
    paper,
    runner,
    sections,
    tables,
)
from keras_epsched.studies import cell as study_cell
from keras_epsched.studies import grid as study_grid
from keras_epsched.studies import results as study_results

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LAUNCH = _ROOT / "launch"


def command(script, *flags):
    return [sys.executable, str(_LAUNCH / script), *flags]


def run(script, *flags, code=0):
    done = subprocess.run(
        command(script, *flags), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# === The grid ===

_GRID = """
[flags]
epochs = 3
freeze_batchnorm = false
augment = ["flip", "color"]

[grid]
dataset = ["$SOME_DATA/flowers", "digits"]
epsilon = ["4/255", 0.3]
schedule = ["fixed", "1/3:2/3"]

[[where]]
match = {dataset = "digits", schedule = "fixed"}
flags = {epochs = 5}
"""


def grid(tmp_path, text, given=()):
    path = tmp_path / "grid.toml"
    path.write_text(text, encoding="utf-8")
    return study_grid.read(path, dict(given))


def test_cells_of_a_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_DATA", "/data")
    cells = grid(tmp_path, _GRID, {"train_steps": "1"})
    assert len(cells) == len({cell.name for cell in cells}) == 8
    first = cells[0]
    assert first.name == "flowers_epsilon-4-255_fixed"
    assert first.texts == {
        "epochs": "3",
        "freeze_batchnorm": "false",
        "augment": "flip,color",
        "dataset": "$SOME_DATA/flowers",
        "epsilon": "4/255",
        "schedule": "fixed",
        "train_steps": "1",
    }
    assert first.config == runs.Config(
        epochs=3,
        augment=("flip", "color"),
        dataset="/data/flowers",
        epsilon=4 / 255,
        schedule="fixed",
        train_steps=1,
    )
    epochs = {cell.name: cell.config.epochs for cell in cells}
    assert epochs["digits_epsilon-0.3_fixed"] == 5
    assert epochs["digits_epsilon-0.3_schedule-1-3-2-3"] == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("[grid\nseed = [0]", "not a TOML file"),
        ("[flags]\nseed = 0", r"expected the tables \[grid\]"),
        ("[grid]\nseed = 0", "expected a list of values"),
        ("[grid]\nseed = []", "expected a list of values"),
        ("[grid]\nseed = [0, 0]", "two cells have the name 'seed-0'"),
        ("[grid]\nseed = [0]\n[axes]\nseed = [1]", "Received: .*axes"),
        (
            "[grid]\nseed = [0]\n[[where]]\nmatch = {dataset = 'x'}\n"
            "flags = {epochs = 1}",
            "which no cell has",
        ),
        (
            "[grid]\nseed = [0]\n[[where]]\nmatch = {seed = 0}\n"
            "flags = {seed = 1}",
            "sets .'seed'., which is an axis",
        ),
        (
            "[grid]\nseed = [0]\n[[where]]\nif = 1",
            "expected the tables `match`",
        ),
        (
            "[grid]\nseed = [0]\n[[where]]\nmatch = 3\nflags = 3",
            "expected the tables `match`",
        ),
        ("flags = 3\n[grid]\nseed = [0]", "expected the tables"),
        ("where = 3\n[grid]\nseed = [0]", "expected the tables"),
        ("leave_out = 3\n[grid]\nseed = [0]", "expected the tables"),
        ("[grid]\nseed = [0]\n[[leave_out]]", "expected values of cells"),
        (
            "[grid]\nseed = [0]\n[[leave_out]]\ndataset = 'x'",
            r"\[\[leave_out\]\] matches .'dataset'., which no cell has",
        ),
        (
            "[grid]\nseed = [0, 1]\n[[leave_out]]\nseed = 2",
            "matches no cell",
        ),
        (
            "[grid]\nseed = [0]\n[[leave_out]]\nseed = 0",
            "leaves out all cells",
        ),
        (
            "[grid]\ndataset = ['$NO_SUCH_VARIABLE/x']",
            "environment variable is not set: dataset",
        ),
    ],
)
def test_bad_grids_are_told(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        grid(tmp_path, text)
    with pytest.raises(ValueError, match="not a TOML file"):
        study_grid.read(tmp_path / "none.toml", {})


def test_combinations_are_left_out(tmp_path):
    text = (
        '[flags]\nepochs = 1\n[grid]\nschedule = ["standard", "fixed"]\n'
        "epsilon = [0.1, 0.2]\nseed = [0, 1]\n"
        '[[leave_out]]\nschedule = "standard"\nepsilon = 0.2\n'
        "[[leave_out]]\nepsilon = 0.2\nepochs = 1\nseed = 1\n"
    )
    assert [cell.name for cell in grid(tmp_path, text)] == [
        "standard_epsilon-0.1_seed-0",
        "standard_epsilon-0.1_seed-1",
        "fixed_epsilon-0.1_seed-0",
        "fixed_epsilon-0.1_seed-1",
        "fixed_epsilon-0.2_seed-0",
    ]


def test_an_axis_is_not_overridden(tmp_path):
    with pytest.raises(ValueError, match="`seed` is an axis"):
        grid(tmp_path, "[grid]\nseed = [0]", {"seed": "1"})


def test_names_are_short_where_they_differ(tmp_path):
    names = grid(
        tmp_path, '[grid]\nbackbone = ["ViT-B/16", "CLIP ViT-B/16", "/a/net"]'
    )
    assert [cell.name for cell in names] == [
        "ViT-B-16",
        "CLIP-ViT-B-16",
        "net",
    ]
    names = grid(tmp_path, '[grid]\nbackbone = ["/a/m.keras", "/b/m.keras"]')
    assert [cell.name for cell in names] == ["-a-m.keras", "-b-m.keras"]


def test_an_error_on_one_line():
    error = study_cell.in_short(ValueError("first\n  second"))
    assert error == "ValueError: first second"
    assert len(study_cell.in_short(OSError("x" * 999))) == 500


# === The study ===

_SHORT = """
[flags]
epochs = 4
train_steps = 1
num_epsilons = 3
eval_attack = "apgd"
eval_steps = 2
test_examples = 60
backup_minutes = 1e-9

[grid]
epsilon = [0.1, 0.3]
schedule = ["standard", "fixed", "scheduled"]
seed = [0, 1]
"""


def study(path, output, **values):
    return studies.Study(study=str(path), output=str(output), **values)


def test_values_are_checked_before_anything_is_run(tmp_path):
    pytest.importorskip("ray")
    path, output = tmp_path / "grid.toml", tmp_path / "out"
    for text, message in (
        ("[grid]\nsteps = [1]", "no value 'steps'"),
        ("[grid]\nretries = [1]", "no value 'retries'"),
        ("[grid]\nepochs = [0]", "epochs='0'"),
        ("[grid]\nschedule = ['linear']", "expected one of standard"),
        ("[grid]\nschedule = ['30/50:12/50']", "the first not larger"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            studies.run(study(path, output))
        assert str(path) in str(error.value)
    assert not output.exists()


def test_rows_have_all_values_by_their_types(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_DATA", "/data")
    path = tmp_path / "grid.toml"
    path.write_text(
        '[flags]\naugment = "flip,color"\ndataset = "$SOME_DATA/x"\n'
        'freeze_batchnorm = true\n[grid]\nepsilon = ["8/255"]\nseed = [3, 4]'
    )
    cells = study_grid.read(path, {})
    for number, cell in enumerate(cells):
        cell.folder, cell.state = tmp_path / cell.name, "done"
        files.write_json(
            cell.folder / "config.json", {"flags": cell.config.as_dict()}
        )
        files.write_json(cell.folder / "result.json", {"clean": number})
    runner._write_results(cells, tmp_path / "results.parquet")
    frame = pd.read_parquet(tmp_path / "results.parquet")
    assert frame["augment"].tolist() == ["flip,color"] * 2
    assert frame["epsilon"].tolist() == [8 / 255] * 2
    assert frame["seed"].tolist() == [3, 4]
    assert frame["freeze_batchnorm"].all()
    # Not the place of this machine.
    assert frame["dataset"].tolist() == ["$SOME_DATA/x"] * 2
    assert {"output", "resume", "data_dir", "monitors"}.isdisjoint(frame)
    assert frame["clean"].tolist() == [0, 1]


def test_an_older_study_does_not_go_on_by_another_attack(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    # Nothing is trained: the folder alone is opened.
    monkeypatch.setattr(runner, "_run_cells", lambda *arguments: None)
    path, grown = tmp_path / "grid.toml", tmp_path / "grown.toml"
    path.write_text('[flags]\naugment = ""\n[grid]\nseed = [0, 1]')
    grown.write_text("[flags]\nepochs = 3\n[grid]\nseed = [1, 2]")
    output = tmp_path / "out"
    studies.run(study(path, output))
    config = json.loads((output / "config.json").read_text())
    # As it was before there was the default of today.
    config["flags"] |= {"eval_attack": "apgd"}
    config["flags"] |= {"ramp_start": 0.25, "ramp_end": 0.75}
    config["flags"] |= {"schedule": "scheduled", "decay_start": None}
    del config["flags"]["bisect"]
    (output / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError) as error:
        studies.run(study(path, output, resume=True))
    refused = str(error.value)
    assert "2 stored cells" in refused
    assert "eval_attack: stored 'apgd', received 'margin_ensemble'" in refused
    assert "bisect: stored False, received None" in refused
    assert "ramp_start" not in refused
    named = {"resume": True, "eval_attack": "apgd", "bisect": False}
    resumed = studies.run(study(path, output, **named))
    # Hinges and schedule are those of when it was begun, of new cells too.
    path.write_text('[flags]\naugment = ""\n[grid]\nseed = [0, 1, 2]')
    for _ in range(2):
        resumed = studies.run(study(path, output, **named))
        assert len(resumed.cells) == 3
        for cell in resumed.cells:
            assert cell.config.ramp_start == 0.25
            assert cell.config.schedule == "scheduled"
            assert cell.config.decay_start is None
    # A grid may grow, and not change.
    with pytest.raises(ValueError) as error:
        studies.run(study(grown, output, **named))
    assert "seed-0 (no longer there)" in str(error.value)
    assert "seed-1 (epochs: stored 20, received 3)" in str(error.value)


def workers(folder):
    """Processes that run cells of a study in a folder."""
    found = []
    for each in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            files = [os.readlink(link) for link in (each / "fd").iterdir()]
        except OSError:
            continue
        if any(name.startswith(f"{folder}/cells/") for name in files):
            found.append(int(each.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_two_of_twelve_cells_are_killed_and_all_are_done(tmp_path):
    pytest.importorskip("ray")
    path, output = tmp_path / "grid.toml", tmp_path / "out"
    path.write_text(_SHORT)
    flags = f"--study={path}", f"--output={output}", "--resume"
    process = subprocess.Popen(
        command("study.py", *flags), stdout=subprocess.PIPE, text=True
    )
    killed = set()
    while len(killed) < 2:
        assert process.poll() is None
        time.sleep(0.1)
        half_way = [
            each.parent
            for each in output.glob("cells/*/backups")
            if list(each.glob("backup-000002-*")) and each.parent not in killed
        ]
        if half_way:
            for worker in workers(half_way[0].parents[1]):
                os.kill(worker, signal.SIGKILL)
                killed.add(half_way[0])
                # One at a time.
                break
            time.sleep(2)
    text, _ = process.communicate()
    assert process.returncode == 0
    assert "12 of 12 cells are done" in text
    assert text.count("WorkerCrashedError") >= 2
    frame = study_results.read(output / "results.parquet")
    assert len(frame) == 12 and frame["cell"].nunique() == 12
    assert frame["train_steps"].eq(1).all() and "resume" not in frame
    assert frame["evaluation_passes"].gt(0).all()
    assert layout.varying(frame) == ["dataset", "backbone", "epsilon"]
    states = json.loads((output / "cells.json").read_text())
    assert sum(bool(each["failures"]) for each in states.values()) >= 2
    # Nothing is left to do; a grid may grow, and not change.
    assert "12 of 12 cells are done" in run("study.py", *flags)
    path.write_text(_SHORT.replace("epochs = 4", "epochs = 5"))
    text = run("study.py", *flags, code=1)
    assert "continues a study with its own cells" in text


# === The report ===

# Pictures of any study of several epsilons.
KINDS = ("transfer", "delay", "curves", "aggregates")
# Columns that `results.read` adds.
ADDED = ["setting", "task", "delay", "half"]


def cell(epsilon, schedule, seed, clean, **columns):
    """A row of results."""
    fixed = schedule == "fixed"
    return {
        "cell": f"{epsilon} {schedule} {seed}",
        "dataset": "digits",
        "backbone": "net",
        "norm": "linf",
        "objective": "adversarial",
        "adaptation": "full",
        "batchnorm_momentum": None,
        "epsilon": epsilon,
        "schedule": schedule,
        "seed": seed,
        "epochs": 10,
        "backend": "tensorflow",
        "num_classes": 10,
        "training_images": 100,
        "test_images": 100,
        "onset": None if fixed else 2,
        "clean": clean,
        "at_target": 0.2 + 0.001 * seed,
        "expected_robustness": clean / 2,
        "expected_low": 0.0,
        "expected_high": 1.0,
        "validation_accuracy": [0.1] * (round(20 * epsilon) if fixed else 0)
        + [0.9],
        "training_epsilon": [epsilon],
        "epsilons": [0.0, epsilon],
        "accuracy": [clean, 0.2],
        "seconds": 400.0,
        **columns,
    }


def cells(gain=0.0, **columns):
    """Results whose figures are known."""
    return pd.DataFrame(
        [
            cell(epsilon, schedule, seed, clean + 0.01 * (seed - 1), **columns)
            for epsilon in (0.1, 0.2, 0.3)
            for schedule, clean in (
                ("standard", 0.9),
                # Ten points are lost for each 0.1 of epsilon.
                ("fixed", 0.9 - epsilon),
                ("scheduled", 0.8 + gain),
            )
            for seed in range(3)
        ]
    )


def stored(tmp_path, *frames):
    path = tmp_path / "known.parquet"
    pd.concat(frames).to_parquet(path)
    return path


@pytest.fixture
def results(tmp_path):
    return stored(tmp_path, cells())


def test_the_schema_has_what_tells_one_fine_tuning_from_another():
    columns = study_results.value_columns()
    config = runs.Config()
    for name in ("epsilon", "schedule", "learning_rate", "eval_attack"):
        assert name in columns
    for name in ("output", "resume", "data_dir", "monitors", "protocols"):
        assert name not in columns
    # In older results they were the default of today, but for six.
    older = {
        *("eval_attack", "bisect", "ramp_start", "ramp_end", "decay_start"),
        "schedule",
        *study_results.MEASURED,
    }
    for name in set(columns) - older:
        default = study_results.as_column(getattr(config, name))
        assert columns[name] == default, name
    assert (columns["ramp_start"], columns["ramp_end"]) == (0.25, 0.75)
    assert columns["eval_attack"] == "apgd" and columns["bisect"] is False
    assert columns["decay_start"] is None
    assert columns["schedule"] == "scheduled"
    assert set(columns) <= {*entries(runs.Config), "backend", "protocol"}


def test_unknown_columns_are_refused(tmp_path):
    path = stored(tmp_path, cells(novelty=1))
    with pytest.raises(ValueError, match=r"neither .* \['novelty'\]"):
        study_results.read(path)


def test_a_column_that_is_missing_is_the_default(tmp_path):
    # A study that is older than a flag, and one that is not.
    old, new = cells(), cells(label_smoothing=0.0, ema=0.0)
    new["seed"] += 3
    frame = study_results.read(stored(tmp_path, old, new))
    assert frame["setting"].nunique() == 3 and len(frame) == 54
    new["ema"] = 0.9
    frame = study_results.read(stored(tmp_path, old, new))
    assert frame["setting"].nunique() == 6


def test_every_objective_has_a_cost():
    row = {
        "train_steps": 3,
        "training_epsilon": [0.0, 0.3],
        "train_attack": "pgd",
        "norm": "linf",
        "awp": 0.0,
        "update_freq": "epoch",
        "num_classes": 10,
    }
    costs = {
        name: budget.cost(types.SimpleNamespace(objective=name, **row))
        for name in ("adversarial", "twins", "mixed", "trades")
    }
    # Three passes for each view in two epochs, and twice three in one of them.
    # The attack of TRADES needs the clean logits.
    assert costs == {
        "adversarial": (6 + 6) / 3,
        "twins": (6 + 6) / 3,
        "mixed": (12 + 6) / 3,
        "trades": (12 + 7) / 3,
    }
    with pytest.raises(ValueError, match="'newest'"):
        budget.cost(types.SimpleNamespace(objective="newest"))


def test_means_errors_and_delays(results):
    frame = study_results.read(results)
    table = tables.main_table(frame)
    # The standard error of -1, 0 and 1 is 1 / sqrt(3).
    assert "| digits    | net        | 0.3       | fixed      | 3" in table
    assert "60.0 ± 0.6" in table and "20.1 ± 0.1" in table
    fixed = frame[frame["schedule"] == "fixed"]
    # Never adapted: the whole training. Half of the standard accuracy comes
    # after 2, 4 and 6 epochs.
    assert set(fixed["delay"]) == {10}
    assert sorted(set(fixed["half"])) == [3, 5, 7]


def test_half_of_an_unknown_accuracy_is_left_out(tmp_path):
    path = stored(tmp_path, cells().query("schedule != 'standard'"))
    table = tables.delay_table(study_results.read(path))
    halves = [
        row["half of standard accuracy (epoch)"] for row in columns_of(table)
    ]
    assert halves == ["", "", ""]


def test_paired_differences_and_correlation(results):
    frame = study_results.read(results)
    found = paired.differences(frame, "fixed", "scheduled", "clean")
    gains = [values.mean() for values in found.values()]
    np.testing.assert_allclose(gains, [0.0, 10.0, 20.0], atol=1e-9)
    # Pairs of seeds: what they share cancels.
    assert all(np.ptp(values) < 1e-9 for values in found.values())
    values = [1.0, 2.0, 4.0]
    mean, low, high, p = paired.interval(values)
    half = 4.302653 * np.std(values, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([low, high], [mean - half, mean + half], 1e-5)
    assert 0.05 < p < 0.2
    ((correlation, _, epsilons),) = claims.correlations(frame)
    # Standard fine-tuning counts as epsilon 0; all is linear here.
    assert epsilons == 4
    np.testing.assert_allclose(correlation, -1.0)


def gains(tmp_path, *seeds, **columns):
    """Results of two arms, whose difference of each seed is given."""
    return study_results.read(
        stored(
            tmp_path,
            pd.DataFrame(
                [
                    cell(0.3, schedule, seed, 0.5 + added / 100, **columns)
                    for seed, gain in enumerate(seeds)
                    for schedule, added in (("fixed", 0.0), ("scheduled", gain))
                ]
            ),
        )
    )


def test_two_seeds_get_no_error_interval_or_test(tmp_path):
    frame = gains(tmp_path, 1.0, 3.0)
    table = tables.main_table(frame)
    assert "| 52.0 (51.0, 53.0) |" in table and "±" not in table
    row = paired.table(frame).splitlines()[2]
    found = [each.strip() for each in row.strip("|").split("|")]
    assert found[2:] == [
        *("2 seeds", "+2.0", "+1.0, +3.0", "2 of 2", "not decided")
    ]
    claim = next(
        line for line in claims.table(frame).splitlines() if "recovers" in line
    )
    # The rule has an interval of 2 -+ 12.7, which is not printed.
    assert "+2.0 points (+1.0, +3.0 over the seeds); as claimed in 1" in claim
    assert claim.rstrip(" |").endswith("undecided")
    # By the rule, two seeds that nearly agree would decide: 2 -+ 1.27.
    table = claims.table(gains(tmp_path, 1.9, 2.1))
    assert "not decided: 2 seeds (rule: holds)" in table
    for two in (frame, gains(tmp_path, 1.9, 2.1)):
        (axes,) = figures.curves(two).axes
        assert not axes.collections
        # Two means, and two seeds of each arm.
        assert len(axes.lines) == 6


def test_three_seeds_get_error_interval_and_test(tmp_path):
    frame = gains(tmp_path, 1.0, 2.0, 3.0)
    assert "| 52.0 ± 0.6 |" in tables.main_table(frame)
    row = paired.table(frame).splitlines()[2]
    found = [each.strip() for each in row.strip("|").split("|")]
    # By hand: 2 -+ 4.303 / sqrt(3), and t = 2 sqrt(3).
    assert found[4:] == ["-0.5 to +4.5", "3 of 3", "0.074"]
    assert "(-0.5 to +4.5 over the seeds)" in claims.table(frame)
    assert "not decided" not in claims.table(frame)
    (axes,) = figures.curves(frame).axes
    assert len(axes.collections) == len(axes.lines) == 2


def test_one_seed_is_a_number_alone(tmp_path):
    frame = gains(tmp_path, 2.0)
    assert "| 52.0    |" in tables.main_table(frame)
    assert paired.table(frame) == ""
    assert "+2.0 points; as claimed in 1 of 1" in claims.table(frame)
    assert "holds" not in claims.table(frame)


def test_two_cells_get_no_interval(tmp_path):
    one = gains(tmp_path, 1.0, 2.0, 3.0, backbone="one")
    two = gains(tmp_path, 4.0, 5.0, 6.0, backbone="two")
    table = paired.table(
        study_results.read(
            stored(
                tmp_path,
                *(each.drop(columns=ADDED) for each in (one, two)),
            )
        )
    )
    row = next(line for line in table.splitlines() if "all at" in line)
    found = [each.strip() for each in row.strip("|").split("|")]
    assert found[2:] == [
        *("2 cells", "+3.5", "+2.0, +5.0", "2 of 2", "not decided")
    ]


def test_settings_are_never_pooled(tmp_path):
    frame = study_results.read(
        stored(
            tmp_path,
            cells(objective="adversarial", gain=0.0),
            cells(objective="trades", gain=0.05),
            # A flag that is newer than the others.
            cells(objective="trades", gain=0.1, label_smoothing=0.1),
        )
    )
    assert layout.varying(frame)[3:] == ["objective", "label_smoothing"]
    table = tables.main_table(frame)
    assert table.count("\n") == 1 + 27 and "| 6 " not in table
    found = paired.differences(frame, "fixed", "scheduled", "clean")
    gains = [values.mean() for values in found.values()]
    np.testing.assert_allclose(gains, [0, 10, 20, 5, 15, 25, 10, 20, 30])
    assert len(claims.correlations(frame)) == 3


def test_what_goes_with_a_backbone_is_no_column(tmp_path):
    frame = study_results.read(
        stored(
            tmp_path,
            cells(backbone="one", weights="a"),
            cells(backbone="two", weights="b"),
        )
    )
    assert layout.varying(frame) == ["dataset", "backbone", "epsilon"]
    assert len(set(frame["task"])) == 2


def test_results_keep_what_they_were_measured_with(tmp_path):
    old = cells(eval_attack="apgd")
    new = cells(
        eval_attack="margin_ensemble", protocol="nested", bisect=True
    ).assign(at_target_paper=0.25, expected_robustness_paper=0.5)
    for name, frame in (("old", old), ("new", new)):
        frame.to_parquet(tmp_path / f"{name}.parquet")
    frame = study_results.read(tmp_path / "old.parquet")
    assert set(frame["protocol"]) == {"nested"} and not frame["bisect"].any()
    assert "paper's protocol" not in tables.main_table(frame)
    frame = study_results.read(
        tmp_path / "old.parquet", tmp_path / "new.parquet"
    )
    # Never pooled, and told apart.
    names = layout.varying(frame)
    assert names[3:] == ["eval_attack", "bisect"]
    table = tables.main_table(frame).splitlines()
    assert len(table) == 2 + 18
    assert "expected, paper's protocol" in table[0]
    assert sum("| 50.0 ± 0.0" in row for row in table) == 9
    older = [row for row in table if "| apgd " in row]
    assert len(older) == 9
    assert all(not row.split("|")[-2].strip() for row in older)


def test_two_protocols_judge_the_same_networks(tmp_path):
    frame = cells(eval_attack="margin_ensemble", protocol="nested")
    path = stored(tmp_path, frame)
    assert not claims.by_both_protocols(study_results.read(path))
    # By the paper's protocol the schedule gains five points, by the other none.
    scheduled = frame["schedule"] == "scheduled"
    weaker = 0.3 + 0.05 * scheduled + 0.001 * frame["seed"] * scheduled
    frame = frame.assign(
        expected_robustness=0.3,
        at_target_paper=0.2,
        expected_robustness_paper=weaker,
    )
    found = study_results.read(stored(tmp_path, frame))
    rows = columns_of(claims.by_both_protocols(found))
    assert [row["protocol"] for row in rows] == 2 * [
        "nested, margin_ensemble",
        "paper",
    ]
    assert "+0.0 points" in rows[0]["measured"]
    assert "+5.1 points" in rows[1]["measured"]
    assert [row["verdict"] for row in rows[:2]] == ["undecided", "holds"]
    # Its own verdicts are those of the table of claims.
    told = columns_of(claims.table(found))[-1]
    assert told.items() <= rows[2].items()
    # Cells of another study, which one protocol judged, change nothing.
    other = cells(eval_attack="apgd", protocol="nested")
    both = study_results.read(stored(tmp_path, frame, other))
    assert columns_of(claims.by_both_protocols(both)) == rows


def test_a_row_has_what_measured():
    from types import SimpleNamespace

    def report(value, bisect):
        return SimpleNamespace(
            expected_robustness_interval=lambda: (0.0, 1.0),
            expected_robustness=lambda: value,
            accuracy_at=lambda epsilon: value / 2,
            target_epsilon=0.3,
            bisect=bisect,
            num_images=8,
            clean_accuracy=0.9,
            epsilons=np.array([0.0, 0.3]),
            accuracy=np.array([0.9, value / 2]),
            forward_passes=1000,
            backward_passes=100,
            check_forward_passes=10,
            check_backward_passes=1,
        )

    numbers = {"start": 0, "stop": 9, "num_examples": 9}
    texts = dict.fromkeys(("dataset", "split", "base", "order", "digest"), "x")
    split = SimpleNamespace(
        split_info=ke.datasets.SplitInfo(**numbers, **texts, seed=None)
    )
    data = SimpleNamespace(
        num_classes=10, train=split, validation=split, test=split
    )
    history = {"onset": 1, "val_accuracy": [0.9], "epsilon": [0.3]}
    reports = {"nested": report(0.4, True), "paper": report(0.5, False)}

    def row_of(reports):
        result = SimpleNamespace(data=data, history=history, reports=reports)
        return study_results.outcome(result, 1.0)

    row = row_of(reports)
    assert (row["protocol"], row["bisect"]) == ("nested", True)
    assert row["evaluation_passes"] == 2 * 1111
    assert (row["at_target"], row["expected_robustness"]) == (0.2, 0.4)
    assert row["at_target_paper"] == 0.25
    assert row["expected_robustness_paper"] == 0.5
    assert "eval_attack" not in row
    # Whatever `eval_attack` is.
    row = row_of({"paper": reports["paper"]})
    assert (row["protocol"], row["eval_attack"]) == ("paper", "apgd")
    assert row["expected_robustness"] == 0.5 and not row["bisect"]


def test_a_cell_counts_once(results):
    with pytest.raises(ValueError, match="twice: 0.1 standard 0"):
        study_results.read(results, results)


def test_the_tests_of_the_paper_come_out(tmp_path):
    """Its tables 1 and 2 give the p-values of its table 9."""
    with open(paper._FILE) as file:
        rows = [
            cell(
                {"4/255": 4 / 255, "8/255": 8 / 255}[row["epsilon"]],
                row["schedule"],
                0,
                float(row["clean"]) / 100,
                dataset=row["dataset"],
                backbone=row["backbone"],
                at_target=float(row["at_target"]) / 100,
                expected_robustness=float(row["expected_robustness"]) / 100,
            )
            for row in csv.DictReader(file)
            if row["table"] in ("Table 1", "Table 2")
        ]
    frame = study_results.read(stored(tmp_path, pd.DataFrame(rows)))
    table = paired.table(frame)
    lines = [
        [part.strip() for part in line.split("|")[1:-1]]
        for line in table.splitlines()
        if "all at" in line
    ]
    found = {(row[0], row[1]): (row[2], row[3], row[6]) for row in lines}
    for key, expected in {
        ("clean", "all at 4/255"): ("30 cells", "+38.0", "1.3e-08"),
        ("at target", "all at 4/255"): ("30 cells", "+15.4", "0.00015"),
        ("expected", "all at 4/255"): ("30 cells", "+27.4", "3.2e-07"),
        ("clean", "all at 8/255"): ("30 cells", "+49.9", "4.2e-13"),
        ("at target", "all at 8/255"): ("30 cells", "+13.5", "7.3e-06"),
        ("expected", "all at 8/255"): ("30 cells", "+31.2", "3.6e-10"),
    }.items():
        assert found[key] == expected, key
    found = claims.table(frame)
    assert found.count("over 30 tasks") == 3 and "holds" in found
    assert "nan" not in found
    assert "77.00" not in tables.main_table(frame).split("paper")[0]


@pytest.mark.parametrize(
    "values, sign, verdict",
    [
        ([[1.0, 2.0, 1.5]], 1, "holds"),
        ([[1.0, 2.0, 1.5]], -1, "the opposite holds"),
        ([[1.0, -2.0, 1.5]], 1, "undecided"),
        # Two seeds that agree say nothing of how far seeds differ.
        ([[1.0, 1.0]], 1, "undecided"),
        ([[1.0]], 1, "undecided"),
        ([[1.0, 2.0, 1.5], [-1.0, 1.0, 0.5]], 1, "holds in 1, undecided in 1"),
        ([[1.0, 2.0], [-1.0, -1.1]], 1, "opposite in 1, undecided in 1"),
        ([[each] for each in (1, 2, 3, 2, 1, 2)], 1, "holds"),
        ([[each] for each in (-9, 9, 3, -2, 1, 2)], 1, "undecided"),
    ],
)
def test_verdicts(values, sign, verdict):
    found = {index: np.array(each) for index, each in enumerate(values)}
    frame = pd.DataFrame({"setting": list(found), "task": list(found)})
    text = claims._outcome(frame, found, sign)[1]
    assert text.removesuffix(" of 2") == verdict


def test_epsilons_of_a_task_are_not_independent():
    # Six cells, but two tasks: no interval over cells.
    found = {index: np.array([float(index)]) for index in range(6)}
    frame = pd.DataFrame({"setting": range(6), "task": [0, 0, 0, 1, 1, 1]})
    assert claims._outcome(frame, found, 1)[1] == "undecided"


def test_jumps_that_collapse(tmp_path):
    frame = study_results.read(
        stored(
            tmp_path,
            pd.DataFrame(
                [
                    cell(0.3, "12/50:12/50", seed, clean, num_classes=196)
                    for seed, clean in enumerate((0.019, 0.013, 0.642))
                ]
            ),
        )
    )
    found = claims.ablations(frame)
    assert "by seed: 1.9, 1.3, 64.2 (collapsed if below 5)" in found
    assert "holds in 2, opposite in 1 of 3" in found
    # With two classes twice chance would be all.
    frame["num_classes"] = 2
    assert "collapsed if below 75" in claims.ablations(frame)


def test_methods_and_what_they_cost(tmp_path):
    frame = study_results.read(
        stored(
            tmp_path,
            *(
                pd.DataFrame(
                    [
                        cell(
                            epsilon,
                            schedule,
                            seed,
                            {0.2: 0.8, 0.3: 0.5}[epsilon] + 0.1 * seed,
                            objective=objective,
                            beta=1.0 if objective == "trades" else None,
                            train_attack="pgd",
                            train_steps=5,
                            # No attack in the first of its epochs.
                            training_epsilon=[0.0 if later else 0.3]
                            + [0.3] * 9,
                        )
                        for schedule, later in (("fixed", 0), ("paced", 1))
                        for seed in range(2)
                    ]
                )
                for objective in ("trades", "adversarial")
                for epsilon in (0.3, 0.2)
            ),
        )
    )
    rows = methods.table(frame).splitlines()[2:]
    found = [
        [each.strip() for each in row.strip("|").split("|")] for row in rows
    ]
    assert [row[:5] for row in found] == [
        ["digits", "net", epsilon, objective, schedule]
        for epsilon in ("0.2", "0.3")
        for objective in ("adversarial", "trades")
        for schedule in ("fixed", "paced")
    ]
    # Nothing is pooled over epsilons.
    low, high = ["2", "55.0 (50.0, 60.0)"], ["2", "85.0 (80.0, 90.0)"]
    assert [row[5:7] for row in found] == 4 * [high] + 4 * [low]
    # One view, or two, and five steps in ten, or nine, of the ten epochs. The
    # attack of TRADES takes a pass more.
    assert [row[-1] for row in found] == 2 * ["4.3", "4.0", "5.7", "5.3"]
    # The picture that is drawn, and no other.
    assert figures.draw(frame, tmp_path, "known") == {
        "trade_offs": "known_trade_offs.png"
    }
    figure = figures.trade_offs(frame)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title()[-5:] for axes in panels] == [", 0.3", ", 0.2"]
    points = [
        round(float(bars[0].get_xdata()[0])) for bars in panels[0].containers
    ]
    assert points == 4 * [55]


def known(tmp_path, *rows):
    return study_results.read(stored(tmp_path, pd.DataFrame(rows)))


def test_what_a_fixed_budget_brings(tmp_path):
    # Steps, epochs, epochs with an attack, and the clean accuracy.
    trained = [(1, 10, 6, 0.4), (1, 20, 12, 0.5), (7, 10, 9, 0.6)]
    trained += [(7, 20, 15, 0.2)]
    frame = known(
        tmp_path,
        *(
            cell(
                0.3,
                "scheduled",
                seed,
                clean,
                train_attack="nfgsm" if steps == 1 else "pgd",
                train_steps=steps,
                epochs=epochs,
                training_epsilon=[0.0] * (epochs - some) + [0.3] * some,
            )
            for steps, epochs, some, clean in trained
            for seed in range(3)
        ),
    )
    found = columns_of(budget.table(frame))
    # 3 passes for a plain step, and 2 for each step of the attack.
    assert [(row["attack"], row["steps"], row["cost"]) for row in found] == [
        ("nfgsm", "1", "14"),
        ("nfgsm", "1", "28"),
        ("pgd", "7", "52"),
        ("pgd", "7", "90"),
    ]
    # More for less is bold, and the last is worse than what costs less.
    assert ["**" in row["expected"] for row in found] == [True] * 3 + [False]
    figure = figures.budget_curves(frame)
    (axes,) = [axes for axes in figure.axes if axes.get_title()]
    lines = [bars[0].get_xydata().tolist() for bars in axes.containers]
    assert np.allclose(lines[0], [[14, 20], [28, 25]])
    assert np.allclose(lines[1], [[52, 30], [90, 10]])
    # Its page is about nothing else, unless it has other tasks.
    assert list(tables.sections(frame)) == ["budget"]
    assert list(figures.draw(frame, tmp_path, "known")) == ["budget_curves"]
    other = frame.assign(dataset="letters", task="letters", setting="letters")
    both = pd.concat([frame, other[other["epochs"] == 20]])
    assert {"budget", "main"} <= set(tables.sections(both))
    assert "curves" in figures.draw(both, tmp_path, "known")


@pytest.mark.parametrize(
    "epsilons, batch, epoch",
    [
        # The ramp begins in the middle of the second epoch, and at its end.
        ([0, 0.05, 0.15, 0.2], 2.5, 3),
        ([0, 0.1, 0.2, 0.2], 3, 3),
        # In the first epoch, as a peak's does in a short training.
        ([0.05, 0.15, 0.25, 0.2], 3.5, 4),
        ([0, 0, 0.2, 0.2], 2, 2),
        ([0.2, 0.2, 0.2, 0.2], 4, 4),
        ([0, 0, 0, 0], 0, 0),
    ],
)
def test_an_epoch_in_which_the_ramp_begins_counts_in_part(
    epsilons, batch, epoch, tmp_path
):
    def attacked(update_freq):
        frame = known(
            tmp_path,
            cell(
                0.2,
                "scheduled",
                0,
                0.5,
                train_attack="pgd",
                train_steps=3,
                training_epsilon=epsilons,
                update_freq=update_freq,
            ),
        )
        # A step of the attack is a pass of each kind.
        row = next(frame.itertuples())
        return (budget.cost(row) - len(epsilons)) / 2

    assert attacked("batch") == pytest.approx(batch)
    assert attacked("epoch") == pytest.approx(epoch)


@pytest.mark.parametrize(
    ("columns", "passes"),
    [
        ({}, 3 * 10 + 4 * 6),
        # One forward pass more than steps.
        ({"train_attack": "apgd"}, 3 * 10 + 5 * 6),
        # Two views, and the clean prediction that the attack leaves.
        ({"objective": "trades"}, 6 * 10 + 5 * 6),
        ({"awp": 0.005}, 6 * 10 + 4 * 6),
        # A monitor ended it in the seventh epoch.
        ({"training_epsilon": [0.0] * 4 + [0.3] * 3}, 3 * 7 + 4 * 3),
    ],
    ids=str,
)
def test_the_passes_of_a_training(tmp_path, columns, passes):
    row = cell(0.3, "scheduled", 0, 0.5, train_attack="pgd", train_steps=2)
    row |= {"training_epsilon": [0.0] * 4 + [0.3] * 6, **columns}
    (found,) = known(tmp_path, row).itertuples()
    assert budget.cost(found) == pytest.approx(passes / 3)


def test_a_budget_needs_steps_and_epochs_of_one_task(tmp_path, results):
    frame = study_results.read(results)
    assert budget.table(frame) == "" and figures.budget_curves(frame) is None
    tasks = (("digits", 7, 20), ("flowers", 3, 12))
    columns = {"train_attack": "pgd", "training_epsilon": [0.3]}
    frame = known(
        tmp_path,
        *(
            cell(0.3, "fixed", seed, 0.5, dataset=dataset, train_steps=steps)
            | columns
            | {"epochs": epochs}
            for dataset, steps, epochs in tasks
            for seed in range(2)
        ),
    )
    assert budget.table(frame) == "" and figures.budget_curves(frame) is None


def test_both_seeds_of_a_budget_are_seen(tmp_path):
    frame = known(
        tmp_path,
        *(
            cell(0.3, "fixed", seed, 0.5 + 0.1 * seed, epochs=epochs)
            | {"train_attack": "pgd", "train_steps": steps}
            | {"training_epsilon": [0.3] * epochs}
            for steps, epochs in ((1, 5), (1, 10), (7, 5), (7, 10))
            for seed in range(2)
        ),
    )
    axes = figures.budget_curves(frame).axes[0]
    alone = [x for x in axes.lines if x.get_marker() == "."]
    assert [each.get_ydata().tolist() for each in alone] == 4 * [[25.0, 30.0]]
    # Of two that cost the same, only the better one may be bold.
    assert budget.table(frame).count("**") == 2


@pytest.mark.parametrize("name", layout.DRAWN)
def test_curves_show_each_schedule_that_is_compared(tmp_path, name):
    frame = known(
        tmp_path, *(cell(0.3, each, 0, 0.5) for each in {"fixed", name})
    )
    (axes,) = figures.curves(frame).axes
    _, labels = axes.get_legend_handles_labels()
    assert set(labels) == {"fixed", name}


def test_both_seeds_of_other_hinges_are_seen(tmp_path):
    frame = known(
        tmp_path,
        *(
            cell(0.3, f"{start}:1", seed, 0.3 + start / 10 + seed / 20)
            for start in (0.0, 0.5)
            for seed in range(2)
        ),
    )
    (axes,) = figures.hinge_curves(frame).axes
    alone = [x for x in axes.lines if x.get_marker() == "."]
    expected = frame["expected_robustness"]
    assert [each.get_ydata().tolist() for each in alone] == [
        (100 * expected[rows]).tolist()
        for rows in frame.groupby("schedule").indices.values()
    ]


@pytest.mark.parametrize(
    "section, other", [("adaptive", "paced"), ("named", "peak")]
)
def test_other_schedules_stand_beside_the_arms(
    section, other, tmp_path, results
):
    assert section not in tables.sections(study_results.read(results))
    frame = known(
        tmp_path,
        *(
            cell(epsilon, schedule, seed, 0.5) | {"train_steps": steps}
            for epsilon, schedule, steps in (
                (0.3, "fixed", 7),
                (0.3, other, 7),
                (0.2, "fixed", 3),
            )
            for seed in range(3)
        ),
    )
    found = columns_of(tables.sections(frame)[section])
    assert [(row["epsilon"], row["schedule"]) for row in found] == [
        ("0.3", "fixed"),
        ("0.3", other),
    ]
    # What other rows of the study vary is told here too.
    assert {row["train_steps"] for row in found} == {"7"}


def test_the_paper_stands_beside_the_same_cell(tmp_path):
    epsilons = {0.1: 4 / 255, 0.2: 8 / 255, 0.3: 1.0}

    def table(**columns):
        frame = cells(dataset="stanford_cars", backbone="SWIN", **columns)
        frame["epsilon"] = frame["epsilon"].map(epsilons)
        frame = study_results.read(stored(tmp_path, frame))
        return tables.main_table(frame)

    found = table()
    assert "60.20 / 29.70 / 44.74" in found and "its own set-up" in found
    assert "78.00 / 23.50 / 53.57" in found
    assert "/ 29.70" not in table(objective="trades")
    assert "/ 29.70" not in table(norm="l2")


def test_methods_are_told_apart_by_pairs(tmp_path):
    # What an objective and a schedule add to 0.5, and a seed by itself.
    added = {
        ("adversarial", "fixed"): (0.0, 0.0, 0.0),
        ("adversarial", "scheduled"): (0.1, 0.1, 0.1),
        ("adversarial", "auto"): (0.05, 0.05, 0.05),
        ("trades", "fixed"): (0.0, 0.0, 0.0),
        ("trades", "scheduled"): (0.11, 0.12, 0.13),
        ("trades", "auto"): (0.0, 0.0, 0.0),
    }
    cells = [
        cell(
            0.3,
            schedule,
            seed,
            0.5 + 0.01 * seed + each,
            objective=objective,
            # It follows from the objective, so it sets none of them apart.
            beta=1.0 if objective == "trades" else None,
        )
        for (objective, schedule), of_seeds in added.items()
        for seed, each in enumerate(of_seeds)
    ]
    frame = study_results.read(stored(tmp_path, pd.DataFrame(cells)))

    def rows(text):
        return [
            [each.strip() for each in row.strip("|").split("|")]
            for row in text.splitlines()[2:]
        ]

    found = [r for r in rows(methods.tests(frame))]
    assert [row[1:4] for row in found if row[0] == "clean"] == [
        # Over the means of the objectives: -10 and -12, -5 and -12.
        ["fixed - scheduled", "2 objectives", "-11.0"],
        ["auto - scheduled", "2 objectives", "-8.5"],
        # Over the seeds: 1, 2 and 3.
        ["trades - adversarial", "3 seeds", "+2.0"],
    ]
    trades = next(row for row in found if row[1].startswith("trades"))
    # By hand: 2 -+ 4.303 / sqrt(3).
    assert trades[4:6] == ["-0.5 to +4.5", "3 of 3"]
    summary = rows(methods.summary(frame))
    assert [row[0] for row in summary] == ["adversarial", "trades"]
    assert [cell.split("(")[1] for cell in summary[1][1:]] == [
        *("51.0)", "63.0)", "51.0)")
    ]


def test_methods_are_in_the_order_of_names_and_not_of_folders(tmp_path):
    cells = [
        cell(0.3, schedule, 0, 0.5, objective=objective, dataset=dataset)
        for dataset in ("$A/flowers", "digits")
        for objective in ("trades", "mixed")
        for schedule in ("fixed", "scheduled")
    ]
    frame = known(tmp_path, *cells)
    for text in (methods.table(frame), methods.summary(frame)):
        shown = [row["dataset"] for row in columns_of(text)]
        assert shown == sorted(shown) and set(shown) == {"digits", "flowers"}


def test_candidates_for_the_default_are_judged_in_each_task(tmp_path):
    def candidate(name, epsilon, clean, target, **columns):
        return [
            cell(
                epsilon,
                name.format(epsilon),
                seed,
                clean,
                at_target=target,
                **columns,
            )
            for seed in range(3)
        ]

    # `scheduled` has a clean accuracy of 80 % and 40 % expected robustness,
    # `fixed` 20.1 % at the target. The third seed of each is the best.
    added = [
        # Three points of clean accuracy may be lost, expected robustness not.
        *candidate("0.1:0;0.8:{}", 0.1, 0.77, 0.9, expected_robustness=0.41),
        *candidate("0.1:0;0.8:{}", 0.2, 0.76, 0.9, expected_robustness=0.41),
        *candidate("0.1:0;0.8:{}", 0.3, 0.8, 0.9, expected_robustness=0.39),
        # Behind the fixed epsilon at the target.
        *candidate("paced", 0.1, 0.8, 0.2, expected_robustness=0.5),
        # Other flags make a candidate of the default.
        *candidate("scheduled", 0.1, 0.8, 0.3, decay_start=0.5),
    ]
    frame = cells()
    frame["decay_start"] = 0.05
    for each in added:
        each.setdefault("decay_start", 0.05)
    first = frame, pd.DataFrame(added)
    frame = study_results.read(stored(tmp_path, *first))
    lines = [
        [each.strip() for each in line.strip("|").split("|")]
        for line in candidates.table(frame).splitlines()[2:]
    ]
    found = {
        (line[0], line[1], line[4]): (*map(float, line[6:9]), line[9])
        for line in lines
    }
    assert found == {
        ("0.1:0×;0.8:1×", "0.05", "0.1"): (-3.0, 69.9, 1.0, "yes"),
        ("0.1:0×;0.8:1×", "0.05", "0.2"): (-4.0, 69.9, 1.0, "no"),
        ("0.1:0×;0.8:1×", "0.05", "0.3"): (0.0, 69.9, -1.0, "no"),
        ("paced", "0.05", "0.1"): (0.0, -0.1, 10.0, "no"),
        ("scheduled", "0.5", "0.1"): (0.0, 9.9, 0.0, "yes"),
    }
    best, *_, last = candidates.summary(frame).splitlines()[2:]
    assert [each.strip() for each in best.strip("|").split("|")] == [
        *("0.1:0×;0.8:1×", "0.05", "-2.3", "+69.9", "+0.3", "2 of 3", "1 of 3")
    ]
    assert last.rstrip(" |").endswith("0 of 1")
    # With other flags the fixed epsilon is a control.
    other = pd.DataFrame(
        candidate(
            *("fixed", 0.1, 0.8, 0.3),
            expected_robustness=0.4,
            decay_start=0.5,
        )
    )
    frame = study_results.read(stored(tmp_path, *first, other))
    (line,) = re.findall(r"\| fixed .*", candidates.table(frame))
    assert "+0.0" in line and line.rstrip(" |").endswith("control")
    (line,) = re.findall(r"\| fixed .*", candidates.summary(frame))
    assert line.rstrip(" |").endswith("control")
    # It is the better one, so others are compared with it.
    (line,) = re.findall(r"\| scheduled .*", candidates.table(frame))
    assert "+0.0" in line and line.rstrip(" |").endswith("yes")
    (line,) = re.findall(r"\| paced .*", candidates.table(frame))
    assert "-10.0" in line and line.rstrip(" |").endswith("no")
    # Studies of methods have other tables.
    other = pd.DataFrame(candidate("fixed", 0.1, 0.8, 0.3, objective="trades"))
    frame = study_results.read(stored(tmp_path, *first, other))
    assert "| 0.1 " not in candidates.table(frame)
    # Nor are accuracies compared that were measured by another attack.
    other = candidate("random", 0.1, 0.8, 0.9, eval_attack="pgd")
    for each in other:
        each["decay_start"] = 0.05
    frame = study_results.read(stored(tmp_path, *first, pd.DataFrame(other)))
    assert "random" not in candidates.table(frame)
    assert "paced" in candidates.table(frame)
    frame = study_results.read(stored(tmp_path, cells()))
    assert candidates.table(frame) == ""


def test_a_page_tells_the_passes_of_a_study(tmp_path):
    row = cell(0.3, "scheduled", 0, 0.5, train_attack="pgd", train_steps=2)
    row |= {
        "training_epsilon": [0.0] * 4 + [0.3] * 6,
        "training_images": 1_000_000,
        "evaluation_passes": 2_700_000,
    }
    text = sections.page("known", known(tmp_path, row), {})
    # In ten epochs one forward and one backward pass, and in six of them two
    # more of each for the attack.
    assert (
        "They made 44.0 million passes of single images in training, and 2.7 "
        "million in the evaluation." in " ".join(text.split())
    )
    # Where some results are older, the sum is not known.
    frame = stored(tmp_path, pd.DataFrame([row]), cells())
    text = sections.page("known", study_results.read(frame), {})
    assert "million" not in text


def test_a_picture_by_epsilon_needs_several_of_one_task(tmp_path):
    one = cells()
    one = one[one["epsilon"] == 0.1]
    other = one.assign(dataset="flowers", epsilon=0.2)
    frame = study_results.read(stored(tmp_path, one, other))
    assert figures.transfer(frame) is None and figures.delay(frame) is None
    assert figures.curves(frame) is not None
    frame = study_results.read(stored(tmp_path, cells(), other))
    assert figures.transfer(frame) is not None


def test_pages_are_filled_from_results(results, tmp_path):
    page, below = tmp_path / "PAGE.md", tmp_path / "below" / "OTHER.md"
    old = "Text.\n\n<!-- known.main -->\nold\n<!-- end -->\n\nEnd.\n"
    page.write_text(old + "<!-- known.curves -->\n<!-- end -->\n")
    below.parent.mkdir()
    below.write_text("<!-- named.curves -->\n<!-- end -->\n")
    output, named = tmp_path / "out", f"named={results}"
    made = studies.report([results, named], output, [page, below])
    text = page.read_text()
    assert "60.0 ± 0.6" in text and "old" not in text and "End." in text
    curves = "![Accuracy by epsilon of the evaluation]"
    assert f"{curves}(out/known_curves.png)" in text
    assert f"{curves}(../out/named_curves.png)" in below.read_text()
    for kind in KINDS:
        assert (output / f"known_{kind}.png").stat().st_size > 5000
    # A file for each study has all tables and all pictures.
    for name in ("known", "named"):
        text = (output / f"{name}.md").read_text()
        for key, each in made.items():
            if key.startswith(f"{name}."):
                shown = f"]({each.name})" if key.endswith(KINDS) else each
                assert shown in text, key
        told = "27 fine-tunings, whose durations add up to 3.0 hours. "
        assert f"{told}Evaluation: `eval_attack` apgd" in " ".join(text.split())
        assert "up to 14 points" in text
    # All pages or none.
    page.write_text(old)
    below.write_text("<!-- known.other -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="a place for 'known.other'"):
        studies.report([results], output, [page, below])
    assert page.read_text() == old
    with pytest.raises(ValueError, match="two studies have the name 'named'"):
        studies.report([named, named], output)


def test_what_is_no_result_is_told(tmp_path):
    path = tmp_path / "other.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(ValueError, match="it lacks"):
        study_results.read(path)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="no file of results"):
        study_results.read(path)


def test_every_kind_has_a_title(tmp_path):
    frame = study_results.read(
        _ROOT / "reproduction" / "hinges.parquet",
        _ROOT / "reproduction" / "digits.parquet",
    )
    kinds = [*tables.sections(frame), *figures.draw(frame, tmp_path, "known")]
    assert {"claims", "hinges", "hinge_curves"} < set(kinds)
    text = sections.page("known", frame, dict.fromkeys(kinds, "here"))
    assert text.count("\nhere\n") == len(kinds)
    assert max(map(len, text.splitlines())) <= 80
