"""Objectives that mix the losses of clean and adversarial images."""

from keras import ops

from keras_epsched.configurable import register
from keras_epsched.training.objectives.base import (
    BothViews,
    Mean,
    checked_beta,
)


@register
class MixedObjective(BothViews):
    """A weighted mean of the losses of clean and adversarial images.

    Use it to train on clean images too, usually for more clean and less robust
    accuracy. The loss is
    `(1 - weight) * loss(clean) + weight * loss(adversarial)`.

    Both views pass through the network in training mode, which costs one more
    forward and backward pass. BatchNorm averages the statistics of both.

    Reference: Goodfellow et al., ICLR 2015 (arXiv 1412.6572), with a weight of
    0.5.

    Args:
        weight: Float in [0, 1]. Weight of the adversarial images.

    Raises:
        ValueError: If `weight` is not in [0, 1].

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier, objective=keras_epsched.training.MixedObjective(0.5)
    )
    ```
    """

    def __init__(self, weight=0.5):
        if not 0 <= weight <= 1:
            raise ValueError(
                f"`weight` must be from 0 to 1. Received: weight={weight!r}"
            )
        self.weight = float(weight)

    def get_config(self):
        return {"weight": self.weight}

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        clean = compiled_loss(y, y_pred["clean"], sample_weight)
        moved = compiled_loss(y, y_pred["adversarial"], sample_weight)
        return (1.0 - self.weight) * clean + self.weight * moved


@register
class ALP(MixedObjective):
    """Adversarial logit pairing (ALP).

    Use it only to compare with the literature. As a defence, it was broken:
    its robustness came from vanishing gradients (Engstrom et al., 2018, arXiv
    1807.10272). After training with it, read the self-checks of the report.

    The loss is that of `MixedObjective`, plus `beta` times the mean squared
    difference of the logits of the two views, over images and classes.

    Reference: Kannan et al., 2018 (arXiv 1803.06373).

    Args:
        beta: Float. Weight of the squared difference of the logits.
        weight: Float in [0, 1]. Weight of the adversarial images.

    Raises:
        ValueError: If `beta` is negative or `weight` is not in [0, 1].

    Example:
    ```python
    objective = keras_epsched.training.ALP(beta=0.5)
    ```
    """

    def __init__(self, beta=0.5, weight=0.5):
        super().__init__(weight)
        self.beta = checked_beta(beta)

    def get_config(self):
        return {"beta": self.beta, **super().get_config()}

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        loss = super().compute_loss(compiled_loss, y, y_pred, sample_weight)
        pairing = Mean(_squared_difference, name="pairing")
        return loss + self.beta * pairing(
            y_pred["clean"], y_pred["adversarial"], sample_weight
        )


def _squared_difference(logits, other_logits):
    difference = ops.cast(logits, "float32") - ops.cast(other_logits, "float32")
    return ops.mean(ops.square(difference), axis=-1)
