"""Checks that an evaluation runs on itself.

An attack that fails silently makes a network look robust. Each check looks for
one way of failing, on a probe of images that are the same in every evaluation;
together they may cost a tenth of the passes of the evaluation. The pitfalls
are those of Athalye et al., ICML 2018 (arXiv 1802.00420), and Carlini et al.,
2019 (arXiv 1902.06705).
"""

import math
from dataclasses import dataclass

import numpy as np

from keras_epsched.attacks import norms
from keras_epsched.attacks.apgd import APGD
from keras_epsched.attacks.square import Square
from keras_epsched.epsilons import format_epsilon
from keras_epsched.evaluation import second_look

# Share of the passes of the evaluation that the checks may cost.
_BUDGET = 0.1
_FEWEST_IMAGES = 8
# What each check may take of it. What is left is for the stronger attack, which
# is the last and matters most: about half.
_SHARES = {
    "random outputs": 0.05,
    "float16 saturation": 0.05,
    "unbounded attack": 0.1,
    "accuracy against epsilon": 0.15,
    "attack without gradients": 0.16,
}
# Steps of the attack that is not bounded.
_PROBE_STEPS = 10
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
        estimate: Dict of numbers, of a check that estimates something, see
            `SecondLook.estimate`; or `None`.
    """

    name: str
    status: str
    message: str
    estimate: dict | None = None


class Inspector:
    """Runs the checks that need the probe.

    Args:
        sweep: The `Sweep` that has run.
        attack: The `Attack` or `AttackEnsemble` of the evaluation.
        accuracy: Array. Accuracy of the evaluation at each epsilon.
        probe: `Probe`.
        passes: Int. Forward and backward passes of the evaluation.
        spent: Int. Those that checks have cost already.
    """

    def __init__(self, sweep, attack, accuracy, probe, passes, spent):
        self.sweep = sweep
        self.attack = attack
        self.accuracy = accuracy
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
            self._square(),
            self._stronger(),
        ]

    def _afford(self, cost, name):
        """Number of probe images for a check, at a cost each."""
        return min(self.size, int(_SHARES[name] * self.budget / cost))

    def _left(self):
        """The passes that are left."""
        return self.budget - self.forward - self.backward

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

    def _broken(self, attack, chosen, epsilon, draw, variant=0):
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
            variant,
        )

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
        count = min(self._afford(2 * self.sweep.eot, name), 64)
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
        count = self._afford(self.sweep.eot, name)
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
        norm = self.sweep.members[0].attack.norm
        attack = APGD(_PROBE_STEPS, norm, eot=self.sweep.eot)
        cost = sum(attack.passes(self.sweep.num_classes))
        count = min(self._afford(cost, name), 64)
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
        name = "accuracy against epsilon"
        attack = self.sweep.members[0].attack
        cost = sum(attack.passes(self.sweep.num_classes))
        last = len(self.sweep.epsilons) - 1
        places = np.unique(np.linspace(1, last, 4).round().astype(int))
        if len(places) < 2:
            return Check(name, "not run", "the grid has a single epsilon")
        count = self._afford(cost * len(places), name)
        if count < 2 * _FEWEST_IMAGES:
            # An attack that fails at the end shows where half had fallen.
            places = np.array([min(self._middle(), last - 1), last])
            count = self._afford(cost * len(places), name)
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
        text = (
            f"{attack.title} afresh at {len(places)} epsilons, on {count} "
            "images"
        )
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

    def _square(self):
        name = "attack without gradients"
        if self.has_square:
            return self._square_of_the_sweep(name)
        if self.size:
            try:
                Square().check_shape(self.pixels.shape)
            except ValueError as error:
                return Check(name, "not run", str(error))
        share = _SHARES[name] * self.budget
        queries = int(share / (2 * _FEWEST_IMAGES)) - 1
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
        count = min(self._afford(cost, name), len(standing))
        few = self._too_few(name, count, len(standing))
        if few:
            return few
        epsilon = self.sweep.epsilons[place]
        more = int(self._broken(attack, standing[:count], epsilon, 2).sum())
        text = (
            f"{more} of {count} images that stand at epsilon "
            f"{format_epsilon(epsilon, attack.norm)} fall to {attack.title}"
        )
        if _is_above(more, count, threshold):
            return Check(name, "fired", f"{text}: {advice}")
        return Check(name, "passed", text)

    def _stronger(self):
        name = "stronger attack"
        if self.random and self.sweep.eot == 1:
            return Check(
                name,
                "not run",
                "the outputs are random, so an image may fall by a lucky draw",
            )
        place = self._middle()
        epsilon = float(self.sweep.epsilons[place])
        standing = np.flatnonzero(self.broken_by[:, place] < 0)
        runs = second_look.stronger_runs(
            [member.attack for member in self.sweep.members],
            self.sweep.eot,
            self.sweep.num_classes,
        )
        count = second_look.sample_size(runs, self._left(), len(standing))
        if count < second_look.FEWEST_IMAGES:
            # Whichever of the two is short.
            short = (
                f"only {count} images stand at epsilon "
                f"{format_epsilon(epsilon, self.attack.norm)}"
                if count == len(standing)
                else f"only {count} images are within a tenth of the cost of "
                "the evaluation"
            )
            return Check(
                name,
                "not run",
                f"{short}, too few to tell anything: evaluate more images",
            )
        left, tried = standing[:count], []
        for draw, (attack, variant, cost) in enumerate(runs, 2):
            if not len(left) or cost * len(left) > self._left():
                break
            left = left[~self._broken(attack, left, epsilon, draw, variant)]
            tried.append(attack)
        found = second_look.SecondLook(
            epsilon,
            self.attack.norm,
            float(self.accuracy[place]),
            count,
            count - len(left),
            tuple(tried),
        )
        if not found.fired:
            return Check(name, "passed", str(found), found.estimate)
        advice = second_look.advice(self.attack, self.sweep.nested)
        return Check(
            name,
            "fired",
            f"{found}, so the accuracies are too high. {advice}",
            found.estimate,
        )


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
    slack = norms.slack(norm, radius, value_range)
    delta = np.asarray(adversarial, "float64") - np.asarray(images, "float64")
    delta = delta.reshape(len(delta), -1)
    size = np.linalg.norm(delta, norms.ORDERS[norm], axis=1)
    flat = adversarial.reshape(len(delta), -1)
    in_box = (flat.min(axis=1) >= low) & (flat.max(axis=1) <= high)
    return in_box & (size <= radius + slack)
