"""What a run computes in and on."""

import contextlib
import os
from collections.abc import Iterator

import keras

from keras_epsched.runs.config import Settings


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
            _be_deterministic()
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _be_deterministic():
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True)
    else:
        # JAX reads it when it first computes.
        flag = "--xla_gpu_deterministic_ops=true"
        known = os.environ.get("XLA_FLAGS", "")
        if flag not in known.split():
            os.environ["XLA_FLAGS"] = f"{known} {flag}".strip()


def describe_device() -> str:
    """Says where operations run: an accelerator may go unused in silence."""
    ones = keras.ops.ones((2, 2))
    device = str(keras.ops.matmul(ones, ones).device).rsplit("/", 1)[-1]
    return f"computes on {device}, by {keras.backend.backend()}"
