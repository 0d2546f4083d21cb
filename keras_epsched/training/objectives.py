"""Objectives: what a training step minimises, given both views of a batch.

The trainer makes the adversarial view; the objective says which views the
network sees, and turns its outputs into a loss.
"""

from collections.abc import Callable

import keras

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


def get(identifier) -> Objective:
    """Returns the objective of a name, an object or a serialised `dict`.

    Args:
        identifier: `"adversarial"`, an `Objective`, or its serialised form.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if identifier == "adversarial":
        return AdversarialObjective()
    if not isinstance(identifier, Objective):
        raise ValueError(
            'expected an objective: "adversarial" or an `Objective`. '
            f"Received: {identifier!r}"
        )
    return identifier
