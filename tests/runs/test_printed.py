"""What a run prints: lines of epochs, time that is left, and the end."""

import types

import numpy as np
import pytest
from records import make_report

from keras_epsched import runs
from keras_epsched.runs import checks, epoch_lines, outcome, time_left
from keras_epsched.runs.epoch_lines import EpochLines
from keras_epsched.runs.time_left import ArmsLeft, Pace

_LOGS = {
    "epsilon": np.float32(4 / 255),
    "loss": 1234.5678,
    "accuracy": 0.512,
    "val_accuracy": 1.0,
    "val_loss": 0.3,
    "probe_target_accuracy": 0.25,
    "adversarial_loss_training": 0.1,
    "onset": 1,
}


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0)
    fake = types.SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(time_left, "time", fake)
    monkeypatch.setattr(epoch_lines, "time", fake)
    return now


def trained(lines, clock, epochs=1000, count=3):
    lines.set_params({"epochs": epochs, "steps": 16})
    lines.on_train_begin()
    for epoch in range(count):
        lines.on_epoch_begin(epoch)
        for batch in range(16):
            clock.seconds += 600
            lines.on_train_batch_end(batch)
        lines.on_test_begin()
        lines.on_epoch_end(epoch, dict(_LOGS))


def test_an_epoch_is_one_short_line(clock, capsys):
    trained(EpochLines("linf", Pace([1] * 1000, at_most=True)), clock)
    head, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and max(map(len, [head, *lines])) <= 100
    assert (
        lines[1].split()
        == (
            "2/1000 4/255 1235 51.2 % 100.0 % 25.0 % 9600 s at most about "
            "2661.3 h"
        ).split()
    )
    # A number ends below the end of its head.
    for name, text in (("robust val.", "25.0 %"), ("loss", "1235")):
        assert head.index(name) + len(name) == lines[1].index(text) + len(text)


def test_a_terminal_shows_the_step(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    trained(EpochLines("linf"), clock, epochs=2, count=2)
    text = capsys.readouterr().out
    assert "\r\x1b[Kepoch 1/2, step 16 of 16" in text
    # What stays are the same lines as in a log.
    assert len(text.splitlines()[-1].split("\x1b[K")[-1].split()) == 11
    assert "time left" not in text


def test_a_pace_needs_a_whole_epoch(clock):
    pace = Pace([100] * 4)
    pace.begin(1)
    clock.seconds = 10
    # The rest of an epoch, in which a training resumed.
    pace.end(1)
    assert pace.left(2) == ""
    clock.seconds = 110
    pace.end(2)
    assert pace.left(3) == "at most about 2 min"
    assert pace.left(4) == ""


def test_arms_that_are_left_take_their_time():
    left = ArmsLeft({"standard": 100, "fixed": 800, "scheduled": 400})
    assert left.text("standard") == "arm 1 of 3"
    left.done("standard", 10.0, 60.0)
    # 10 s for 100 passes, and two evaluations.
    assert left.text("fixed") == "arm 2 of 3, about 4 min left"
    # One that a run found done says nothing of the time.
    left.done("fixed")
    assert left.text("scheduled") == "arm 3 of 3, about 2 min left"


def test_the_end_is_one_table():
    report = make_report()
    of_the_paper = make_report(protocol="independent")
    found = {"nested": [report] * 2, "paper": [of_the_paper] * 2}
    table = outcome.table(
        "schedule",
        [("scheduled", found, "1, 1", "healthy")],
        ("learned", "verdict"),
    )
    lines = table.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 112
    assert lines[-1].split()[:4] == ["scheduled", "80.0", "±", "0.0"]
    assert "paper:" in lines[0] and lines[0].count("95 %") == 1
    first = {name: each[0] for name, each in found.items()}
    assert outcome.explained(first).splitlines() == [
        "nested: APGD(steps=10) looks for the smallest epsilon that breaks "
        "each image",
        "paper: APGD(steps=10) attacks afresh at each epsilon",
    ]
    assert outcome.heading([report]) == (
        "Results on stanford_dogs:0.2.0: 5 images, target epsilon 4/255 "
        "(linf); accuracy and expected robustness in percent"
    )
    assert outcome.heading([report], 3).endswith("error of 3 seeds")
    assert outcome.in_short(first) == (
        "clean accuracy 80.0 %, expected robustness 47.5 % (nested), 47.5 % "
        "(paper)"
    )


def test_only_values_that_were_changed_are_printed():
    assert str(runs.Config()) == "all values are the defaults"
    config = runs.Config(epochs=3, augment=("flip",), epsilon=0.3)
    assert str(config) == "augment=flip epochs=3"
    assert str(runs.Config(epsilon=4 / 255)) == "epsilon=4/255"
    assert str(runs.Config(epsilon=0.12345)) == "epsilon=0.12345"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "/dev/null/run"}, "nothing can be written to the run"),
        ({"backbone": "resnet_lettres"}, "Near matches: resnet_letters"),
        ({"backbone": "ConvNextBase"}, "Near matches: ConvNeXtBase"),
        ({"backbone": "lost.keras"}, "existing `.keras` file"),
        (
            {"objective": "trades", "train_attack_loss": "margin"},
            "trades attacks its divergence. Leave out `train_attack_loss`",
        ),
    ],
)
def test_what_can_be_refused_without_data_is(values, message, monkeypatch):
    def load(*_):
        raise AssertionError("the data were loaded")

    monkeypatch.setattr(runs.finetuning.build, "load_data", load)
    with pytest.raises(ValueError, match=message) as error:
        runs.finetune(runs.Config(**values), verbose=0)
    assert error.value.is_refusal


def test_a_folder_that_holds_a_run_is_refused_first(tmp_path, monkeypatch):
    def load(*_):
        raise AssertionError("the data were loaded")

    monkeypatch.setattr(runs.finetuning.build, "load_data", load)
    with runs.folder.opened(runs.Config(output=str(tmp_path)), "run"):
        (tmp_path / "history.json").write_text("{}")
    config = runs.Config(output=str(tmp_path), epochs=3)
    with pytest.raises(ValueError, match="already holds a run"):
        runs.finetune(config, verbose=0)
    with pytest.raises(ValueError, match="epochs: stored 20, received 3"):
        runs.finetune(config.replace(resume=True), verbose=0)


@pytest.mark.parametrize(
    "backbone", ["ViT-B/16", "keras.applications.MobileNet", "hf://some/one"]
)
def test_names_that_are_known_pass(backbone):
    checks.check(runs.Config(backbone=backbone))


def test_a_check_of_the_folder_leaves_nothing(tmp_path):
    checks.check(runs.Config(output=str(tmp_path / "a" / "run")))
    assert not list(tmp_path.iterdir())
