"""MART: images that the network misclassifies get a larger weight."""

from keras import ops

from keras_epsched import checks
from keras_epsched.configurable import register
from keras_epsched.training.objectives.base import (
    BothViews,
    Mean,
    checked_beta,
    kl_divergence,
)


@register
class MART(BothViews):
    """Misclassification-aware adversarial training (MART).

    Use it to give more weight to images that the network misclassifies without
    an attack. The loss is the sum of three terms:

    - the compiled loss on the adversarial images;
    - a margin on the adversarial images, `-log(1 - max p(adversarial))`, with
      the maximum over the wrong classes;
    - `beta` times the divergence `KL(p(clean) || p(adversarial))`, where each
      image has the weight `1 - p(clean)` of its true class.

    Gradients flow through all three. The attack maximises its own loss,
    usually cross-entropy.

    Both views pass through the network in training mode, the clean ones
    first, which costs one more forward and backward pass. BatchNorm averages
    the statistics of both.

    Reference: Wang et al., ICLR 2020 (openreview rklOg6EFwS), with a `beta` of
    6. The small constants 1e-4 and 1e-7 in the formulas are those of the
    reference.

    Args:
        beta: Float. Weight of the divergence.

    Raises:
        ValueError: If `beta` is negative.

    Example:
    ```python
    objective = keras_epsched.training.MART(beta=6.0)
    ```
    """

    def __init__(self, beta=6.0):
        self.beta = checked_beta(beta)

    def get_config(self):
        return {"beta": self.beta}

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        clean, moved = y_pred["clean"], y_pred["adversarial"]
        labels = checks.class_labels(y, clean.shape[-1])
        targets = ops.one_hot(labels, clean.shape[-1], dtype="float32")
        margin = Mean(_margin, name="margin")
        divergence = Mean(_weighted_divergence(clean), name="divergence")
        return (
            compiled_loss(y, moved, sample_weight)
            + margin(targets, moved, sample_weight)
            + self.beta * divergence(targets, moved, sample_weight)
        )


def _margin(targets, logits):
    """Returns `-log(1 - p)`, with `p` that of the most likely wrong class."""
    p = ops.softmax(ops.cast(logits, "float32"))
    wrong = ops.max(p * (1.0 - targets), axis=-1)
    return -ops.log(1.0001 - wrong + 1e-12)


def _weighted_divergence(clean):
    def divergence(targets, moved):
        p = ops.softmax(ops.cast(clean, "float32"))
        share = 1.0000001 - ops.sum(p * targets, axis=-1)
        return share * kl_divergence(clean, moved)

    return divergence
