"""Ensembles of attacks: an image must withstand all of them."""

import keras

from keras_epsched.attacks.apgd import APGD, TargetedAPGD
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.fab import FAB
from keras_epsched.attacks.square import Square
from keras_epsched.configurable import Configurable, register
from keras_epsched.epsilons import check_norm


@register
class AttackEnsemble(Configurable):
    """Several attacks, one after the other, for evaluation.

    Use it to combine attacks of your choice. For usual evaluations use
    `MarginEnsemble` or `AutoAttack`. An image counts as broken if any of the
    attacks breaks it, and later attacks then skip it. Put cheap attacks first.

    Args:
        members: List of `Attack`, all with the same norm.

    Example:
    ```python
    attack = keras_epsched.attacks.AttackEnsemble(
        [
            keras_epsched.attacks.APGD(steps=50),
            keras_epsched.attacks.Square(queries=1000),
        ]
    )
    report = keras_epsched.evaluate(classifier, data.test, grid, attack)
    ```
    """

    def __init__(self, members):
        if isinstance(members, Attack):
            members = (members,)
        members = tuple(
            keras.saving.deserialize_keras_object(each)
            if isinstance(each, dict)
            else each
            for each in members
        )
        if not members or not all(isinstance(each, Attack) for each in members):
            raise ValueError(
                "`members` must be a list of attacks of "
                f"`keras_epsched.attacks`. Received: members={members!r}"
            )
        norms = sorted({each.norm for each in members})
        if len(norms) > 1:
            raise ValueError(
                "The members of an ensemble must share one norm, because they "
                f"share epsilon. Received: the norms {norms}"
            )
        self.members = members
        self.norm = norms[0]

    def __repr__(self):
        return f"{type(self).__name__}({list(self.members)!r})"

    @property
    def title(self) -> str:
        """A short name for tables and pages: the titles of the members."""
        return ", then ".join(each.title for each in self.members)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {"members": [serialize(each) for each in self.members]}


class NamedEnsemble(AttackEnsemble):
    """Base class of ensembles that are chosen by a version and a norm.

    Subclasses set `versions` and implement `choose_members`.
    """

    versions: tuple[str, ...] = ()

    def __init__(self, version="standard", norm="linf"):
        if version not in self.versions:
            raise ValueError(
                f"`version` must be one of {self.versions}. Received: "
                f"version={version!r}"
            )
        super().__init__(self.choose_members(version, check_norm(norm)))
        self.version = version

    def choose_members(self, version: str, norm: str) -> tuple[Attack, ...]:
        """Returns the attacks of a version for a norm.

        Args:
            version: String, one of `versions`.
            norm: String. `"linf"`, `"l2"` or `"l1"`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `choose_members()`"
        )

    def __repr__(self):
        return f"{type(self).__name__}({self.version!r}, norm={self.norm!r})"

    @property
    def title(self) -> str:
        """A short name for tables and pages: `"AutoAttack (standard)"`."""
        norm = "" if self.norm == "linf" else f", {self.norm}"
        return f"{type(self).__name__} ({self.version}){norm}"

    def get_config(self):
        return {"version": self.version, "norm": self.norm}


@register
class AutoAttack(NamedEnsemble):
    """AutoAttack, an ensemble that many publications report.

    Use it to compare with published numbers. There are three versions:

    - `"standard"`: `APGD` on cross-entropy, `TargetedAPGD` with 9 targets,
      `FAB` with 9 targets, and `Square`.
    - `"plus"`: `APGD` on cross-entropy, `APGD` on the difference of logits
      ratio and untargeted `FAB`, each with five restarts, then `Square`,
      `TargetedAPGD` and targeted `FAB`.
    - `"rand"`: `APGD` on cross-entropy and on the difference of logits ratio,
      averaged over 20 calls of the network. For randomised networks.

    The numbers of steps (100) and queries (5000) are those of the reference.
    For l1, `"standard"` has five restarts of `APGD` and 5 targets of
    `TargetedAPGD`, as the reference has. With too few classes for a difference
    of logits ratio, the margin is used instead.

    Reference: Croce & Hein, ICML 2020 (arXiv 2003.01690).

    Args:
        version: String. `"standard"`, `"plus"` or `"rand"`. Defaults to
            `"standard"`.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.

    Example:
    ```python
    attack = keras_epsched.attacks.AutoAttack("standard")
    report = keras_epsched.evaluate(classifier, data.test, grid, attack)
    ```
    """

    versions = ("standard", "plus", "rand")

    def choose_members(self, version, norm):
        if version == "standard":
            # As in the reference, l1 has more restarts and fewer targets.
            restarts = 5 if norm == "l1" else 1
            targets = 5 if norm == "l1" else 9
            return (
                APGD(100, norm, restarts=restarts),
                TargetedAPGD(100, norm, targets=targets),
                FAB(100, norm, targets=9),
                Square(5000, norm),
            )
        if version == "plus":
            return (
                APGD(100, norm, restarts=5),
                APGD(100, norm, "dlr", restarts=5),
                FAB(100, norm, restarts=5),
                Square(5000, norm),
                TargetedAPGD(100, norm),
                FAB(100, norm, targets=9),
            )
        return APGD(100, norm, eot=20), APGD(100, norm, "dlr", eot=20)


@register
class MarginEnsemble(NamedEnsemble):
    """The default attack of `keras_epsched.evaluate`.

    Use it to measure robustness. With the nested protocol and bisection, its
    result is close to that of `AutoAttack("standard")` with a small share of
    the passes: see
    [the measurements](../how-to/evaluate.md#compared-with-autoattack).

    First, 10 steps of `APGD` on the probability margin find roughly the
    epsilon at which an image breaks. At the next smaller epsilon, 100 steps of
    `APGD` on cross-entropy follow. `TargetedAPGD` with 100 steps then aims at
    each of the four wrong classes with the highest logits, on the margin of
    logits.

    Like every attack, the ensemble gives an upper bound on robust accuracy.
    All its attacks use gradients. Whether the gradients of a network mislead
    them is tested by the self-checks of an evaluation and by `AutoAttack`.

    The ensemble was found with a search over attacks, losses, steps and
    targets (benchmarks/attack_search.py), and was tested on other networks
    (benchmarks/frontier.py).

    References: arXiv 2411.15210 (probability margin), arXiv 2211.12713
    (greedy search), Croce & Hein, ICML 2020, arXiv 2003.01690 (Auto-PGD).

    Args:
        version: String. `"standard"` has 4 target classes, and `"thorough"`
            has 9, for results that must be right to tenths of a point.
            Defaults to `"standard"`.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.

    Example:
    ```python
    attack = keras_epsched.attacks.MarginEnsemble("thorough", norm="l2")
    grid = keras_epsched.epsilon_grid(0.5, num=6, norm="l2")
    report = keras_epsched.evaluate(classifier, data.test, grid, attack)
    ```
    """

    versions = ("standard", "thorough")

    def choose_members(self, version, norm):
        targets = 9 if version == "thorough" else 4
        return (
            APGD(10, norm, "probability_margin"),
            APGD(100, norm, "ce"),
            TargetedAPGD(100, norm, targets=targets, loss="margin"),
        )
