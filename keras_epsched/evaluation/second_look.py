"""A second look at images that stand: what would a stronger attack break?

More steps of the same attack tend to stop where it stopped before, so the
second look is of another kind: on another loss, towards other classes, with
more steps. Losses and targets matter more than steps (Croce & Hein, ICML 2020,
arXiv 2003.01690).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_epsched.attacks.apgd import APGD, TargetedAPGD
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.ensemble import AutoAttack, MarginEnsemble
from keras_epsched.attacks.fab import FAB
from keras_epsched.attacks.square import Square
from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports.statistics import wilson_interval

# Of fewer images a single one that falls would decide.
FEWEST_IMAGES = 10
# A further attack is worth more than images beyond these.
_ENOUGH_IMAGES = 24
_MOST_IMAGES = 48
# Share of the images that stand which may fall.
_TOLERATED = 0.02
_FEWEST_STEPS = 20
_MOST_TARGETS = 9
# Losses of the gap between two classes, in the order of preference.
_MARGINS = ("margin", "probability_margin", "dlr")
# How the launchers name the ensembles.
_FLAGS = {"MarginEnsemble": "margin_ensemble", "AutoAttack": "autoattack"}


class Run(NamedTuple):
    """One run of an attack.

    Attributes:
        attack: `Attack`.
        variant: Int. Which of its variants, as the class to aim at.
        cost: Int. Passes for an image.
    """

    attack: Attack
    variant: int
    cost: int


def stronger_runs(
    attacks: Sequence[Attack], eot: int, num_classes: int
) -> list[Run]:
    """Chooses attacks of another kind than those of an evaluation.

    Where no attack followed a margin or aimed at a class, the first is
    Auto-PGD on the probability margin, with twice the steps. The last, and
    otherwise the only one, is Auto-PGD towards nine classes on a margin that
    was not used. Where targets were used before, it has half as many steps
    again.

    Args:
        attacks: The attacks of the evaluation.
        eot: Int. Draws of a randomised network that are averaged.
        num_classes: Int.

    Returns:
        A list of `Run`, in the order in which they pay.
    """
    norm = attacks[0].norm
    # Square follows no gradient, and its steps are queries.
    followed = [each for each in attacks if not isinstance(each, Square)]
    most = max((each.steps for each in followed), default=0)
    aimed = _is_aimed(attacks)
    losses = [each.loss for each in followed if not isinstance(each, FAB)]
    steps = max(_FEWEST_STEPS, 3 * most // 2 if aimed else 2 * most)
    unused = [loss for loss in _MARGINS if loss not in losses] or _MARGINS
    targeted = TargetedAPGD(steps, norm, _MOST_TARGETS, eot=eot, loss=unused[0])
    stronger: list[Attack] = [targeted]
    if not aimed and not any(loss in _MARGINS for loss in losses):
        stronger.insert(0, APGD(steps, norm, "probability_margin", eot=eot))
    return [
        Run(attack, variant, sum(attack.passes(num_classes)))
        for attack in stronger
        for variant in range(attack.num_variants(num_classes))
    ]


def sample_size(runs: Sequence[Run], budget: float, standing: int) -> int:
    """Returns how many images to look at again.

    As many as the budget takes through all runs; if those are too few, through
    all but the last, and so on: a weak attack shows on many images, rather
    than by the strongest one on a few.

    Args:
        runs: List of `Run`.
        budget: Passes there are.
        standing: Int. Number of images there are.
    """
    enough = min(_ENOUGH_IMAGES, standing)
    count = 0
    for cost in np.cumsum([run.cost for run in runs])[::-1]:
        count = min(int(budget / cost), _MOST_IMAGES, standing)
        if count >= enough:
            break
    return count


@dataclass(frozen=True)
class SecondLook:
    """What stronger attacks did to images that stood.

    Attributes:
        epsilon: Float. Where they stood.
        norm: String.
        accuracy: Float. Accuracy of the evaluation at this epsilon.
        images: Int. Number of images that were attacked again.
        fallen: Int. Number of those that fell.
        runs: Tuple of the `Attack` of each run, again for each target.
    """

    epsilon: float
    norm: str
    accuracy: float
    images: int
    fallen: int
    runs: tuple

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share of images that fall."""
        return wilson_interval(self.fallen, self.images)

    @property
    def fired(self) -> bool:
        """Whether more than 2 % fall: so says the end of the interval."""
        return self.interval[0] > _TOLERATED

    @property
    def estimate(self) -> dict:
        """The numbers, JSON-ready.

        `"overstated"` is by how much the accuracy is too high, `"low"` and
        `"high"` its 95 % interval: shares of all images, as the accuracy is.
        """
        low, high = (self.accuracy * end for end in self.interval)
        return {
            "epsilon": self.epsilon,
            "accuracy": self.accuracy,
            "images": self.images,
            "fallen": self.fallen,
            "overstated": self.accuracy * self.fallen / self.images,
            "low": low,
            "high": high,
        }

    def __str__(self):
        numbers = self.estimate
        points, low, high = (
            100 * numbers[key] for key in ("overstated", "low", "high")
        )
        return (
            f"about {points:.0f} points ({low:.0f} to {high:.0f}) of the "
            f"{100 * self.accuracy:.0f} % that stand at epsilon "
            f"{format_epsilon(self.epsilon, self.norm)} fall to a stronger "
            f"attack ({self._title()}: {self.fallen} of {self.images} images)"
        )

    def _title(self):
        """What was run, as people name it."""
        titles = []
        for number, attack in enumerate(self.runs):
            if attack in self.runs[:number]:
                continue
            if isinstance(attack, TargetedAPGD):
                targets = self.runs.count(attack)
                config = {**attack.get_config(), "targets": targets}
                attack = TargetedAPGD.from_config(config)
            titles.append(attack.title)
        return ", then ".join(titles)


