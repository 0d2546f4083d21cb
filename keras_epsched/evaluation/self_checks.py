"""Checks that an evaluation runs on itself.

An attack that fails silently makes a network look robust. Each check looks for
one way of failing, on a sample of images that is the same in every evaluation;
together they may cost a tenth of the passes of the evaluation. The pitfalls
are those of Athalye et al., ICML 2018 (arXiv 1802.00420), and Carlini et al.,
2019 (arXiv 1902.06705).
"""

import math

import numpy as np

from keras_epsched.attacks.apgd import APGD
from keras_epsched.attacks.square import Square
from keras_epsched.epsilons import format_epsilon
from keras_epsched.evaluation import second_look
from keras_epsched.evaluation.inspector import (
    FEWEST_IMAGES,
    Check,
    Inspector,
)

_UNBOUNDED_STEPS = 10
_MOST_QUERIES = 200
_FEWEST_QUERIES = 40
_FLOAT16_END = 65504.0


def run(inspector: Inspector) -> list[Check]:
    """Returns the outcome of every check that needs the sample.

    Args:
        inspector: `Inspector`, whose passes are counted on.
    """
    checks = (_randomness, _float16, _unbounded, _falling, _square, _stronger)
    return [check(inspector) for check in checks]


def zero_gradients(count: int, attacked: int) -> Check:
    """The check of images on which an attack had no gradient at all.

    Args:
        count: Int. Number of those images.
        attacked: Int. Number of images that were attacked.
    """
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


def _randomness(inspector):
    name = "random outputs"
    eot = inspector.sweep.eot
    count = min(inspector.afford(name, 2 * eot), 64)
    few = inspector.too_few(name, count)
    if few:
        return few
    first, second = (inspector.predict(count) for _ in range(2))
    scale = np.linalg.norm(first, axis=-1).max() + 1e-12
    change = float(np.abs(first - second).max() / scale)
    inspector.random = change > 1e-4
    averaged = all(
        getattr(attack, "eot", 1) > 1 for attack in inspector.sweep.attacks
    )
    if inspector.random and not averaged:
        return Check(
            name,
            "fired",
            f"the logits of one image differ by {100 * change:.2g} % from "
            "call to call: a single draw decides neither accuracy nor "
            'gradient. Use `AutoAttack("rand")` or `APGD(eot=20)`, or '
            "switch the randomness off",
        )
    if averaged:
        return Check(name, "passed", f"averaged over {eot} draws")
    return Check(name, "passed", "equal from call to call")


def _float16(inspector):
    name = "float16 saturation"
    layers = inspector.sweep.runner.classifier._flatten_layers()
    half = any(layer.compute_dtype == "float16" for layer in layers)
    if not half:
        return Check(name, "passed", "no layer computes in float16")
    count = inspector.afford(name, inspector.sweep.eot)
    few = inspector.too_few(name, count)
    if few:
        return few
    logits = inspector.predict(count)
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


def _unbounded(inspector):
    name = "unbounded attack"
    sweep = inspector.sweep
    attack = APGD(_UNBOUNDED_STEPS, inspector.norm, eot=sweep.eot)
    count = min(inspector.afford(name, inspector.cost(attack)), 64)
    few = inspector.too_few(name, count)
    if few:
        return few
    size = math.prod(inspector.pixels.shape[1:])
    largest = {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}
    epsilon = largest[attack.norm]
    broken = inspector.broken(attack, slice(count), epsilon, 1)
    chance = 1.0 / sweep.num_classes
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


