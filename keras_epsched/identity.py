"""When two objects are the same for a function that was compiled with them."""

import weakref

import keras

from keras_epsched import provenance
from keras_epsched.configurable import Configurable

# What `compile`, `fit`, `predict` and the first call set on a model or a
# trainer, none of which changes what it computes.
_OF_THE_TRAINER = frozenset(
    (
        "built",
        "compiled",
        "history",
        "loss",
        "num_classes",
        "optimizer",
        "predict_function",
        "steps_per_execution",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
        "test_function",
        "train_function",
        "training",
        provenance.TRAINING_SPLITS,
        "unrolled_steps_per_execution",
        "validation_batch_size",
    )
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Reference:
    """An object by its identity, which it does not keep alive."""

    def __init__(self, value):
        self._value = weakref.ref(value)
        self._hash = id(value)

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        if not isinstance(other, Reference):
            return NotImplemented
        # An address is given to another object once the first is gone.
        value = self._value()
        return value is not None and value is other._value()


def identify(value):
    """What can be hashed, and is equal for the same value only.

    Numbers, strings, tuples, lists, dicts and configurable objects are
    compared by what they hold, everything else by its identity. Two functions
    of one name are thus two, as where a cell of a notebook ran again.
    """
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Configurable):
        return type(value), identify(vars(value))
    if isinstance(value, (tuple, list)):
        return tuple(identify(each) for each in value)
    if isinstance(value, dict):
        pairs = ((repr(key), identify(each)) for key, each in value.items())
        return tuple(sorted(pairs, key=lambda pair: pair[0]))
    try:
        return Reference(value)
    except TypeError:
        return repr(value)


def identify_model(model: keras.Model):
    """As `identify`: the variables of a model, its layers and their settings.

    Equal as long as only values of variables have changed. Of the attributes
    of layers those count whose names begin without an underscore.
    """
    layers = [
        (
            Reference(layer),
            layer.dtype_policy.name,
            identify(
                {
                    name: value
                    for name, value in vars(layer).items()
                    if name[0] != "_" and name not in _OF_THE_TRAINER
                }
            ),
        )
        for layer in model._flatten_layers()
    ]
    return tuple(Reference(each) for each in model.variables), tuple(layers)
