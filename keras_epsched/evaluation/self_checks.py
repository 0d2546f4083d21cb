"""The self-checks of an evaluation.

A network can look robust only because the attack failed silently. Each check
looks for one cause of such a failure. The checks use a sample of images that
is the same in every evaluation, and together they may make a tenth of the
passes of the evaluation. The causes are described by Athalye et al., ICML 2018
(arXiv 1802.00420), and Carlini et al., 2019 (arXiv 1902.06705).
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
        inspector: `Inspector`. It counts the passes that the checks make.
    """
    checks = (_randomness, _float16, _unbounded, _falling, _square, _stronger)
    return [check(inspector) for check in checks]


def zero_gradients(count: int, attacked: int) -> Check:
    """Returns the check of images on which the attack found no gradient.

    Args:
        count: Int. Number of images without a gradient.
        attacked: Int. Number of images that were attacked.
    """
    name = "zero gradients"
    if count > 0.01 * max(attacked, 1):
        return Check(
            name,
            "fired",
            f"the attack found no gradient on {count} of {attacked} images: it "
            "was zero or too small. The attack may have failed on these "
            "images, and the accuracies may be too high. Look for rounding, "
            "saturated activations or float16 in the model",
        )
    return Check(
        name, "passed", f"{count} of {attacked} images had no gradient"
    )


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
            f"the logits of an image differ by up to {100 * change:.2g} % "
            "between two calls. The accuracies and gradients of single calls "
            'are not reliable. Use `AutoAttack("rand")` or `APGD(eot=20)`, or '
            "switch the randomness off",
        )
    if averaged:
        return Check(name, "passed", f"the attack averages {eot} calls")
    return Check(name, "passed", "two calls gave the same outputs")


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
            f"the logits of {100 * share:.0f} % of the images exceed the "
            "range of float16 and have no gradient. Compute the last layer "
            'in float32 (`dtype="float32"`)',
        )
    return Check(name, "passed", f"the logits of {count} images are in range")


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
            f"{text}, which is above chance ({100 * chance:.0f} %). The "
            "gradients of the network mislead the attack, and the accuracies "
            "are too high. Use an attack without gradients (`Square`), or "
            "attack a differentiable copy of the network",
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
        return Check(name, "not run", "the grid has only one epsilon above 0")
    count = inspector.afford(name, cost * len(places))
    if count < 2 * FEWEST_IMAGES:
        # If the attack fails at the largest epsilon, fewer images break there
        # than at the epsilon that breaks half of the images.
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
    text = (
        f"{attack.title} attacked {count} images from scratch at "
        f"{len(places)} epsilons"
    )
    if worst > max(2, 0.1 * count):
        return Check(
            name,
            "fired",
            f"{text}, and broke {worst} fewer at a larger epsilon than at a "
            "smaller one. It does not make use of the larger epsilon. Use an "
            "attack that chooses its own step size (`APGD`), with more steps",
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
        f"random search ({attack.title}) broke {more} of {count} images that "
        "withstood the evaluation at epsilon "
        f"{format_epsilon(epsilon, attack.norm)}"
    )
    if _is_above(more, count, 0.05):
        return Check(
            name,
            "fired",
            f"{text}. The gradients of the network mislead the attack, and "
            "the accuracies are too high. Use `AutoAttack`, or add `Square` to "
            "the attack",
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
        return Check(name, "not run", "the attack uses no gradients")
    count = int(np.isin(inspector.broken_by, numbers).any(axis=1).sum())
    text = f"`Square` was first to break {count} of {inspector.size} images"
    if count and _is_above(count, inspector.size, 0.01):
        return Check(
            name,
            "fired",
            f"{text}. The gradients of the network mislead the other attacks. "
            "A longer search without gradients may break more images: use "
            "more `queries`",
        )
    return Check(name, "passed", text)


def _stronger(inspector):
    name = "stronger attack"
    sweep = inspector.sweep
    if inspector.random and sweep.eot == 1:
        return Check(
            name,
            "not run",
            "the outputs are random, so a broken image may be due to chance",
        )
    place = inspector.middle()
    epsilon = float(sweep.epsilons[place])
    standing = np.flatnonzero(inspector.broken_by[:, place] < 0)
    runs = second_look.stronger_runs(
        sweep.attacks, sweep.eot, sweep.num_classes
    )
    count = second_look.sample_size(runs, inspector.left(), len(standing))
    if count < second_look.FEWEST_IMAGES:
        short = (
            f"only {count} images withstood the evaluation at epsilon "
            f"{format_epsilon(epsilon, inspector.norm)}"
            if count == len(standing)
            else f"a tenth of the cost of the evaluation allows only {count} "
            "images"
        )
        return Check(
            name,
            "not run",
            f"{short}, which is too few for a result. Evaluate more images",
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
        f"{found}. {advice}",
        found.estimate,
    )


def _is_above(successes, count, share) -> bool:
    """Whether `successes / count` is significantly above `share`."""
    from scipy.stats import binomtest

    test = binomtest(successes, count, share, alternative="greater")
    return test.pvalue < 0.05


def _worst_rise(broken) -> int:
    """The largest rise of correct images from a smaller to a larger epsilon."""
    standing = (~broken).sum(axis=1)
    return max(
        int(standing[later] - standing[earlier])
        for earlier in range(len(standing))
        for later in range(earlier, len(standing))
    )
