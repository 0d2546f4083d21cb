"""The second look: what it attacks with, on how many images, what it says."""

import json

import keras
import pytest

import keras_epsched as ke
from keras_epsched.attacks import (
    APGD,
    FAB,
    FGSM,
    AttackEnsemble,
    AutoAttack,
    MarginEnsemble,
    Square,
    TargetedAPGD,
)
from keras_epsched.evaluation import second_look


def stronger(attack, num_classes=10, eot=1):
    members = getattr(attack, "members", (attack,))
    return second_look.stronger_runs(members, eot, num_classes)


def look(fallen, images, accuracy=0.5):
    attack = TargetedAPGD(20, loss="margin")
    runs = APGD(20, loss="probability_margin"), attack, attack
    return second_look.SecondLook(0.15, "linf", accuracy, images, fallen, runs)


@keras.saving.register_keras_serializable("test_second_look")
def own_loss(labels, logits):
    return ke.attacks.losses.margin(labels, logits)


@pytest.mark.parametrize(
    ("attack", "steps"),
    [
        (FGSM(), 20),
        (APGD(10), 20),
        (APGD(50, norm="l2"), 100),
        (APGD(10, loss=own_loss), 20),
        (Square(1000), 20),
        (AttackEnsemble([APGD(30), Square(1000)]), 60),
        (FAB(20), 40),
    ],
)
def test_margins_then_targets_follow_what_had_neither(attack, steps):
    first, *others = stronger(attack)
    assert first.attack == APGD(steps, attack.norm, "probability_margin")
    assert first.cost == 2 * steps + 1
    targeted = TargetedAPGD(steps, attack.norm, 9, loss="margin")
    assert [run.attack for run in others] == 9 * [targeted]
    assert [run.variant for run in others] == list(range(9))


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (APGD(10, loss="margin"), (20, "probability_margin")),
        (APGD(10, loss="probability_margin"), (20, "margin")),
        (TargetedAPGD(100), (150, "margin")),
        (FAB(20, targets=9), (30, "margin")),
        (MarginEnsemble(), (150, "dlr")),
        (MarginEnsemble("thorough", "l1"), (150, "dlr")),
        (AutoAttack("standard"), (150, "margin")),
        (AutoAttack("plus"), (150, "margin")),
    ],
)
def test_another_margin_with_more_steps_follows_margins(attack, expected):
    steps, loss = expected
    targeted = TargetedAPGD(steps, attack.norm, 9, loss=loss)
    assert [run.attack for run in stronger(attack)] == 9 * [targeted]


def test_targets_are_other_classes():
    assert len(stronger(APGD(10), num_classes=2)) == 2
    assert len(stronger(MarginEnsemble(), num_classes=4)) == 3


def test_draws_of_a_random_network_are_averaged():
    runs = stronger(AutoAttack("rand"), eot=20)
    assert {run.attack.eot for run in runs} == {20}


def test_many_images_before_a_strong_attack():
    runs = stronger(APGD(10))
    first, targeted = runs[0].cost, runs[1].cost
    every = first + 9 * targeted

    def size(budget, standing=200):
        return second_look.sample_size(runs, budget, standing)

    assert size(30 * every) == 30
    assert size(1000 * every) == 48
    assert size(1000 * every, standing=12) == 12
    # Not enough for all targets, enough for two.
    assert size(25 * (first + 2 * targeted)) == 25
    # Not enough for a target.
    assert size(23 * (first + targeted)) == min(
        48, 23 * (first + targeted) // first
    )
    assert size(5 * first) == 5
    assert size(0) == size(1000, standing=0) == 0


def test_the_estimate_is_in_points_of_accuracy():
    found = look(12, 50)
    low, high = ke.reports.statistics.wilson_interval(12, 50)
    assert found.estimate == {
        "epsilon": 0.15,
        "accuracy": 0.5,
        "images": 50,
        "fallen": 12,
        "overstated": pytest.approx(0.12),
        "low": pytest.approx(0.5 * low),
        "high": pytest.approx(0.5 * high),
    }
    assert json.loads(json.dumps(found.estimate)) == found.estimate
    assert str(found) == (
        "the 50 % accuracy at epsilon 0.15 is about 12 points too high (95 % "
        "interval 7 to 19): a stronger attack (APGD-20 on the probability "
        "margin, then APGD-T-20, 2 targets (logit margin)) broke 12 of 50 "
        "images that withstood the evaluation"
    )


@pytest.mark.parametrize(
    ("fallen", "images", "fired"),
    [(0, 10, False), (1, 10, False), (2, 10, True), (2, 48, False)]
    + [(3, 48, True), (10, 10, True)],
)
def test_it_fires_where_more_than_chance_falls(fallen, images, fired):
    assert look(fallen, images).fired is fired


def test_one_image_never_decides():
    assert not look(1, second_look.FEWEST_IMAGES).fired


@pytest.mark.parametrize(
    ("attack", "typed", "flag"),
    [
        (FGSM(), "MarginEnsemble()", "margin_ensemble"),
        (APGD(10), "MarginEnsemble()", "margin_ensemble"),
        (
            APGD(10, norm="l2"),
            'MarginEnsemble(norm="l2")',
            "margin_ensemble",
        ),
        (
            TargetedAPGD(20),
            'MarginEnsemble("thorough")',
            "margin_ensemble-thorough",
        ),
        (
            MarginEnsemble(norm="l1"),
            'MarginEnsemble("thorough", norm="l1")',
            "margin_ensemble-thorough",
        ),
        (MarginEnsemble("thorough"), "AutoAttack()", "autoattack"),
        (AutoAttack("standard"), 'AutoAttack("plus")', "autoattack-plus"),
        (APGD(10, eot=4), 'AutoAttack("rand")', "autoattack-rand"),
    ],
)
def test_the_next_stronger_attack_can_be_typed(attack, typed, flag):
    text = second_look.advice(attack)
    assert f"`attack=keras_epsched.attacks.{typed}`" in text
    assert f"`--attack={flag}`" in text
    better = eval(f"ke.attacks.{typed}")
    assert better.norm == attack.norm
    # The advice leads on, and ends.
    for _ in range(4):
        following = second_look.next_stronger(better)
        if following is None:
            break
        name, version = following
        better = getattr(ke.attacks, name)(version)
    assert "No stronger attack is built in" in second_look.advice(better)


def test_the_paper_s_protocol_is_left():
    text = second_look.advice(APGD(10), nested=False)
    assert '`protocol="nested", attack=' in text
    assert "`--protocol=nested --attack=margin_ensemble`" in text