def _falling(inspector):
    name = "accuracy against epsilon"
    epsilons = inspector.sweep.epsilons
    attack = inspector.sweep.attacks[0]
    cost = inspector.cost(attack)
    last = len(epsilons) - 1
    places = np.unique(np.linspace(1, last, 4).round().astype(int))
    if len(places) < 2:
        return Check(name, "not run", "the grid has a single epsilon")
    count = inspector.afford(name, cost * len(places))
    if count < 2 * FEWEST_IMAGES:
        # An attack that fails at the end shows where half had fallen.
        places = np.array([min(inspector.middle(), last - 1), last])
        count = inspector.afford(name, cost * len(places))
    few = inspector.too_few(name, count)
    if few:
        return few
    broken = np.stack(
        [
            inspector.broken(attack, slice(count), epsilons[place], place)
            for place in places
        ]
    )
    worst = _worst_rise(broken)
    text = f"{attack.title} afresh at {len(places)} epsilons, on {count} images"
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


def _square(inspector):
    name = "attack without gradients"
    attacks = inspector.sweep.attacks
    if any(isinstance(each, Square) for each in attacks):
        return _square_of_the_sweep(inspector, name)
    if inspector.size:
        try:
            Square().check_shape(inspector.pixels.shape)
        except ValueError as error:
            return Check(name, "not run", str(error))
    queries = int(inspector.share(name) / (2 * FEWEST_IMAGES)) - 1
    queries = min(max(queries, _FEWEST_QUERIES), _MOST_QUERIES)
    attack = Square(queries, inspector.norm, rescale=True)
    place = inspector.middle()
    standing = np.flatnonzero(inspector.broken_by[:, place] < 0)
    count = min(inspector.afford(name, inspector.cost(attack)), len(standing))
    few = inspector.too_few(name, count, len(standing))
    if few:
        return few
    epsilon = inspector.sweep.epsilons[place]
    more = int(inspector.broken(attack, standing[:count], epsilon, 2).sum())
    text = (
        f"{more} of {count} images that stand at epsilon "
        f"{format_epsilon(epsilon, attack.norm)} fall to {attack.title}"
    )
    if _is_above(more, count, 0.05):
        return Check(
            name,
            "fired",
            f"{text}: the gradients mislead, and the accuracies are too high. "
            "Use `AutoAttack` or add `Square` to the attack",
        )
    return Check(name, "passed", text)


def _square_of_the_sweep(inspector, name):
    attacks = inspector.sweep.attacks
    numbers = [
        number
        for number, attack in enumerate(attacks)
        if isinstance(attack, Square)
    ]
    if len(numbers) == len(attacks):
        return Check(name, "not run", "there is no gradient attack")
    count = int(np.isin(inspector.broken_by, numbers).any(axis=1).sum())
    text = f"`Square` was first to break {count} of {inspector.size} images"
    if count and _is_above(count, inspector.size, 0.01):
        return Check(
            name,
            "fired",
            f"{text}: the gradients mislead, and a longer search without "
            "them may break more",
        )
    return Check(name, "passed", text)


def _stronger(inspector):
    name = "stronger attack"
    sweep = inspector.sweep
    if inspector.random and sweep.eot == 1:
        return Check(
            name,
            "not run",
            "the outputs are random, so an image may fall by a lucky draw",
        )
    place = inspector.middle()
    epsilon = float(sweep.epsilons[place])
    standing = np.flatnonzero(inspector.broken_by[:, place] < 0)
    runs = second_look.stronger_runs(
        sweep.attacks, sweep.eot, sweep.num_classes
    )
    count = second_look.sample_size(runs, inspector.left(), len(standing))
    if count < second_look.FEWEST_IMAGES:
        # Whichever of the two is short.
        short = (
            f"only {count} images stand at epsilon "
            f"{format_epsilon(epsilon, inspector.norm)}"
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
        if not len(left) or cost * len(left) > inspector.left():
            break
        left = left[~inspector.broken(attack, left, epsilon, draw, variant)]
        tried.append(attack)
    found = second_look.SecondLook(
        epsilon,
        inspector.norm,
        float(inspector.accuracy[place]),
        count,
        count - len(left),
        tuple(tried),
    )
    if not found.fired:
        return Check(name, "passed", str(found), found.estimate)
    advice = second_look.advice(inspector.attack, sweep.nested)
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
