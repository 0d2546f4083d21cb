"""Losses that attacks maximise: functions `(labels, logits) -> (batch,)`.

They work on float32 logits and integer labels and are never averaged, so the
gradient of an image does not depend on the batch. Their values may be scaled
by the attack per image, which changes no steepest step.
"""

from collections.abc import Callable

import keras
from keras import ops

# Stands for minus infinity, without the NaN of infinity minus infinity.
_LOWEST = -1e30


def _true_and_others(labels, logits):
    mask = ops.one_hot(labels, ops.shape(logits)[-1], dtype="bool")
    true = ops.sum(ops.where(mask, logits, 0.0), axis=-1, keepdims=True)
    return true, ops.where(mask, _LOWEST, logits)


def cross_entropy(labels, logits):
    """Cross-entropy as log-odds against the label: it cannot saturate.

    Returns `m = logsumexp_{i != y}(z_i - z_y)`. Cross-entropy is
    `softplus(m)`, an increasing function, so both have the same maximisers,
    order points alike and have the same direction of steepest ascent. But the
    gradient of the cross-entropy, `softmax_y - 1`, rounds to zero in float32
    from a confidence of 1 - 6e-8 on, and an attack that follows it stands
    still; the gradient of `m` never vanishes.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`; `softplus` of it is the
        cross-entropy.
    """
    true, others = _true_and_others(labels, logits)
    return ops.logsumexp(others - true, axis=-1)


def margin(labels, logits):
    """Largest other logit minus the true one: positive when misclassified.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    true, others = _true_and_others(labels, logits)
    return ops.max(others - true, axis=-1)


def difference_of_logits_ratio(labels, logits):
    """The margin over the gap of the first and third logit.

    Invariant to shift and scale of the logits. Reference: Croce & Hein, ICML
    2020 (arXiv 2003.01690), equation 6. Of two classes there is no third
    logit, and it is the margin.

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
    """Logit of a target class minus the true one.

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
    """The targeted margin over the gap of the first and later logits.

    Equation 7 of Croce & Hein, ICML 2020 (arXiv 2003.01690), for four or more
    classes. Of fewer there is no such gap, and it is the targeted margin.

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
    """Largest other probability minus the true one, as a logarithm.

    Returns `log(1 + P)` with `P = max_{i != y} p_i - p_y`, the probability
    margin, and `p` the softmax of the logits. It is an increasing function of
    `P` and has its sign, so both order points alike, have the same direction
    of steepest ascent and agree on what is misclassified. But the gradient of
    `P` rounds to zero in float32 from a confidence of 1 - 6e-8 on, and an
    attack that follows it stands still. With `m` the log-odds against the
    label (see `cross_entropy`) and `q` the largest share of one class in the
    probability of all the others,

        log(1 + P) = -softplus(-m) + log(1 + q),

    where neither part vanishes before the image is broken.

    Reference: Xie et al., "Towards Million-Scale Adversarial Robustness
    Evaluation With Stronger Individual Attacks" (arXiv 2411.15210), where a
    single attack on it breaks more than those on other losses.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float32 tensor of shape `(batch, num_classes)`.

    Returns:
        A float32 tensor of shape `(batch,)`; `exp` of it minus 1 is the
        probability margin.
    """
    true, others = _true_and_others(labels, logits)
    return _log_probability_margin(true, others, ops.max(others, axis=-1))


def targeted_probability_margin(labels, targets, logits):
    """Probability of a target class minus the true one, as a logarithm.

    The targeted form of `probability_margin`, with the same logarithm.

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
    """Returns the loss of a name, or the function itself.

    Args:
        identifier: `"ce"`, `"margin"`, `"dlr"`, `"probability_margin"`, or a
            function `(labels, logits) -> (batch,)`, registered with
            `keras.saving.register_keras_serializable` if it is to be saved.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if callable(identifier):
        return identifier
    if identifier not in _LOSSES:
        raise ValueError(
            f"unknown attack loss {identifier!r}: expected a function or one "
            f"of {sorted(_LOSSES)}"
        )
    return _LOSSES[identifier]


def get_targeted(identifier: str) -> Callable:
    """Returns the targeted loss of a name.

    Args:
        identifier: `"margin"`, `"dlr"` or `"probability_margin"`.

    Returns:
        A function `(labels, targets, logits) -> (batch,)`.

    Raises:
        ValueError: If there is no targeted loss of this name.
    """
    if not isinstance(identifier, str) or identifier not in _TARGETED:
        raise ValueError(
            "`loss` of a targeted attack must be one of "
            f"{sorted(_TARGETED)}. Received: loss={identifier!r}"
        )
    return _TARGETED[identifier]
