"""Random numbers that depend on the image, not on its position in a batch.

A random number is a hash of a key and the pixel's position. A key is a hash of
a seed, the image's number and a counter. The results of an evaluation therefore
do not depend on batch size, order or sharding. They do not depend on
compilation with XLA either, which changes the random numbers of TensorFlow.
Hashing alternates shifts with multiplications modulo 2**32. The numbers are not
suitable for cryptography.
"""

import math

import numpy as np
from keras import ops

from keras_epsched import backend

_MASK = 0xFFFFFFFF
# Odd and below 2**31, so that the product with 32 bits fits into a signed
# 64-bit integer.
_FIRST_FACTOR = 0x21F0AAAD
_SECOND_FACTOR = 0x7FEB352D


def _integer(value):
    if isinstance(value, (int, np.integer, np.ndarray)):
        # Only 32 bits are used, and JAX accepts no larger numbers.
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
    """Returns a key for the other functions of this module.

    Args:
        *parts: Integer tensors or numbers that broadcast together, for
            example a seed, image numbers of shape `(batch,)`, and a counter.

    Returns:
        An integer tensor of the broadcast shape, with values in [0, 2**32).
    """
    key = _integer(0x9E3779B9)
    for part in parts:
        part = ops.bitwise_and(_integer(part), _integer(_MASK))
        key = _mix(ops.bitwise_xor(_mix(part + 1), key))
    return key


def uniform(key, shape):
    """Returns random numbers from the open interval (0, 1).

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
    # 23 bits plus a half are exact in float32, and never 0 or 1.
    bits = ops.cast(ops.right_shift(bits, _integer(9)), "float32")
    return (bits + 0.5) / 2.0**23


def normal(key, shape):
    """Returns standard normal random numbers. Arguments as in `uniform`."""
    return math.sqrt(2.0) * ops.erfinv(2.0 * uniform(key, shape) - 1.0)


def laplace(key, shape):
    """Returns standard Laplace random numbers. Arguments as in `uniform`."""
    centred = 2.0 * uniform(key, shape) - 1.0
    return -ops.sign(centred) * ops.log1p(-ops.abs(centred))


def signs(key, shape):
    """Returns -1 or 1 with equal probability. Arguments as in `uniform`."""
    return ops.sign(uniform(key, shape) - 0.5)
