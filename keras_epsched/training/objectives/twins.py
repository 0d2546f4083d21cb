"""TWINS: half of each batch uses BatchNorm's pretrained statistics."""

import keras
from keras import ops

from keras_epsched.configurable import register
from keras_epsched.training import batchnorm
from keras_epsched.training.objectives import base


@register
class TWINS(base.Objective):
    """Trains half of each batch with BatchNorm's pretrained statistics.

    Use it to fine-tune a *robust* pretrained network with BatchNorm, whose
    statistics are worth keeping.

    Both halves of a batch pass through the same weights:

    - The adaptive half is normalised with its own statistics, and the moving
      statistics follow them, as always in training.
    - The frozen half is normalised with the moving statistics that the network
      had when the trainer was made. It is in inference mode, so without
      dropout.

    The loss is the objective on the adaptive half, plus `weight` times the
    objective on the frozen half. Each half is attacked in its own mode. A step
    costs as much as without TWINS. The saved network is the adaptive one.

    In contrast to the authors' code, both halves share BatchNorm's scale and
    offset; there, the frozen layers have their own.

    Reference: Liu et al., CVPR 2023 (arXiv 2303.11135), with a weight of 0.4.

    Args:
        weight: Float. Weight of the frozen half.
        objective: `Objective` of both halves, or its name, such as
            `"trades"`.

    Raises:
        ValueError: If `weight` is negative, or `objective` cannot be used
            inside TWINS. When the trainer is made: if the network has no
            BatchNorm layer that is not frozen.

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
                "`objective` must be one that TWINS can use for both halves: "
                '"adversarial", "mixed", "trades", "mart" or "alp". '
                'Objectives with own weights or passes, such as "twins" and '
                f'"autolora", cannot be used. Received: objective={objective!r}'
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
            found = "all are frozen" if layers else "there are none"
            raise ValueError(
                "TWINS needs BatchNorm layers that are not frozen. In "
                f"{trainer.model.name!r}, {found}. Use the objective "
                f"{self.objective!r} without TWINS."
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
            # With a batch of one image, this half is empty, which TensorFlow's
            # BatchNorm refuses. A black image then takes its place.
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
            # Keras passes it with shape (batch,) or (batch, 1).
            weights = ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
            shares = shares * weights
        return self.objective.compute_loss(
            compiled_loss, y, _whole(y_pred), shares
        )

    def predictions(self, y_pred):
        return self.objective.predictions(_whole(y_pred))


# Applies a function to one view, or to each view in a `dict`.
_each = keras.tree.map_structure


def _halves(views):
    """Cuts each view in half. The adaptive half gets an odd image."""
    return {
        "adaptive": _each(lambda x: x[: (ops.shape(x)[0] + 1) // 2], views),
        "frozen": _each(lambda x: x[(ops.shape(x)[0] + 1) // 2 :], views),
    }


def _whole(halves):
    """Joins both halves again."""
    return _each(
        lambda *pair: ops.concatenate(pair, axis=0),
        halves["adaptive"],
        halves["frozen"],
    )
