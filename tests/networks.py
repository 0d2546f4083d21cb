"""Tiny networks and data with known answers, shared by the tests."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_epsched as ke

SHAPE = (8, 8, 3)
CLASSES = 3
# Whether what is compiled is traced first, and then no more.
TRACES = keras.backend.backend() != "torch"


def conv_net(dropout=0.3, batchnorm=True, width=8):
    """A small network from pixels to logits; the same one at each call."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(inputs)
    x = keras.layers.Conv2D(width, 3, strides=2, padding="same")(x)
    if batchnorm:
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=7)(x)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(CLASSES, dtype="float32")(x)
    return keras.Model(inputs, outputs, name="conv_net")


def linear_net(weights):
    """The model `flatten(pixels) @ weights`, without a bias."""
    inputs = keras.Input(SHAPE)
    x = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(weights.shape[1], use_bias=False)
    model = keras.Model(inputs, dense(x), name="linear_net")
    dense.set_weights([weights.astype("float32")])
    return model


def linear_weights(classes=CLASSES, seed=0):
    """Weights for which logits of pixels are of the order of one."""
    size = (int(np.prod(SHAPE)), classes)
    return np.random.default_rng(seed).normal(0, 1e-3, size)


def make_data(count=24, seed=0):
    """Images of three noisy patterns, and their integer labels."""
    patterns = np.random.default_rng(99).uniform(60, 195, (CLASSES, *SHAPE))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = patterns[labels] + rng.normal(0, 40, (count, *SHAPE))
    return np.clip(images, 0, 255).astype("float32"), labels.astype("int64")


def cross_entropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, **kwargs
    )


def make_trainer(model=None, compile_with=None, attack=None, **kwargs):
    """A compiled trainer with a cheap attack."""
    trainer = ke.AdversarialTrainer(
        conv_net() if model is None else model,
        attack=attack or ke.attacks.PGD(steps=2),
        seed=kwargs.pop("seed", 3),
        **kwargs,
    )
    trainer.compile(
        **{
            "optimizer": keras.optimizers.SGD(0.05),
            "loss": cross_entropy(),
            "metrics": ["accuracy"],
            **(compile_with or {}),
        }
    )
    return trainer


def trained_net(count=96, epochs=4, epsilon=4 / 255):
    """A small network that withstands a little."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    trainer = make_trainer(
        conv_net(batchnorm=False),
        compile_with={"optimizer": keras.optimizers.Adam(3e-3)},
    )
    trainer.fit(
        *make_data(count), epochs=epochs, callbacks=drive(epsilon), verbose=0
    )
    return trainer.model


def drive(epsilon=8 / 255):
    """Callbacks that hold epsilon constant."""
    schedule = ke.schedules.Constant(epsilon)
    return [ke.callbacks.EpsilonScheduler(schedule)]


def weights_of(model):
    return [np.asarray(each) for each in model.get_weights()]


def whenever_it_runs(function, value):
    """Calls a Python function with a value of the running graph."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        tf.py_function(function, [value], [])
    elif name == "jax":
        import jax

        jax.debug.callback(function, value)
    else:
        function(value)


def runs_eagerly(tensor):
    """Whether a tensor is a value, not a part of what is compiled."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    if name == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    return True


def logits_of(model, images):
    """Logits as an array."""
    return ops.convert_to_numpy(model(images, training=False))


class CompileCounter:
    """Counts what is compiled, and how often a compiled function is traced."""

    def __init__(self, compile):
        self.compile = compile
        self.clear()

    def clear(self):
        self.made = self.traced = 0

    def __call__(self, function, *args, **kwargs):
        self.made += 1

        def counted(*arguments):
            # Torch has no traces: it runs the function itself.
            self.traced += TRACES
            return function(*arguments)

        return self.compile(counted, *args, **kwargs)

    @property
    def nothing(self):
        return self.made == self.traced == 0


class ShapesSeen(ke.attacks.PGD):
    """An attack without random starts, and the sizes of its batches.

    Where it is compiled, those that it was traced for.
    """

    def __init__(self, steps):
        super().__init__(steps, random_start=False)
        self.seen = []

    def get_config(self):
        return {"steps": self.steps}

    def search_problem(self, problem, *args):
        self.seen.append(problem.images.shape[0])
        return super().search_problem(problem, *args)


def only_on(backend, reason):
    """Skips a test on the other backends."""
    return pytest.mark.skipif(keras.backend.backend() != backend, reason=reason)


def not_on(backend, reason):
    """Skips a test on one of the backends."""
    return pytest.mark.skipif(keras.backend.backend() == backend, reason=reason)
