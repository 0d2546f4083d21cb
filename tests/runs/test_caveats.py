"""What runs say last: which self-checks fired, and what to do."""

import pytest
from records import make_report

from keras_epsched.runs import Config, caveats


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
            attack={
                "class_name": "APGD",
                "config": {
                    **{"steps": 10, "norm": "linf", "loss": "ce"},
                    **{"random_start": True, "restarts": 1, "eot": 1},
                },
            },
        ),
    }
    lines = text("margin_ensemble", reports).splitlines()
    assert lines == [
        "Self-checks: 3 of 4 fired, 1 not run (the reports say why)",
        "",
        "What to know about these numbers",
        "- fixed: seen before",
        "- fixed, scheduled: the self-check 'stronger attack' fired. 2 "
        "of 8 images fall.",
        "  Type --eval_attack=margin_ensemble-thorough",
        "- paper: the self-check 'stronger attack' fired. 2 of 8 images fall.",
        "  Type --eval_attack=margin_ensemble; the protocol must be nested",
        "To measure a saved model again: launch/evaluate.py, in Python "
        "keras_epsched.runs.evaluate, with that and --model=.../model.keras.",
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
    assert ("Type" in said) == bool(flag)
    if flag:
        assert f"Type --eval_attack={flag}\n" in said


def test_nothing_fired():
    report = make_report(checks=[check("zero gradients", "passed")], notes=[])
    said = text("margin_ensemble", {"one": report})
    assert said == "Self-checks: 0 of 1 fired"


def test_python_reads_python():
    report = make_report(checks=[check("random outputs")], notes=[])
    said = caveats.text({"one": report}, Config())
    assert "eval_attack='autoattack-rand'" in said
