"""Adversarial images that were kept, held against ball, box and network."""

from collections.abc import Sequence

import numpy as np

from keras_epsched.attacks import norms
from keras_epsched.evaluation.inspector import Check
from keras_epsched.evaluation.sweep import Sweep
from keras_epsched.reports.examples import Examples

_NUM_EXAMPLES = 8


def look_again(
    sweep: Sweep,
    images: Sequence,
    norm: str,
    value_range: tuple[float, float],
) -> tuple[Examples, int, int]:
    """Looks at the adversarials of images that were broken.

    Args:
        sweep: The `Sweep` that broke them.
        images: `Image`s that keep an adversarial, at least one.
        norm: String. Norm of the attack.
        value_range: Pair. Lowest and highest pixel value.

    Returns:
        A few of them as `Examples`; how many lie outside of ball or box; and
        how many are classified correctly now.
    """
    stored = np.stack([image.example[1] for image in images])
    logits = sweep.predict(stored)
    labels = np.array([image.label for image in images])
    found = logits.argmax(axis=-1)
    wrong = (found != labels) | ~np.isfinite(logits).all(axis=-1)
    epsilons = sweep.epsilons[[image.example[0] for image in images]]
    clean = np.stack([image.pixels for image in images])
    within = is_within(stored, clean, epsilons, norm, value_range)
    few = slice(_NUM_EXAMPLES)
    examples = Examples(
        clean=clean[few],
        adversarial=stored[few],
        epsilon=epsilons[few],
        label=labels[few],
        prediction=found[few],
    )
    return examples, int((~within).sum()), int((~wrong).sum())


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


def is_within(
    adversarial: np.ndarray,
    images: np.ndarray,
    epsilons: np.ndarray,
    norm: str,
    value_range: tuple[float, float],
) -> np.ndarray:
    """Which adversarial images lie in ball and box, up to rounding.

    Args:
        adversarial: Array `(count, ...)`.
        images: Array of the same shape, as they were.
        epsilons: Array of shape `(count,)`, on the [0, 1] scale.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        value_range: Pair. Lowest and highest pixel value.

    Returns:
        A boolean array of shape `(count,)`.
    """
    low, high = value_range
    radius = epsilons * (high - low)
    slack = norms.slack(norm, radius, value_range)
    delta = np.asarray(adversarial, "float64") - np.asarray(images, "float64")
    delta = delta.reshape(len(delta), -1)
    size = np.linalg.norm(delta, norms.ORDERS[norm], axis=1)
    flat = adversarial.reshape(len(delta), -1)
    in_box = (flat.min(axis=1) >= low) & (flat.max(axis=1) <= high)
    return in_box & (size <= radius + slack)