def next_stronger(attack) -> tuple[str, str] | None:
    """The built-in ensemble that is next in strength, and its version."""
    version = getattr(attack, "version", None)
    members = getattr(attack, "members", (attack,))
    if isinstance(attack, AutoAttack):
        return ("AutoAttack", "plus") if version == "standard" else None
    if isinstance(attack, MarginEnsemble):
        if version == "standard":
            return "MarginEnsemble", "thorough"
        return "AutoAttack", "standard"
    if any(getattr(each, "eot", 1) > 1 for each in members):
        return "AutoAttack", "rand"
    if _is_aimed(members):
        return "MarginEnsemble", "thorough"
    return "MarginEnsemble", "standard"


def advice(attack, nested: bool = True) -> str:
    """Says what to evaluate with, in Python and on the command line.

    Args:
        attack: The `Attack` or `AttackEnsemble` of the evaluation.
        nested: Boolean. Whether its sweep was nested.
    """
    stronger = next_stronger(attack)
    if stronger is None:
        return (
            "No stronger attack is built in: combine attacks of more steps "
            "and restarts in an `AttackEnsemble`"
        )
    name, version = stronger
    standard = version == "standard"
    arguments = [] if standard else [f'"{version}"']
    if attack.norm != "linf":
        arguments.append(f'norm="{attack.norm}"')
    typed = f"attack=keras_epsched.attacks.{name}({', '.join(arguments)})"
    flag = f"--attack={_FLAGS[name]}{'' if standard else f'-{version}'}"
    if not nested:
        # An ensemble at each epsilon afresh would be dear, and the protocol
        # of the paper takes no other attack.
        typed = f'protocol="nested", {typed}'
        flag = f"--protocol=nested {flag}"
    return (
        f"To report robustness, evaluate with `{typed}`, on the command line "
        f"`{flag}`"
    )


def _is_aimed(attacks):
    return any(getattr(each, "targets", None) for each in attacks)
