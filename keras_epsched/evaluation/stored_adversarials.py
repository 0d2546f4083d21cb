"""The self-check of the stored adversarial images."""

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
    """Checks stored adversarial images again.

    Args:
        sweep: The `Sweep` that found them.
        images: `Image`s with an adversarial image, at least one.
        norm: String. Norm of the attack.
        value_range: Pair. Lowest and highest pixel value.

    Returns:
        Three values: a few of the images as `Examples`, the number of images
        that lie outside of the epsilon ball or the pixel range, and the number
        of images that are classified correctly.
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
    """Returns the check of the stored adversarial images.

    Args:
        looked_at: Int. Number of images that were checked.
        failed: Int. Number of images outside of the epsilon ball or the pixel
            range, or classified correctly.
    """
    name = "stored adversarials"
    if not looked_at:
        return Check(name, "not run", "the attack broke no image")
    # An image on a decision boundary may be classified either way.
    if failed > 0.01 * looked_at:
        return Check(
            name,
            "fired",
            f"{failed} of {looked_at} stored adversarial images are further "
            "than epsilon from the original, outside of the pixel range, or "
            "classified correctly. The attack has an error",
        )
    return Check(
        name,
        "passed",
        f"at least 99 % of {looked_at} images are within epsilon and "
        "misclassified",
    )


def is_within(
    adversarial: np.ndarray,
    images: np.ndarray,
    epsilons: np.ndarray,
    norm: str,
    value_range: tuple[float, float],
) -> np.ndarray:
    """Returns which adversarial images are valid, up to rounding.

    A valid image lies in the epsilon ball and in the pixel range.

    Args:
        adversarial: Array `(count, ...)`.
        images: Array of the same shape, the original images.
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
