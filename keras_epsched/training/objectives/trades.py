"""TRADES: clean loss, and equal predictions on adversarial images."""

from keras import ops

from keras_epsched.configurable import register
from keras_epsched.training.objectives.base import (
    BothViews,
    Mean,
    checked_beta,
    kl_divergence,
)


@register
class TRADES(BothViews):
    """The clean loss, plus the divergence of clean and adversarial outputs.

    Use it to trade clean accuracy for robust accuracy with one number, `beta`.
    The loss is `loss(clean) + beta * KL(p(clean) || p(adversarial))`, and
    gradients flow through both predictions. The attack maximises the
    divergence instead of the loss of the label.

    Both views pass through the network in training mode, the clean ones
    first. BatchNorm normalises each view with its own statistics, and averages
    both into its moving statistics. A step costs one more forward and backward
    pass than with `"adversarial"`, also at epsilon 0. The training metrics are
    those of the adversarial images.

    The reference starts its attack at Gaussian noise of 0.001. Here the
    trainer's attack chooses the start: a random point in the perturbation
    budget. An attack that starts at the clean image is refused, because the
    divergence has no gradient there.

    Reference: Zhang et al., ICML 2019 (arXiv 1901.08573).

    Args:
        beta: Float. Weight of the divergence. A larger one usually gives more
            robust and less clean accuracy.
        inner_loss: String. The loss that the attack maximises: `"kl"` is the
            divergence; `"attack"` is the attack's own loss, usually
            cross-entropy.

    Raises:
        ValueError: If `beta` is negative or `inner_loss` is unknown. When the
            trainer is made: if the attack starts at the clean image.

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier,
        attack=keras_epsched.attacks.PGD(steps=10),
        objective=keras_epsched.training.TRADES(beta=6.0),
    )
    ```
    """

    def __init__(self, beta=6.0, inner_loss="kl"):
        if inner_loss not in ("kl", "attack"):
            raise ValueError(
                '`inner_loss` must be "kl" or "attack". Received: '
                f"inner_loss={inner_loss!r}"
            )
        self.beta = checked_beta(beta)
        self.inner_loss = inner_loss
        # The forward pass of the clean images, for the divergence.
        self.attack_loss_passes = int(inner_loss == "kl")

    def get_config(self):
        return {"beta": self.beta, "inner_loss": self.inner_loss}

    def check_attack(self, attack):
        starts_at_random = getattr(attack, "random_start", True)
        if self.inner_loss == "kl" and not starts_at_random:
            raise ValueError(
                f"With {self!r}, the attack maximises a divergence that has "
                "no gradient at the clean image, so it must start at a random "
                "point. Make the attack with `random_start=True`. "
                f"Received: {attack!r}"
            )

    def attack_loss(self, logits_fn, clean):
        if self.inner_loss == "attack":
            return None
        logits = ops.stop_gradient(ops.cast(logits_fn(clean), "float32"))
        return lambda _, moved_logits: kl_divergence(logits, moved_logits)

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        clean, adversarial = y_pred["clean"], y_pred["adversarial"]
        divergence = Mean(kl_divergence, name="divergence")(
            clean, adversarial, sample_weight
        )
        loss = compiled_loss(y, clean, sample_weight)
        return loss + self.beta * divergence
