"""Objectives, which define the loss that a training step minimises.

The trainer makes adversarial images from the clean images of a batch. The
objective chooses which of the two views the network sees, and computes a loss
from its outputs.
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
    """Returns an objective for a name, an object or a serialised `dict`.

    Args:
        identifier: `"adversarial"`, `"mixed"`, `"trades"`, `"mart"`, `"alp"`,
            `"twins"`, `"autolora"`, an `Objective`, or its serialised form.

    Raises:
        ValueError: If `identifier` is none of these.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in _OBJECTIVES:
        return _OBJECTIVES[identifier]()
    if not isinstance(identifier, Objective):
        raise ValueError(
            f"`objective` must be one of {sorted(_OBJECTIVES)}, or an "
            f"`Objective`. Received: {identifier!r}"
        )
    return identifier
