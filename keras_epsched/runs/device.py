"""What a run computes in and on."""

import contextlib
from collections.abc import Iterator

import keras

from keras_epsched import backend
from keras_epsched.configs.config import Settings


@contextlib.contextmanager
def computing_as(config: Settings) -> Iterator[None]:
    """Sets Keras up as a config says, for new networks.

    Afterwards the dtype policy is what it was. Determinism stays: backends
    cannot take it back.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.dtype)
    try:
        if config.deterministic:
            backend.be_deterministic()
        yield
    finally:
        keras.config.set_dtype_policy(before)


def describe_device() -> str:
    """Says where operations run: an accelerator may go unused in silence."""
    ones = keras.ops.ones((2, 2))
    device = str(keras.ops.matmul(ones, ones).device).rsplit("/", 1)[-1]
    return f"computes on {device}, by {keras.backend.backend()}"
