"""Random numbers that belong to an image, not to its place in a batch.

A draw is a hash of (key, pixel), and a key a hash of whatever identifies the
draw: a seed, the image's number, a counter. Results of an evaluation thus do
not depend on batch size, order or sharding, nor on whether XLA compiled it
(the generators of TensorFlow differ there). Hashing alternates shifts with
multiplications modulo 2**32; this is statistical noise, not cryptography.
"""

import math

import numpy as np
from keras import ops

from keras_epsched import backend

_MASK = 0xFFFFFFFF
# Odd and below 2**31: the product with 32 bits fits a signed 64-bit integer.
_FIRST_FACTOR = 0x21F0AAAD
_SECOND_FACTOR = 0x7FEB352D


def _integer(value):
    if isinstance(value, (int, np.integer, np.ndarray)):
        # 32 bits hold no more, and JAX refuses larger numbers.
        value = np.asarray(value, "int64") & _MASK
        value = value.astype(backend.HASH_DTYPE)
    return ops.cast(value, backend.HASH_DTYPE)


def _mix(value, xp=ops):
    constant = np.int64 if xp is np else _integer

    def fold(bits, by):
        return xp.bitwise_xor(bits, xp.right_shift(bits, constant(by)))

    value = fold(value, 16) * constant(_FIRST_FACTOR)
    value = fold(xp.bitwise_and(value, constant(_MASK)), 15)
    value = value * constant(_SECOND_FACTOR)
    return fold(xp.bitwise_and(value, constant(_MASK)), 15)


def make_key(*parts):
    """Hashes integers into a key for the functions below.

    Args:
        *parts: Integer tensors or numbers that broadcast together: seeds,
            image numbers of shape `(batch,)`, counters.

    Returns:
        An integer tensor in [0, 2**32), of the broadcast shape.
    """
    key = _integer(0x9E3779B9)
    for part in parts:
        part = ops.bitwise_and(_integer(part), _integer(_MASK))
        key = _mix(ops.bitwise_xor(_mix(part + 1), key))
    return key


def uniform(key, shape):
    """Draws from the open interval (0, 1).

    Args:
        key: Integer tensor of shape `(batch,)`, from `make_key`.
        shape: Tuple of static integers, the shape of one image.

    Returns:
        A float32 tensor of shape `(batch, *shape)`.
    """
    pixels = np.arange(1, math.prod(shape) + 1, dtype="int64")
    pixels = _integer(_mix(pixels, np).reshape((1, *shape)))
    key = ops.reshape(key, (-1, *(1 for _ in shape)))
    bits = _mix(ops.bitwise_xor(key, pixels))
    # 23 bits and a half: exact in float32, and neither 0 nor 1.
    bits = ops.cast(ops.right_shift(bits, _integer(9)), "float32")
    return (bits + 0.5) / 2.0**23


def normal(key, shape):
    """Draws from the standard normal distribution; as `uniform` otherwise."""
    return math.sqrt(2.0) * ops.erfinv(2.0 * uniform(key, shape) - 1.0)


def laplace(key, shape):
    """Draws from the standard Laplace distribution; as `uniform` otherwise."""
    centred = 2.0 * uniform(key, shape) - 1.0
    return -ops.sign(centred) * ops.log1p(-ops.abs(centred))


def signs(key, shape):
    """Draws -1 or 1, evenly; as `uniform` otherwise."""
    return ops.sign(uniform(key, shape) - 0.5)
