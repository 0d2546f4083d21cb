"""Losses that attacks maximise: functions `(labels, logits) -> (batch,)`.

They take float32 logits and integer labels. They are never averaged, so the
gradient of an image does not depend on the batch. An attack may scale the loss
of each image, which does not change the direction of a step.
"""

from collections.abc import Callable

import keras
from keras import ops

# Used instead of minus infinity, because infinity minus infinity is NaN.
_LOWEST = -1e30


def _true_and_others(labels, logits):
    mask = ops.one_hot(labels, ops.shape(logits)[-1], dtype="bool")
    true = ops.sum(ops.where(mask, logits, 0.0), axis=-1, keepdims=True)
    return true, ops.where(mask, _LOWEST, logits)


def cross_entropy(labels, logits):
    """Cross-entropy as log-odds against the label.

    Returns `m = logsumexp_{i != y}(z_i - z_y)`. Cross-entropy is
    `softplus(m)`, an increasing function of `m`. Both therefore have the same
    maxima, the same order of points and the same direction of steepest
    ascent. The gradient of the cross-entropy, `softmax_y - 1`, rounds to zero
    in float32 if the confidence is above 1 - 6e-8, and an attack that follows
    it does not move. The gradient of `m` never rounds to zero.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`. Its `softplus` is the
        cross-entropy.
    """
    true, others = _true_and_others(labels, logits)
    return ops.logsumexp(others - true, axis=-1)


def margin(labels, logits):
    """Largest wrong logit minus the true logit: positive if misclassified.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    true, others = _true_and_others(labels, logits)
    return ops.max(others - true, axis=-1)


def difference_of_logits_ratio(labels, logits):
    """The margin, divided by the gap between the first and third logit.

    It does not change if the logits are shifted or scaled. With two classes
    there is no third logit, and the result is the margin.

    Reference: Croce & Hein, ICML 2020 (arXiv 2003.01690), equation 6.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    if logits.shape[-1] < 3:
        return margin(labels, logits)
    top, _ = ops.top_k(logits, 3)
    return margin(labels, logits) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_margin(labels, targets, logits):
    """Logit of a target class minus the true logit.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        targets: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    count = logits.shape[-1]
    difference = ops.one_hot(targets, count) - ops.one_hot(labels, count)
    return ops.sum(
        ops.where(difference == 0, 0.0, difference * logits), axis=-1
    )


def targeted_difference_of_logits_ratio(labels, targets, logits):
    """The targeted margin, divided by the gap of the first to later logits.

    The gap is the first logit minus the mean of the third and fourth logit.
    With fewer than four classes the result is the targeted margin.

    Reference: Croce & Hein, ICML 2020 (arXiv 2003.01690), equation 7.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        targets: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    gain = targeted_margin(labels, targets, logits)
    if logits.shape[-1] < 4:
        return gain
    top, _ = ops.top_k(logits, 4)
    return gain / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def probability_margin(labels, logits):
    """Largest wrong probability minus the true one, as a logarithm.

    Returns `log(1 + P)`. `P = max_{i != y} p_i - p_y` is the probability
    margin, and `p` is the softmax of the logits. The result is an increasing
    function of `P` with the same sign. Both therefore have the same order of
    points, the same direction of steepest ascent and the same misclassified
    points. The gradient of `P` rounds to zero in float32 if the confidence is
    above 1 - 6e-8, and an attack that follows it does not move.

    The result is computed as

        log(1 + P) = -softplus(-m) + log(1 + q),

    where `m` is the log-odds against the label (see `cross_entropy`) and `q`
    is the largest share of one class in the probability of all wrong classes.
    Neither part vanishes before the image is broken.

    Reference: Xie et al., "Towards Million-Scale Adversarial Robustness
    Evaluation With Stronger Individual Attacks" (arXiv 2411.15210). There, a
    single attack on this loss breaks more images than on other losses.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`. Its `exp` minus 1 is the
        probability margin.
    """
    true, others = _true_and_others(labels, logits)
    return _log_probability_margin(true, others, ops.max(others, axis=-1))


def targeted_probability_margin(labels, targets, logits):
    """Probability of a target class minus the true one, as a logarithm.

    This is the targeted form of `probability_margin`.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        targets: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    true, others = _true_and_others(labels, logits)
    at_target = ops.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return _log_probability_margin(true, others, at_target)


def _log_probability_margin(true, others, rival):
    total = ops.logsumexp(others, axis=-1)
    share = ops.exp(rival - total)
    return ops.log1p(share) - ops.softplus(true[:, 0] - total)


_LOSSES = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
    "probability_margin": probability_margin,
}

_TARGETED = {
    "margin": targeted_margin,
    "dlr": targeted_difference_of_logits_ratio,
    "probability_margin": targeted_probability_margin,
}


def get(identifier: str | Callable) -> Callable:
    """Returns the loss with a name, or the function itself.

    Args:
        identifier: `"ce"`, `"margin"`, `"dlr"`, `"probability_margin"`, or a
            function `(labels, logits) -> (batch,)`. To save an attack with
            the function, register it with
            `keras.saving.register_keras_serializable`.

    Raises:
        ValueError: If there is no loss with this name.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if callable(identifier):
        return identifier
    if identifier not in _LOSSES:
        raise ValueError(
            "`loss` of an attack must be a function or one of "
            f"{sorted(_LOSSES)}. Received: loss={identifier!r}"
        )
    return _LOSSES[identifier]


def get_targeted(identifier: str) -> Callable:
    """Returns the targeted loss with a name.

    Args:
        identifier: `"margin"`, `"dlr"` or `"probability_margin"`.

    Returns:
        A function `(labels, targets, logits) -> (batch,)`.

    Raises:
        ValueError: If there is no targeted loss with this name.
    """
    if not isinstance(identifier, str) or identifier not in _TARGETED:
        raise ValueError(
            "`loss` of a targeted attack must be one of "
            f"{sorted(_TARGETED)}. Received: loss={identifier!r}"
        )
    return _TARGETED[identifier]
