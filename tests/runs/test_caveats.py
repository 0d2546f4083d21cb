"""What runs say last: which self-checks fired, and what to do."""

import numpy as np
import pytest
from records import CORRECT, make_report

from keras_epsched.runs import Config, caveats

_OF_THE_PAPER = {
    "class_name": "APGD",
    "config": {
        **{"steps": 10, "norm": "linf", "loss": "ce"},
        **{"random_start": True, "restarts": 1, "eot": 1},
    },
}


def text(attack, reports):
    config = Config(eval_attack=attack)
    return caveats.text(reports, config, lambda n, v: f"--{n}={v}")


def check(name, status="fired", message="It found something."):
    return {"name": name, "status": status, "message": message}


def test_what_fired_is_said_once_with_what_to_type():
    weak = check("stronger attack", message="2 of 8 images fall.")
    other = check("zero gradients", "not run", "on few images")
    reports = {
        "fixed": make_report(checks=[weak, other], notes=["seen before"]),
        "scheduled": make_report(checks=[weak], notes=[]),
        "paper": make_report(
            checks=[weak],
            notes=[],
            protocol="independent",
            attack=_OF_THE_PAPER,
        ),
    }
    lines = text("margin_ensemble", reports).splitlines()
    assert lines == [
        "Self-checks: 3 of 4 found a problem; 1 not run (the reports say why).",
        "- fixed: seen before",
        "- fixed, scheduled: self-check 'stronger attack': 2 of 8 images fall. "
        "Measure again with",
        "  --eval_attack=margin_ensemble-thorough.",
        "- paper: too high: a stronger attack breaks more images",
        "To measure a saved model again, pass this and "
        "--model=.../model.keras to launch/evaluate.py, or in",
        "  Python to keras_epsched.runs.evaluate.",
    ]


@pytest.mark.parametrize(
    "attack, name, flag",
    [
        ("pgd", "accuracy against epsilon", "margin_ensemble"),
        ("margin_ensemble-thorough", "stronger attack", "autoattack"),
        ("margin_ensemble", "attack without gradients", "autoattack"),
        ("margin_ensemble", "random outputs", "autoattack-rand"),
        ("margin_ensemble", "stored adversarials", None),
    ],
)
def test_each_check_has_its_remedy(attack, name, flag):
    report = make_report(checks=[check(name)], notes=[])
    said = text(attack, {"one": report})
    assert ("Measure again" in said) == bool(flag)
    if flag:
        assert f"with --eval_attack={flag}." in " ".join(said.split())


def test_the_protocol_of_the_paper_alone_is_too_weak():
    report = make_report(
        checks=[check("stronger attack")],
        notes=[],
        protocol="independent",
        attack=_OF_THE_PAPER,
    )
    said = " ".join(text("margin_ensemble", {"one": report}).split())
    assert "with --eval_attack=margin_ensemble and the protocol nested" in said


def test_a_message_that_says_what_to_do_is_enough():
    message = "So evaluate with `x`, on the command line `--attack=y`"
    report = make_report(
        checks=[check("stronger attack", message=message)], notes=[]
    )
    assert "Measure again" not in text("pgd", {"one": report})


def test_nothing_fired():
    report = make_report(checks=[check("zero gradients", "passed")], notes=[])
    said = text("margin_ensemble", {"one": report})
    assert said == "Self-checks: 0 of 1 found a problem."


def test_python_reads_python():
    report = make_report(checks=[check("random outputs")], notes=[])
    said = caveats.text({"one": report}, Config())
    assert "eval_attack='autoattack-rand'" in said


def test_a_training_that_withstands_nothing_at_the_target():
    correct = CORRECT & (np.arange(5) < 4)
    broken = make_report(checks=[], notes=[], correct=correct)
    found = {"standard": broken, "fixed": broken, "scheduled": make_report()}
    assert "- fixed: accuracy at the target is 0 %." in text("apgd", found)
    config = Config(schedule="standard")
    assert "at the target" not in caveats.text({"nested": broken}, config)
    assert "at the target" not in text("apgd", {"fixed": make_report()})


def test_a_training_that_was_misled_by_its_attack():
    correct = CORRECT & (np.arange(5) < 4)
    broken = make_report(checks=[], notes=[], correct=correct)
    target = broken.target_epsilon

    def said(accuracy, *epsilons, **flags):
        history = {
            "accuracy": [1.0, 0.9, accuracy],
            "epsilon": [share * target for share in epsilons],
        }
        found = caveats.text(
            {"nested": broken},
            Config(**{"epochs": 3, **flags}),
            histories={"nested": history},
        )
        return " ".join(found.split())

    # As two hinges end, and as a peak does.
    for epsilons in [(0, 1, 1), (0, 1.25, 1)]:
        found = said(0.98, *epsilons, train_steps=2)
        assert "98 % of the training images or more withstood" in found
        assert "Train with a stronger one: train_steps=7." in found
        assert "or more epochs" not in found
    assert "train_steps=20." in said(0.98, 0, 1, 1, train_steps=10)
    assert "train_attack='pgd'." in said(0.98, 0, 1, 1, train_attack="nfgsm")
    # Too short a training, one whose last epoch was at less, and one that a
    # monitor ended with the weights of another epoch.
    assert "or more epochs" in said(0.75, 0, 1, 1)
    assert "or more epochs" in said(0.98, 0, 1, 0.5)
    assert "or more epochs" in said(0.98, 0, 1, 1, epochs=4)


def test_trainings_that_were_misled_share_a_line():
    correct = CORRECT & (np.arange(5) < 4)
    broken = make_report(checks=[], notes=[], correct=correct)
    names = ("fixed (seed 0)", "fixed (seed 1)")
    histories = {
        name: {"accuracy": [share], "epsilon": [broken.target_epsilon]}
        for name, share in zip(names, (0.98, 0.93), strict=True)
    }
    found = caveats.text(
        dict.fromkeys(names, broken), Config(epochs=1), histories=histories
    )
    assert f"- {', '.join(names)}: accuracy at" in found
    assert "93 % of the training images or more" in " ".join(found.split())
