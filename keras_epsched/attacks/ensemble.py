"""Several attacks on each image: it stands only if it withstands all."""

import keras

from keras_epsched.attacks.apgd import APGD, TargetedAPGD
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.fab import FAB
from keras_epsched.attacks.square import Square
from keras_epsched.configurable import Configurable, register
from keras_epsched.epsilons import check_norm


@register
class AttackEnsemble(Configurable):
    """The point-wise worst case of several attacks, for evaluation.

    An image is attacked by one after the other until it is broken, so put
    cheap attacks first. The first has warm starts in a nested sweep.

    Args:
        members: List of `Attack`, all of one norm.

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
                f"`keras_epsched.attacks`. Received: {members!r}"
            )
        norms = sorted({each.norm for each in members})
        if len(norms) > 1:
            raise ValueError(
                "the members of an ensemble must share one norm, for they "
                f"share epsilon. Received: {norms}"
            )
        self.members = members
        self.norm = norms[0]

    def __repr__(self):
        return f"{type(self).__name__}({list(self.members)!r})"

    @property
    def title(self) -> str:
        """The ensemble as people name it: the titles of its members."""
        return ", then ".join(each.title for each in self.members)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {"members": [serialize(each) for each in self.members]}


class NamedEnsemble(AttackEnsemble):
    """Base class of ensembles that follow from a version and a norm.

    Subclasses have the `versions` there are, and choose the members.
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
        """Returns the attacks of a version, in a norm."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `choose_members()`"
        )

    def __repr__(self):
        return f"{type(self).__name__}({self.version!r}, norm={self.norm!r})"

    @property
    def title(self) -> str:
        """The ensemble as people name it: `"AutoAttack (standard)"`."""
        norm = "" if self.norm == "linf" else f", {self.norm}"
        return f"{type(self).__name__} ({self.version}){norm}"

    def get_config(self):
        return {"version": self.version, "norm": self.norm}


@register
class AutoAttack(NamedEnsemble):
    """The ensemble that robustness is reported with.

    - `"standard"`: APGD on cross-entropy, APGD towards 9 classes, FAB towards
      9 classes, Square.
    - `"plus"`: APGD on cross-entropy and on the difference of logits ratio,
      and untargeted FAB, with five restarts each; Square; the targeted two.
    - `"rand"`, for randomised networks: APGD on both losses, averaged over 20
      draws.

    With the budgets of the reference: 100 steps, 5000 queries. Where there are
    too few classes for a difference of logits ratio, the margin stands in.

    Reference: Croce & Hein, ICML 2020 (arXiv 2003.01690).

    Args:
        version: String. `"standard"`, `"plus"` or `"rand"`.
        norm: String. `"linf"`, `"l2"` or `"l1"`.

    Example:
    ```python
    attack = keras_epsched.attacks.AutoAttack("standard")
    report = keras_epsched.evaluate(classifier, data.test, grid, attack)
    ```
    """

    versions = ("standard", "plus", "rand")

    def choose_members(self, version, norm):
        if version == "standard":
            # The reference gives l1 more restarts and fewer targets.
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

    Ten steps of Auto-PGD on the probability margin find roughly where an image
    breaks. At the epsilon below, Auto-PGD on cross-entropy follows with 100
    steps, and then Auto-PGD towards each of the four classes that the network
    thinks the likeliest, on the targeted margin of logits. In a bisected
    sweep this ends close to `AutoAttack("standard")`, at a small share of its
    passes, as
    [the measurements](../how-to/evaluate.md#compared-with-autoattack) show.
    The ensemble was found by a search over attacks, losses, steps and targets,
    and judged on other networks. Like every attack it gives an upper bound of
    robustness. It follows gradients only: to find what masks them is the task
    of the self-checks of an evaluation, and of `AutoAttack`.

    References: the probability margin is that of arXiv 2411.15210, the greedy
    search that of arXiv 2211.12713, Auto-PGD that of Croce & Hein, ICML 2020
    (arXiv 2003.01690).

    Args:
        version: String. `"standard"`: as above. `"thorough"`: towards nine
            classes, for where tenths of a point matter.
        norm: String. `"linf"`, `"l2"` or `"l1"`.

    Example:
    ```python
    attack = keras_epsched.attacks.MarginEnsemble("thorough", norm="l2")
    report = keras_epsched.evaluate(
        classifier, data.test, keras_epsched.epsilon_grid(0.5), attack
    )
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
