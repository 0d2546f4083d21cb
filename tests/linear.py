"""Linear models, whose answer is known, and what runs an attack on them."""

import keras
import numpy as np
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import noise

NORMS = ["linf", "l2", "l1"]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
DUALS = {"linf": "l1", "l2": "l2", "l1": "linf"}


def numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def run(
    attack,
    logits_fn,
    images,
    labels,
    epsilon,
    value_range=(0, 255),
    method="search",
    seed=0,
    jit_compile=False,
    variables=(),
    **start,
):
    """Runs one compiled attack and returns arrays.

    `variables` are those of the network, if it changes any.
    """
    method = getattr(attack, method)

    def attacked(images, labels, epsilon, key):
        return method(
            logits_fn, images, labels, epsilon, key, value_range, **start
        )

    return numpy(
        backend.compile(attacked, jit_compile, variables)(
            ops.convert_to_tensor(images, "float32"),
            ops.convert_to_tensor(labels, "int32"),
            ops.convert_to_tensor(epsilon, "float32"),
            noise.make_key(seed, np.arange(len(images))),
        )
    )


def size(delta, norm):
    flat = np.asarray(delta, "float64").reshape(len(delta), -1)
    return np.linalg.norm(flat, ORDERS[norm], axis=1)


def assert_within(moved, images, epsilon, norm, value_range):
    """In the box exactly, and in the ball to two ulp of its largest pixel."""
    low, high = value_range
    assert moved.dtype == np.float32
    assert moved.min() >= low and moved.max() <= high
    radius = np.asarray(epsilon, "float32").astype("float64") * (high - low)
    slack = 2 * np.spacing(np.float32(max(abs(low), abs(high))))
    delta = moved.astype("float64") - images.astype("float64")
    assert (size(delta, norm) <= radius + slack).all()


class Linear:
    """Linear classifier of pixels around mid-range, with its exact radii."""

    def __init__(self, shape, num_classes, n=256):
        rng = np.random.default_rng(1)
        pixels = np.prod(shape)
        images = 128 + rng.uniform(-10, 10, (4 * n, *shape))
        images = images.astype("float32")
        weights = rng.standard_normal((pixels, num_classes))
        if num_classes == 2:
            weights[:, 0] = 0.0
        self.weights = weights.astype("float32")
        logits = self.logits64(images)
        self.labels = logits.argmax(-1)
        margins = logits.max(-1) - np.sort(logits, -1)[:, -2]
        # Close to the boundary rounding decides, not the attack.
        clear = np.argsort(-margins)[:n]
        self.images, self.labels = images[clear], self.labels[clear]

    def logits64(self, images):
        centred = images.reshape(len(images), -1).astype("float64") - 128
        return centred @ self.weights.astype("float64")

    def __call__(self, images):
        return ops.reshape(images - 128.0, (-1, len(self.weights))) @ (
            ops.convert_to_tensor(self.weights)
        )

    def radii(self, norm):
        """Epsilon from which on an image can be broken."""
        logits = self.logits64(self.images)
        weights = self.weights.astype("float64")
        rows = np.arange(len(logits))
        margins = logits[rows, self.labels][:, None] - logits
        differences = weights[:, self.labels][:, :, None] - weights[:, None]
        dual = np.linalg.norm(differences, ORDERS[DUALS[norm]], axis=0)
        margins[rows, self.labels] = np.inf
        dual[rows, self.labels] = 1.0
        return (margins / dual).min(1) / 255.0

    def epsilons(self, norm):
        """Radii at known ratios to the exact ones: half of them close to 1."""
        rng = np.random.default_rng(2)
        n = len(self.images)
        spread = np.where(np.arange(n) % 2, 0.05, 0.7)
        ratio = np.exp(spread * rng.uniform(-1, 1, n))
        epsilon = (self.radii(norm) / ratio).astype("float32")
        return epsilon, self.radii(norm) / epsilon.astype("float64")
