"""Checks of what an `AdversarialTrainer` is made of."""

import keras

from keras_epsched import checks
from keras_epsched.attacks.base import Attack

_ATTACK_MODES = ("inference", "training")


def check_model(model) -> None:
    """Raises a `ValueError` unless it is a model that takes pixels."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a `keras.Model`, see "
            "`keras_epsched.models.classifier`. Received: "
            f"{type(model).__name__}"
        )
    checks.check_takes_pixels(model)


def check_attacks(attack, validation_attack, attack_mode) -> None:
    """Raises a `ValueError` unless the attacks can do their work, together."""
    for each in filter(None, (attack, validation_attack)):
        if not isinstance(each, Attack):
            raise ValueError(
                "expected an attack of `keras_epsched.attacks`. Received: "
                f"{each!r}"
            )
    if not attack.can_train:
        raise ValueError(
            f"{attack!r} is for evaluation only: it gives no images to "
            "train on. Use `FGSM`, `PGD` or `APGD`."
        )
    if validation_attack and not validation_attack.can_evaluate:
        raise ValueError(
            f"{validation_attack!r} is for training only: its images may "
            "lie outside of the ball. Validate with "
            '`APGD(steps=10, loss="probability_margin")`.'
        )
    if validation_attack and validation_attack.norm != attack.norm:
        raise ValueError(
            "`validation_attack` must have the norm of `attack`, for they "
            f"share epsilon. Received: {validation_attack.norm!r} and "
            f"{attack.norm!r}"
        )
    if attack_mode not in _ATTACK_MODES:
        raise ValueError(
            f"`attack_mode` must be one of {_ATTACK_MODES}. Received: "
            f"attack_mode={attack_mode!r}"
        )


def check_weight_perturbation(weight_perturbation, model) -> None:
    """Raises a `ValueError` unless the weights can be perturbed by it."""
    if not weight_perturbation >= 0:
        raise ValueError(
            "`weight_perturbation` must be at least 0. Received: "
            f"weight_perturbation={weight_perturbation!r}"
        )
    if weight_perturbation and computes_in_float16(model):
        raise ValueError(
            "`weight_perturbation` is not available in float16, where its "
            "gradients may vanish unseen: use bfloat16 or float32. "
            f"Received: weight_perturbation={weight_perturbation}"
        )


def computes_in_float16(model) -> bool:
    """Whether any layer of a model computes in float16."""
    return any(
        layer.compute_dtype == "float16" for layer in model._flatten_layers()
    )
