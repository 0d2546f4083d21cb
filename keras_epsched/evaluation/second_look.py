"""The self-check "stronger attack" and its advice.

The check runs a stronger attack on images that withstood the evaluation. More
steps of the same attack would often end at the same point. The stronger attack
therefore uses another loss or aims at other classes, and takes more steps.
Losses and targets matter more than steps (Croce & Hein, ICML 2020, arXiv
2003.01690).
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

# With fewer images a single one would decide the result.
FEWEST_IMAGES = 10
# Beyond this number, another attack tells more than more images.
_ENOUGH_IMAGES = 24
_MOST_IMAGES = 48
# The check fails if the stronger attack breaks a larger share of the images.
_TOLERATED = 0.02
_FEWEST_STEPS = 20
_MOST_TARGETS = 9
# Losses that measure the gap between two classes, the preferred one first.
_MARGINS = ("margin", "probability_margin", "dlr")
# The names of the ensembles in the launchers' flag `--attack`.
_FLAGS = {"MarginEnsemble": "margin_ensemble", "AutoAttack": "autoattack"}


class Run(NamedTuple):
    """One run of an attack.

    Attributes:
        attack: `Attack`.
        variant: Int. Number of the variant, for example the target class.
        cost: Int. Forward and backward passes for one image.
    """

    attack: Attack
    variant: int
    cost: int


def stronger_runs(
    attacks: Sequence[Attack], eot: int, num_classes: int
) -> list[Run]:
    """Chooses attacks that differ from the attacks of an evaluation.

    The last attack is always Auto-PGD towards nine classes, on a margin loss
    that the evaluation did not use. It takes 1.5 times the steps of the
    evaluation if the evaluation used target classes, otherwise twice the
    steps. If the evaluation used neither target classes nor a margin loss,
    Auto-PGD on the probability margin runs first, with twice the steps.

    Args:
        attacks: List of `Attack`, the attacks of the evaluation.
        eot: Int. Number of outputs of a randomised network to average.
        num_classes: Int. Number of classes.

    Returns:
        A list of `Run`, the most useful first.
    """
    norm = attacks[0].norm
    # Square uses no gradient, and its steps are queries.
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
    """Returns how many images to attack again.

    This is the number of images that the budget allows with all runs. If it
    is too small, the last run is left out, and so on. Many images with some
    of the runs tell more than a few images with all of them.

    Args:
        runs: List of `Run`.
        budget: Float. Passes that the check may make.
        standing: Int. Number of images that withstood the evaluation.
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
    """The result of stronger attacks on images that withstood the evaluation.

    Attributes:
        epsilon: Float, on the [0, 1] scale. The images withstood this epsilon.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        accuracy: Float. Accuracy of the evaluation at this epsilon.
        images: Int. Number of images that were attacked again.
        fallen: Int. Number of images that the stronger attacks broke.
        runs: Tuple with the `Attack` of each run. An attack occurs once for
            each target class.
    """

    epsilon: float
    norm: str
    accuracy: float
    images: int
    fallen: int
    runs: tuple

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share of images that break."""
        return wilson_interval(self.fallen, self.images)

    @property
    def fired(self) -> bool:
        """Whether the check failed: the interval lies above 2 %."""
        return self.interval[0] > _TOLERATED

    @property
    def estimate(self) -> dict:
        """The numbers of the result, as a dict for JSON.

        `"overstated"` estimates by how much the accuracy is too high. `"low"`
        and `"high"` are its 95 % interval. All three are fractions of all
        images.
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
            f"the {100 * self.accuracy:.0f} % accuracy at epsilon "
            f"{format_epsilon(self.epsilon, self.norm)} is about "
            f"{points:.0f} points too high (95 % interval {low:.0f} to "
            f"{high:.0f}): a stronger attack ({self._title()}) broke "
            f"{self.fallen} of {self.images} images that withstood the "
            "evaluation"
        )

    def _title(self):
        """The title of the attacks that were run."""
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
    """Returns the name and version of the next stronger built-in ensemble.

    `None` if there is none.
    """
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
    """Returns which attack to use, in Python and on the command line.

    Args:
        attack: The `Attack` or `AttackEnsemble` of the evaluation.
        nested: Boolean. Whether the protocol was `"nested"`.
    """
    stronger = next_stronger(attack)
    if stronger is None:
        return (
            "No stronger attack is built in: combine attacks with more steps "
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
        # An ensemble from scratch at each epsilon would be expensive, and the
        # protocol of the paper allows no other attack.
        typed = f'protocol="nested", {typed}'
        flag = f"--protocol=nested {flag}"
    return (
        f"To publish a number, evaluate with `{typed}` (on the command line: "
        f"`{flag}`)"
    )


def _is_aimed(attacks):
    return any(getattr(each, "targets", None) for each in attacks)
