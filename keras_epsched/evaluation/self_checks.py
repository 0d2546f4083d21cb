"""Checks that an evaluation runs on itself.

An attack that fails silently makes a network look robust. Each check looks for
one way of failing, on a probe of images that are the same in every evaluation;
together they may cost a tenth of the passes of the evaluation. The pitfalls
are those of Athalye et al., ICML 2018 (arXiv 1802.00420), and Carlini et al.,
2019 (arXiv 1902.06705).
"""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from keras_epsched.attacks import norms
from keras_epsched.attacks.apgd import APGD
from keras_epsched.attacks.square import Square

PROBE_SIZE = 256
# Share of the passes of the evaluation that the checks may cost.
_BUDGET = 0.1
_FEWEST_IMAGES = 8
# What the checks that attack once may take of it; another takes the rest.
_SHARE = 0.2
# Steps of the attacks on the probe, unless those of the user are fewer.
_PROBE_STEPS = 10
_STRONG_STEPS = 30
_MOST_QUERIES = 200
_FEWEST_QUERIES = 40
_FLOAT16_END = 65504.0


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: String.
        status: String. `"passed"`, `"fired"` or `"not run"`.
        message: String. What was found, and what to do about it.
    """

    name: str
    status: str
    message: str


@dataclass(repr=False)
class Probe:
    """The images with the smallest lots of all that are correct."""

    lots: list = field(default_factory=list)

    def add(self, lots, pixels, labels, numbers, broken_by):
        """Considers images for the probe."""
        rows = zip(lots, pixels, labels, numbers, broken_by, strict=True)
        for lot, image, label, number, breakers in rows:
            # The largest lot leads the heap, and leaves it first.
            key = -int(lot), int(number)
            if len(self.lots) == PROBE_SIZE and key <= self.lots[0][0]:
                continue
            # Copies: views would keep whole windows in memory.
            item = key, (image.copy(), label, breakers.copy())
            if len(self.lots) < PROBE_SIZE:
                heapq.heappush(self.lots, item)
            else:
                heapq.heapreplace(self.lots, item)

    def __len__(self):
        return len(self.lots)

    def arrays(self):
        """Pixels, labels, numbers and breakers, in the order of the lots."""
        items = sorted(self.lots, key=lambda item: item[0], reverse=True)
        return (
            np.stack([image for _, (image, _, _) in items]),
            np.array([label for _, (_, label, _) in items]),
            np.array([number for (_, number), _ in items]),
            np.stack([breakers for _, (_, _, breakers) in items]),
        )


class Inspector:
    """Runs the checks that need the probe.

    Args:
        sweep: The `Sweep` that has run.
        probe: `Probe`.
        passes: Int. Forward and backward passes of the evaluation.
        spent: Int. Those that checks have cost already.
    """

    def __init__(self, sweep, probe, passes, spent):
        self.sweep = sweep
        self.forward = self.backward = 0
        self.budget = max(_BUDGET * passes - spent, 0.0)
        self.random = False
        self.size = len(probe)
        if self.size:
            arrays = probe.arrays()
            self.pixels, self.labels, self.numbers, self.broken_by = arrays
        else:
            self.broken_by = np.empty((0, len(sweep.epsilons)), "int8")
        attacks = [member.attack for member in sweep.members]
        self.has_square = any(isinstance(each, Square) for each in attacks)

    def run(self) -> list[Check]:
        """Returns the outcome of every check."""
        return [
            self._randomness(),
            self._float16(),
            self._unbounded(),
            self._falling(),
            self._more_steps(),
            self._square(),
        ]

    def _afford(self, cost, share):
        """Number of probe images for a check, at a cost each."""
        return min(self.size, int(share * self.budget / cost))

    def _too_few(self, name, count, available=None):
        available = self.size if available is None else available
        if not available:
            return Check(name, "not run", "no image is left standing")
        if count >= min(_FEWEST_IMAGES, available):
            return None
        return Check(
            name,
            "not run",
            f"only {count} images are within a tenth of the cost of the "
            "evaluation",
        )

    def _broken(self, attack, chosen, epsilon, draw):
        """Attacks some images of the probe afresh."""
        count = len(self.labels[chosen])
        ahead, back = attack.passes(self.sweep.num_classes)
        self.forward += count * ahead
        self.backward += count * back
        return self.sweep.attack_once(
            attack,
            self.pixels[chosen],
            self.labels[chosen],
            self.numbers[chosen],
            np.full(count, epsilon),
            draw,
        )

    def _apgd(self, steps, **kwargs):
        norm = self.sweep.members[0].attack.norm
        return APGD(steps, norm, eot=self.sweep.eot, **kwargs)

    def _middle(self):
        """The place where half of the probe withstands the evaluation.

        The largest of several: what stands there is most likely not to.
        """
        standing = (self.broken_by[:, 1:] < 0).sum(axis=0)
        distance = np.abs(standing - 0.5 * self.size)
        return len(distance) - int(np.argmin(distance[::-1]))

    # === The checks ===

    def _randomness(self):
        name = "random outputs"
        count = self._afford(2 * self.sweep.eot, 0.05)
        few = self._too_few(name, count)
        if few:
            return few
        first, second = (
            self.sweep.predict(self.pixels[:count]) for _ in range(2)
        )
        self.forward += 2 * count * self.sweep.eot
        scale = np.linalg.norm(first, axis=-1).max() + 1e-12
        change = float(np.abs(first - second).max() / scale)
        self.random = change > 1e-4
        averaged = all(
            getattr(member.attack, "eot", 1) > 1
            for member in self.sweep.members
        )
        if self.random and not averaged:
            return Check(
                name,
                "fired",
                f"the logits of one image differ by {100 * change:.2g} % from "
                "call to call: a single draw decides neither accuracy nor "
                'gradient. Use `AutoAttack("rand")` or `APGD(eot=20)`, or '
                "switch the randomness off",
            )
        if averaged:
            return Check(
                name, "passed", f"averaged over {self.sweep.eot} draws"
            )
        return Check(name, "passed", "equal from call to call")

    def _float16(self):
        name = "float16 saturation"
        layers = self.sweep.runner.classifier._flatten_layers()
        half = any(layer.compute_dtype == "float16" for layer in layers)
        if not half:
            return Check(name, "passed", "no layer computes in float16")
        count = self._afford(self.sweep.eot, 0.05)
        few = self._too_few(name, count)
        if few:
            return few
        logits = self.sweep.predict(self.pixels[:count])
        self.forward += count * self.sweep.eot
        top = np.sort(logits, axis=-1)
        saturated = (np.abs(logits).max(axis=-1) >= _FLOAT16_END) | (
            top[:, -1] == top[:, -2]
        )
        share = float(saturated.mean())
        if share > 0.01:
            return Check(
                name,
                "fired",
                f"the logits of {100 * share:.0f} % of the images leave the "
                "range of float16, so no gradient is left: compute the last "
                'layer in float32 (`dtype="float32"`)',
            )
        return Check(name, "passed", f"logits of {count} images in range")

    def _unbounded(self):
        name = "unbounded attack"
        attack = self._apgd(_PROBE_STEPS)
        cost = sum(attack.passes(self.sweep.num_classes))
        count = min(self._afford(cost, 0.15), 64)
        few = self._too_few(name, count)
        if few:
            return few
        size = math.prod(self.pixels.shape[1:])
        largest = {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}
        epsilon = largest[attack.norm]
        broken = self._broken(attack, slice(count), epsilon, 1)
        chance = 1.0 / self.sweep.num_classes
        accuracy = 1.0 - broken.mean()
        text = (
            f"accuracy {100 * accuracy:.0f} % on {count} images when every "
            "pixel may take any value"
        )
        if _is_above(int((~broken).sum()), count, chance):
            return Check(
                name,
                "fired",
                f"{text}, above chance ({100 * chance:.0f} %): the gradients "
                "mislead, and the accuracies are too high. Use an attack "
                "without gradients (`Square`) or one on a differentiable copy",
            )
        return Check(name, "passed", text)

    def _falling(self):
        name = "accuracy falls with epsilon"
        attack = self.sweep.members[0].attack
        cost = sum(attack.passes(self.sweep.num_classes))
        last = len(self.sweep.epsilons) - 1
        places = np.unique(np.linspace(1, last, 4).round().astype(int))
        if len(places) < 2:
            return Check(name, "not run", "the grid has a single epsilon")
        count = self._afford(cost * len(places), 0.35)
        while count < 2 * _FEWEST_IMAGES and len(places) > 2:
            places = places[[0, -1]] if len(places) < 4 else places[[0, 1, -1]]
            count = self._afford(cost * len(places), 0.35)
        few = self._too_few(name, count)
        if few:
            return few
        broken = np.stack(
            [
                self._broken(
                    attack, slice(count), self.sweep.epsilons[place], place
                )
                for place in places
            ]
        )
        worst = _worst_rise(broken)
        text = f"{attack!r} afresh at {len(places)} epsilons, on {count} images"
        if worst > max(2, 0.1 * count):
            return Check(
                name,
                "fired",
                f"{text}: {worst} more images stand at a larger epsilon than "
                "at a smaller one, where they were broken. The attack does "
                "not make use of its radius: take one that chooses its own "
                "step (`APGD`), with more steps",
            )
        return Check(name, "passed", text)

    def _more_steps(self):
        name = "more steps do not help"
        loss = getattr(self.sweep.members[0].attack, "loss", "ce")
        attack = self._apgd(_STRONG_STEPS, loss=loss)
        return self._against_survivors(
            name,
            attack,
            0.1,
            "the attack is too weak: give it more steps or restarts",
        )

    def _square(self):
        name = "no gradients do no better"
        if self.has_square:
            return self._square_of_the_sweep(name)
        if self.size and self.pixels.ndim != 4:
            return Check(name, "not run", "`Square` needs images")
        queries = int(_SHARE * self.budget / (2 * _FEWEST_IMAGES)) - 1
        queries = min(max(queries, _FEWEST_QUERIES), _MOST_QUERIES)
        norm = self.sweep.members[0].attack.norm
        return self._against_survivors(
            name,
            Square(queries, norm, rescale=True),
            0.05,
            "the gradients mislead, and the accuracies are too high. Use "
            "`AutoAttack` or add `Square` to the attack",
        )

    def _square_of_the_sweep(self, name):
        members = self.sweep.members
        numbers = [
            number
            for number, member in enumerate(members)
            if isinstance(member.attack, Square)
        ]
        if len(numbers) == len(members):
            return Check(name, "not run", "there is no gradient attack")
        count = int(np.isin(self.broken_by, numbers).any(axis=1).sum())
        text = f"`Square` was first to break {count} of {self.size} images"
        if count and _is_above(count, self.size, 0.01):
            return Check(
                name,
                "fired",
                f"{text}: the gradients mislead, and a longer search without "
                "them may break more",
            )
        return Check(name, "passed", text)

    def _against_survivors(self, name, attack, threshold, advice):
        """Fires where another attack breaks what the evaluation did not."""
        cost = sum(attack.passes(self.sweep.num_classes))
        place = self._middle()
        standing = np.flatnonzero(self.broken_by[:, place] < 0)
        count = min(self._afford(cost, _SHARE), len(standing))
        few = self._too_few(name, count, len(standing))
        if few:
            return few
        epsilon = self.sweep.epsilons[place]
        more = int(self._broken(attack, standing[:count], epsilon, 2).sum())
        text = (
            f"{attack!r} breaks {more} of {count} images that stand at "
            f"epsilon {epsilon:.4g}"
        )
        if _is_above(more, count, threshold):
            return Check(name, "fired", f"{text}: {advice}")
        return Check(name, "passed", text)


def _is_above(successes, count, share) -> bool:
    """Whether a share is larger than some share, beyond chance."""
    from scipy.stats import binomtest

    test = binomtest(successes, count, share, alternative="greater")
    return test.pvalue < 0.05


def _worst_rise(broken) -> int:
    """Most images by which accuracy rises from a smaller to a larger place."""
    standing = (~broken).sum(axis=1)
    return max(
        int(standing[later] - standing[earlier])
        for earlier in range(len(standing))
        for later in range(earlier, len(standing))
    )


def zero_gradients(count: int, attacked: int) -> Check:
    """The check of images on which an attack had no gradient at all."""
    name = "zero gradients"
    if count > 0.01 * max(attacked, 1):
        return Check(
            name,
            "fired",
            f"the attack found no gradient on {count} of {attacked} images, or "
            "one that rounding would swallow, so it may have failed there and "
            "the accuracies are too high: look for rounding, saturated "
            "activations or float16 in the model",
        )
    return Check(name, "passed", f"{count} of {attacked} images")


def stored_adversarials(looked_at: int, failed: int) -> Check:
    """The check of adversarial images against ball, box and network."""
    name = "stored adversarials"
    if not looked_at:
        return Check(name, "not run", "no image was broken")
    # An image on the very boundary may fall to either side.
    if failed > 0.01 * looked_at:
        return Check(
            name,
            "fired",
            f"{failed} of {looked_at} adversarial images lie outside the ball "
            "or the box, or are classified correctly when looked at again: "
            "the attack, or its bookkeeping, is wrong",
        )
    return Check(
        name,
        "passed",
        f"{looked_at} lie in ball and box, and are misclassified",
    )


def is_within(adversarial, images, epsilons, norm, value_range):
    """Which adversarial images lie in ball and box, up to rounding."""
    low, high = value_range
    radius = epsilons * (high - low)
    slack = 2 * np.spacing(np.float32(max(abs(low), abs(high))))
    # Rounding adds up in sums over pixels.
    slack = slack + (0.0 if norm == "linf" else 1e-5) * radius
    delta = np.asarray(adversarial, "float64") - np.asarray(images, "float64")
    delta = delta.reshape(len(delta), -1)
    size = np.linalg.norm(delta, norms.ORDERS[norm], axis=1)
    flat = adversarial.reshape(len(delta), -1)
    in_box = (flat.min(axis=1) >= low) & (flat.max(axis=1) <= high)
    return in_box & (size <= radius + slack)
