"""Objectives: what a training step minimises, given both views of a batch.

The trainer makes the adversarial view; the objective says which views the
network sees, and turns its outputs into a loss.
"""

import keras

from keras_epsched.training.objectives.autolora import AutoLoRa
from keras_epsched.training.objectives.base import (
    AdversarialObjective,
    Objective,
    kl_divergence,
)
from keras_epsched.training.objectives.mart import MART
from keras_epsched.training.objectives.mixed import ALP, MixedObjective
from keras_epsched.training.objectives.trades import TRADES
from keras_epsched.training.objectives.twins import TWINS

__all__ = [
    "ALP",
    "MART",
    "TRADES",
    "TWINS",
    "AdversarialObjective",
    "AutoLoRa",
    "MixedObjective",
    "Objective",
    "get",
    "kl_divergence",
]

_OBJECTIVES = {
    "adversarial": AdversarialObjective,
    "mixed": MixedObjective,
    "trades": TRADES,
    "mart": MART,
    "alp": ALP,
    "twins": TWINS,
    "autolora": AutoLoRa,
}


def get(identifier) -> Objective:
    """Returns the objective of a name, an object or a serialised `dict`.

    Args:
        identifier: `"adversarial"`, `"mixed"`, `"trades"`, `"mart"`, `"alp"`,
            `"twins"`, `"autolora"`, an `Objective`, or its serialised form.

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
