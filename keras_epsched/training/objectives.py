"""Objectives: what a training step minimises, given both views of a batch.

The trainer makes the adversarial view; the objective says which views the
network sees, and turns its outputs into a loss.
"""

from collections.abc import Callable

import keras
from keras import ops

from keras_epsched.configurable import Configurable, register


class Objective(Configurable):
    """Base class of objectives.

    An objective that needs both views returns a `dict` from `views`; the
    trainer's `call` then maps the network over its values, and `compute_loss`
    receives a `dict` of outputs.
    """

    def views(self, clean, adversarial):
        """Returns what the network is fed in a training step."""
        raise NotImplementedError

    def check_attack(self, attack) -> None:
        """Raises a `ValueError` if the attack cannot serve the objective."""

    def attack_loss(self, logits_fn: Callable, clean):
        """Returns the loss that the attack maximises.

        Args:
            logits_fn: Function from images to logits, in the attack's mode.
            clean: Tensor of clean images.

        Returns:
            A function `(labels, logits) -> (batch,)`, or `None` for the
            attack's own loss.
        """
        return None

    def compute_loss(self, compiled_loss: Callable, y, y_pred, sample_weight):
        """Returns the scalar loss of a training step.

        Args:
            compiled_loss: Function `(y, y_pred, sample_weight) -> scalar`:
                the loss given to `compile`, with the model's own losses
                (regularisers). These count once a call: where there are two
                calls, let their shares sum to 1.
            y: Labels, as the data has them.
            y_pred: Output of the network for `views`.
            sample_weight: Weights of the images, or `None`.
        """
        return compiled_loss(y, y_pred, sample_weight)

    def predictions(self, y_pred):
        """Returns the outputs that the compiled metrics see."""
        return y_pred

    def get_config(self):
        return {}


@register
class AdversarialObjective(Objective):
    """The compiled loss on adversarial images alone.

    Reference: Madry et al., ICLR 2018 (arXiv 1706.06083). It is what the
    Epsilon-Scheduling paper uses throughout.
    """

    def views(self, clean, adversarial):
        return adversarial


@register
class TRADES(Objective):
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
        if not beta >= 0:
            raise ValueError(
                f"`beta` must be at least 0. Received: beta={beta!r}"
            )
        if inner_loss not in ("kl", "attack"):
            raise ValueError(
                '`inner_loss` must be "kl" or "attack". Received: '
                f"inner_loss={inner_loss!r}"
            )
        self.beta = float(beta)
        self.inner_loss = inner_loss

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

    def views(self, clean, adversarial):
        return {"clean": clean, "adversarial": adversarial}

    def attack_loss(self, logits_fn, clean):
        if self.inner_loss == "attack":
            return None
        logits = ops.stop_gradient(ops.cast(logits_fn(clean), "float32"))
        return lambda _, moved_logits: kl_divergence(logits, moved_logits)

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        clean, adversarial = y_pred["clean"], y_pred["adversarial"]
        divergence = _KLDivergence(name="divergence")(
            clean, adversarial, sample_weight
        )
        loss = compiled_loss(y, clean, sample_weight)
        return loss + self.beta * divergence

    def predictions(self, y_pred):
        return y_pred["adversarial"]


def kl_divergence(logits, other_logits):
    """Kullback-Leibler divergence of softmax distributions, from logits.

    `keras.losses.kl_divergence` takes probabilities and clips them.

    Args:
        logits: Tensor `(batch, num_classes)`: the first distribution.
        other_logits: Tensor like it: the second one.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    logs = ops.log_softmax(ops.cast(logits, "float32"))
    other_logs = ops.log_softmax(ops.cast(other_logits, "float32"))
    return ops.sum(ops.exp(logs) * (logs - other_logs), axis=-1)


class _KLDivergence(keras.losses.Loss):
    """With the reduction, weights and scaling over replicas of Keras."""

    def call(self, y_true, y_pred):
        return kl_divergence(y_true, y_pred)


_OBJECTIVES = {"adversarial": AdversarialObjective, "trades": TRADES}


def get(identifier) -> Objective:
    """Returns the objective of a name, an object or a serialised `dict`.

    Args:
        identifier: `"adversarial"`, `"trades"`, an `Objective`, or its
            serialised form.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in _OBJECTIVES:
        return _OBJECTIVES[identifier]()
    if not isinstance(identifier, Objective):
        raise ValueError(
            f"expected an objective: one of {sorted(_OBJECTIVES)}, or an "
            f"`Objective`. Received: {identifier!r}"
        )
    return identifier
