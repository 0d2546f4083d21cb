"""Titles of attacks: how people name them, and all that sets them apart."""

import itertools

import pytest

from keras_epsched.attacks import (
    APGD,
    FAB,
    FGSM,
    NFGSM,
    PGD,
    AttackEnsemble,
    AutoAttack,
    MarginEnsemble,
    Square,
    TargetedAPGD,
)


def first_logit(labels, logits):
    return logits[:, 0]


class Mine(PGD):
    pass


class Summed:
    def __call__(self, labels, logits):
        return logits.sum(-1)


TITLES = {
    "APGD-10 on cross-entropy": APGD(10),
    "APGD-20 on the logit margin": APGD(20, loss="margin"),
    "APGD-100 on the difference of logits ratio, 5 restarts, l1": APGD(
        100, "l1", "dlr", restarts=5
    ),
    "APGD-100 on cross-entropy, averaged over 20 draws": APGD(100, eot=20),
    "APGD-7 on cross-entropy, no random start": APGD(7, random_start=False),
    "APGD-5 on first_logit": APGD(5, loss=first_logit),
    "APGD-5 on Summed": APGD(5, loss=Summed()),
    "APGD-T-40, 9 targets (difference of logits ratio)": TargetedAPGD(40),
    "APGD-T-40, 1 target (difference of logits ratio), l2": TargetedAPGD(
        40, "l2", targets=1
    ),
    "PGD-20 on the logit margin": PGD(20, loss="margin"),
    "PGD-7 on cross-entropy, l2": PGD(norm="l2"),
    "PGD-7 on cross-entropy, steps of 0.4 epsilon, no random start": PGD(
        step_ratio=0.4, random_start=False
    ),
    "Mine-3 on cross-entropy": Mine(3),
    "FGSM on cross-entropy": FGSM(),
    "FGSM on cross-entropy, a step of 1.25 epsilon, random start": FGSM(
        step_ratio=1.25, random_start=True
    ),
    "N-FGSM on cross-entropy": NFGSM(),
    "N-FGSM on cross-entropy, noise of 1 epsilon": NFGSM(noise_ratio=1.0),
    "APGD-20 on the probability margin": APGD(20, loss="probability_margin"),
    "APGD-T-60, 5 targets (probability margin)": TargetedAPGD(
        60, targets=5, loss="probability_margin"
    ),
    "MarginEnsemble (standard)": MarginEnsemble(),
    "MarginEnsemble (thorough), l2": MarginEnsemble("thorough", "l2"),
    "FAB-T-100, 9 targets": FAB(targets=9),
    "FAB-100, 5 restarts, l2": FAB(norm="l2", restarts=5),
    "Square, 5,000 queries": Square(),
    "Square, 1 query, windows from 30 % of the image, rescaled windows": (
        Square(1, share=0.3, rescale=True)
    ),
    "AutoAttack (standard)": AutoAttack(),
    "AutoAttack (rand), l2": AutoAttack("rand", "l2"),
    "FGSM on cross-entropy, then Square, 100 queries": AttackEnsemble(
        [FGSM(), Square(100)]
    ),
}


@pytest.mark.parametrize("title", TITLES)
def test_titles(title):
    assert TITLES[title].title == title


def test_a_loss_without_a_title_is_named_by_its_identifier():
    attack = APGD(10)
    attack.loss = "some_new_loss"
    assert attack.title == "APGD-10 on the some new loss"


def test_members_of_autoattack_have_different_titles():
    for version, norm in itertools.product(
        ("standard", "plus", "rand"), ("linf", "l2", "l1")
    ):
        members = AutoAttack(version, norm).members
        titles = [member.title for member in members]
        assert len({*titles}) == len(members), titles
