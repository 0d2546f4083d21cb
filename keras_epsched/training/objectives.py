"""Objectives: what a training step minimises, given both views of a batch.

The trainer makes the adversarial view; the objective says which views the
network sees, and turns its outputs into a loss.
"""

from collections.abc import Callable

import keras
from keras import ops

from keras_epsched import checks
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


class _BothViews(Objective):
    """Sees the clean images and the adversarial ones, in this order.

    Both pass through the network in training mode: BatchNorm normalises each
    view by its own statistics and averages both into its moving ones. A step
    costs one more forward and backward pass than `"adversarial"`, also at
    epsilon 0. The metrics of training see the adversarial images.
    """

    def views(self, clean, adversarial):
        return {"clean": clean, "adversarial": adversarial}

    def predictions(self, y_pred):
        return y_pred["adversarial"]


@register
class MixedObjective(_BothViews):
    """The compiled loss on clean and on adversarial images, weighted.

    `(1 - weight) * loss(clean) + weight * loss(adversarial)`: the oldest form
    of adversarial training. Both views pass through the network in training
    mode, which costs one more forward and backward pass; BatchNorm averages
    the statistics of both.

    Reference: Goodfellow et al., ICLR 2015 (arXiv 1412.6572), with a weight of
    0.5.

    Args:
        weight: Float in [0, 1]. Share of the adversarial images.

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
                f"`weight` must lie in [0, 1]. Received: weight={weight!r}"
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
    """Adversarial logit pairing: the mixed loss, and equal logits.

    `MixedObjective` plus `beta` times the mean squared difference of the
    logits of the two views, over images and classes. It was broken as a
    defence on its own, for its robustness came from gradients that vanish
    (Engstrom et al., 2018, arXiv 1807.10272): look at the self-checks of the
    report.

    Reference: Kannan et al., 2018 (arXiv 1803.06373).

    Args:
        beta: Float. Weight of the pairing.
        weight: Float in [0, 1]. Share of the adversarial images.

    Example:
    ```python
    objective = keras_epsched.training.ALP(beta=0.5)
    ```
    """

    def __init__(self, beta=0.5, weight=0.5):
        super().__init__(weight)
        self.beta = _checked_beta(beta)

    def get_config(self):
        return {"beta": self.beta, **super().get_config()}

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        loss = super().compute_loss(compiled_loss, y, y_pred, sample_weight)
        pairing = _Mean(_squared_difference, name="pairing")
        return loss + self.beta * pairing(
            y_pred["clean"], y_pred["adversarial"], sample_weight
        )


@register
class MART(_BothViews):
    """Misclassification-aware training: what is wrong when clean counts more.

    The compiled loss and a margin, `-log(1 - max p(adversarial))` over the
    wrong classes, on the adversarial images, plus `beta` times the divergence
    `KL(p(clean) || p(adversarial))`, each image weighted by
    `1 - p(clean)` of its class. Gradients flow through all three. The attack
    maximises its own loss, usually cross-entropy.

    Both views pass through the network in training mode, the clean ones
    first, which costs one more forward and backward pass; BatchNorm averages
    the statistics of both.

    Reference: Wang et al., ICLR 2020 (openreview rklOg6EFwS), with a `beta` of
    6 and constants of 1e-4 and 1e-7 inside, that stand here too.

    Args:
        beta: Float. Weight of the divergence.

    Example:
    ```python
    objective = keras_epsched.training.MART(beta=6.0)
    ```
    """

    def __init__(self, beta=6.0):
        self.beta = _checked_beta(beta)

    def get_config(self):
        return {"beta": self.beta}

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        clean, moved = y_pred["clean"], y_pred["adversarial"]
        labels = checks.class_labels(y, clean.shape[-1])
        targets = ops.one_hot(labels, clean.shape[-1], dtype="float32")
        margin = _Mean(_margin, name="margin")
        divergence = _Mean(_weighted_divergence(clean), name="divergence")
        return (
            compiled_loss(y, moved, sample_weight)
            + margin(targets, moved, sample_weight)
            + self.beta * divergence(targets, moved, sample_weight)
        )


@register
class TRADES(_BothViews):
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
        self.beta = _checked_beta(beta)
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

    def attack_loss(self, logits_fn, clean):
        if self.inner_loss == "attack":
            return None
        logits = ops.stop_gradient(ops.cast(logits_fn(clean), "float32"))
        return lambda _, moved_logits: kl_divergence(logits, moved_logits)

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        clean, adversarial = y_pred["clean"], y_pred["adversarial"]
        divergence = _Mean(kl_divergence, name="divergence")(
            clean, adversarial, sample_weight
        )
        loss = compiled_loss(y, clean, sample_weight)
        return loss + self.beta * divergence


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


def _squared_difference(logits, other_logits):
    difference = ops.cast(logits, "float32") - ops.cast(other_logits, "float32")
    return ops.mean(ops.square(difference), axis=-1)


def _margin(targets, logits):
    """Minus the log of what the largest wrong class leaves."""
    p = ops.softmax(ops.cast(logits, "float32"))
    wrong = ops.max(p * (1.0 - targets), axis=-1)
    return -ops.log(1.0001 - wrong + 1e-12)


def _weighted_divergence(clean):
    def divergence(targets, moved):
        p = ops.softmax(ops.cast(clean, "float32"))
        share = 1.0000001 - ops.sum(p * targets, axis=-1)
        return share * kl_divergence(clean, moved)

    return divergence


class _Mean(keras.losses.Loss):
    """A mean with the weights and the scaling over replicas of Keras."""

    def __init__(self, function, name):
        super().__init__(name=name)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def _checked_beta(beta):
    if not beta >= 0:
        raise ValueError(f"`beta` must be at least 0. Received: beta={beta!r}")
    return float(beta)


_OBJECTIVES = {
    "adversarial": AdversarialObjective,
    "mixed": MixedObjective,
    "trades": TRADES,
    "mart": MART,
    "alp": ALP,
}


def get(identifier) -> Objective:
    """Returns the objective of a name, an object or a serialised `dict`.

    Args:
        identifier: `"adversarial"`, `"mixed"`, `"trades"`, `"mart"`, `"alp"`,
            an `Objective`, or its serialised form.

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
