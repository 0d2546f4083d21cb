"""TWINS: a view by the statistics of the pretraining, and one that adapts."""

import keras
from keras import ops

from keras_epsched.configurable import register
from keras_epsched.training import batchnorm
from keras_epsched.training.objectives import base


@register
class TWINS(base.Objective):
    """Half of each batch by BatchNorm as pretrained, half by its own.

    Both halves pass through the same weights. The first, adaptive half is
    normalised by its own statistics, which the moving ones follow, as always
    in training; the other half by the moving statistics that the network had
    when the trainer was made. The objective of the adaptive half counts once,
    that of the frozen half `weight` times. What is left behind is the
    adaptive network.

    The frozen half is in inference mode throughout, without dropout too. Each
    half is attacked through its own view. A step costs what it costs without
    TWINS. It was made for *robust* pretrained networks, whose statistics are
    worth keeping. Here both halves share BatchNorm's scale and offset; in the
    authors' code the frozen layers have their own.

    Reference: Liu et al., CVPR 2023 (arXiv 2303.11135), with a weight of 0.4.

    Args:
        weight: Float. Weight of the frozen half.
        objective: `Objective` of both halves, or its name, as `"trades"`.

    Raises:
        ValueError: When the trainer is made, if the network has no BatchNorm
            that adapts.

    Example:
    ```python
    objective = keras_epsched.training.TWINS(objective="trades")
    trainer = keras_epsched.AdversarialTrainer(classifier, objective=objective)
    ```
    """

    def __init__(self, weight=0.4, objective="adversarial"):
        from keras_epsched.training import objectives

        if not weight >= 0:
            raise ValueError(
                f"`weight` must be at least 0. Received: weight={weight!r}"
            )
        self.weight = float(weight)
        self.objective = objectives.get(objective)
        kind = type(self.objective)
        if any(
            getattr(kind, name) is not getattr(base.Objective, name)
            for name in ("logits", "prepare", "callbacks", "update_metrics")
        ):
            raise ValueError(
                "`objective` is one with weights or passes of its own, as "
                '"twins" and "autolora" are, which cannot stand within TWINS: '
                'take "adversarial", "mixed", "trades", "mart" or "alp". '
                f"Received: objective={objective!r}"
            )
        self.num_views = self.objective.num_views
        self.attack_loss_passes = self.objective.attack_loss_passes
        self._statistics = []

    def get_config(self):
        return {
            "weight": self.weight,
            "objective": keras.saving.serialize_keras_object(self.objective),
        }

    def __repr__(self):
        return f"TWINS(weight={self.weight}, objective={self.objective!r})"

    def prepare(self, trainer):
        base.check_ready(self, trainer, self._statistics)
        layers = batchnorm.batchnorm_layers(trainer.model)
        if not any(layer.trainable for layer in layers):
            found = "all its layers are frozen" if layers else "it has none"
            raise ValueError(
                "TWINS compares BatchNorm as pretrained with BatchNorm that "
                f"adapts, and {trainer.model.name!r} offers no such pair: "
                f"{found}. Take its inner objective, {self.objective!r}, alone."
            )
        for index, layer in enumerate(layers):
            for variable in (layer.moving_mean, layer.moving_variance):
                kept = trainer.add_state(
                    f"pretrained_{variable.name}_{index}", variable
                )
                self._statistics.append((variable, kept))

    def check_attack(self, attack):
        self.objective.check_attack(attack)

    def views(self, clean, adversarial):
        return _halves(self.objective.views(clean, adversarial))

    def logits(self, name, network, view, training):
        if name == "adaptive":
            return _each(lambda images: network(images, training), view)
        kept = [(each, value.value) for each, value in self._statistics]

        def frozen(images):
            # Of a single image this half is empty, which TensorFlow's
            # BatchNorm does not take: a black one then stands in.
            rows = ops.shape(images)[0]
            black = ops.zeros((1, *images.shape[1:]), images.dtype)[rows:]
            images = ops.concatenate([images, black], axis=0)
            return network(images, False, kept)[:rows]

        return _each(frozen, view)

    def attacked_logits(self, network, images):
        return _whole(network(_halves(images)))

    def attack_loss(self, logits_fn, clean):
        return self.objective.attack_loss(logits_fn, clean)

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        # One loss over the whole batch, so that regularisers count once.
        total = ops.cast(ops.shape(y)[0], "float32")
        adaptive = ops.ceil(total / 2.0)
        frozen = total - adaptive
        places = ops.cast(ops.arange(ops.shape(y)[0]), "float32")
        shares = ops.where(
            places < adaptive,
            total / adaptive,
            self.weight * total / ops.maximum(frozen, 1.0),
        )
        if sample_weight is not None:
            # As Keras has it, of shape (batch,) or (batch, 1).
            weights = ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
            shares = shares * weights
        return self.objective.compute_loss(
            compiled_loss, y, _whole(y_pred), shares
        )

    def predictions(self, y_pred):
        return self.objective.predictions(_whole(y_pred))


# Of one view, or of each in a `dict`.
_each = keras.tree.map_structure


def _halves(views):
    """Cuts each view in two; an odd image goes with the adaptive ones."""
    return {
        "adaptive": _each(lambda x: x[: (ops.shape(x)[0] + 1) // 2], views),
        "frozen": _each(lambda x: x[(ops.shape(x)[0] + 1) // 2 :], views),
    }


def _whole(halves):
    """Puts both halves together again."""
    return _each(
        lambda *pair: ops.concatenate(pair, axis=0),
        halves["adaptive"],
        halves["frozen"],
    )
