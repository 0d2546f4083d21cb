"""TRADES: right on clean images, and the same on adversarial ones."""

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
    """The compiled loss on clean images, and a pull of adversarial ones.

    `loss(clean) + beta * KL(p(clean) || p(adversarial))`, where gradients
    flow through both predictions. The attack maximises the divergence, not
    the loss of the label.

    Both views pass through the network in training mode, the clean ones
    first: BatchNorm normalises each by its own statistics and averages both
    into its moving ones. A step costs one more forward and backward pass than
    `"adversarial"`, also at epsilon 0. The metrics of training see the
    adversarial images.

    The reference's attack starts at Gaussian noise of 0.001; here it starts
    where the attack of the trainer does, at a random point of the ball. A
    start at the clean image is refused: the divergence has no gradient there.

    Reference: Zhang et al., ICML 2019 (arXiv 1901.08573).

    Args:
        beta: Float. Weight of the divergence.
        inner_loss: `"kl"`, the divergence, or `"attack"`, the attack's own
            loss, usually cross-entropy.

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
        # The clean images, from which the divergence is taken.
        self.attack_loss_passes = int(inner_loss == "kl")

    def get_config(self):
        return {"beta": self.beta, "inner_loss": self.inner_loss}

    def check_attack(self, attack):
        starts_at_random = getattr(attack, "random_start", True)
        if self.inner_loss == "kl" and not starts_at_random:
            raise ValueError(
                "the attack starts at the clean image, where the divergence "
                f"that {self!r} maximises has no gradient. Give it "
                f"random_start=True. Received: {attack!r}"
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
