"""Checks the arguments of `AdversarialTrainer`."""

import keras

from keras_epsched import checks
from keras_epsched.attacks.base import Attack

_ATTACK_MODES = ("inference", "training")


def check_model(model) -> None:
    """Raises a `ValueError` unless `model` is a model that takes pixels."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a `keras.Model`. Make one with "
            "`keras_epsched.models.classifier(name, num_classes)`. Received: "
            f"{type(model).__name__}"
        )
    checks.check_takes_pixels(model)


def check_attacks(attack, validation_attack, attack_mode) -> None:
    """Raises a `ValueError` if the attacks cannot be used together."""
    for each in filter(None, (attack, validation_attack)):
        if not isinstance(each, Attack):
            raise ValueError(
                "`attack` and `validation_attack` must be attacks of "
                "`keras_epsched.attacks`, such as PGD(steps=7). Received: "
                f"{each!r}"
            )
    if not attack.can_train:
        raise ValueError(
            f"{attack!r} is for evaluation only: it returns no images to "
            "train on. Train with `FGSM`, `PGD` or `APGD`, for example "
            "`attack=APGD(steps=7)`."
        )
    if validation_attack and not validation_attack.can_evaluate:
        raise ValueError(
            f"{validation_attack!r} is for training only: its images may "
            "exceed the perturbation budget. Validate with "
            '`validation_attack=APGD(steps=10, loss="probability_margin")`.'
        )
    if validation_attack and validation_attack.norm != attack.norm:
        raise ValueError(
            "`validation_attack` must have the norm of `attack`, because both "
            "use the same epsilon. Received: "
            f"{validation_attack.norm!r} and {attack.norm!r}"
        )
    if attack_mode not in _ATTACK_MODES:
        raise ValueError(
            f"`attack_mode` must be one of {_ATTACK_MODES}. Received: "
            f"attack_mode={attack_mode!r}"
        )


def check_weight_perturbation(weight_perturbation, model) -> None:
    """Raises a `ValueError` if the model's weights cannot be perturbed."""
    if not weight_perturbation >= 0:
        raise ValueError(
            "`weight_perturbation` must be at least 0. Received: "
            f"weight_perturbation={weight_perturbation!r}"
        )
    if weight_perturbation and computes_in_float16(model):
        raise ValueError(
            "`weight_perturbation` is not available in float16, because its "
            "gradients may vanish without a warning. Use bfloat16 or float32. "
            f"Received: weight_perturbation={weight_perturbation}"
        )


def computes_in_float16(model) -> bool:
    """Returns whether any layer of a model computes in float16."""
    return any(
        layer.compute_dtype == "float16" for layer in model._flatten_layers()
    )
