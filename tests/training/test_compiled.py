"""Which passes of the network are compiled in a training, and how often."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from networks import (
    CLASSES,
    SHAPE,
    conv_net,
    drive,
    make_data,
    make_trainer,
    not_on,
    only_on,
    runs_eagerly,
    weights_of,
)

import keras_epsched as ke
from keras_epsched.training import first_batch

EPSILON = 8 / 255


class Watch(keras.layers.Layer):
    """Remembers the sizes of the batches that Python runs through it."""

    def __init__(self):
        super().__init__()
        # Not part of what identifies a network.
        self._eager, self._traced = [], []

    def call(self, inputs):
        seen = self._eager if runs_eagerly(inputs) else self._traced
        seen.append(inputs.shape[0])
        return inputs


def watched(batchnorm=True):
    """A network, and the layer at its door."""
    watch = Watch()
    inputs = keras.Input(SHAPE)
    net = conv_net(dropout=0, batchnorm=batchnorm)
    model = keras.Model(inputs, net(watch(inputs)))
    watch._traced.clear()
    return model, watch


@not_on("torch", "it runs eagerly")
def test_no_pass_of_a_network_is_left_to_single_operations():
    model, watch = watched()
    images, labels = make_data(16)
    trainer = make_trainer(model, validation_attack=ke.attacks.PGD(1))
    trainer.fit(
        images,
        labels,
        batch_size=8,
        validation_data=make_data(6),
        callbacks=drive(EPSILON),
        verbose=0,
    )
    ke.training.reestimate_batchnorm(trainer, [(images, labels)])
    ke.evaluate(
        model, (images, labels), [EPSILON], ke.attacks.PGD(1), verbose=0
    )
    assert watch._traced
    assert watch._eager == []


@only_on("tensorflow", "elsewhere Keras itself looks at the network")
@pytest.mark.parametrize("fits", [1, 2])
def test_the_looks_at_data_are_traced_once(fits):
    model, watch = watched(batchnorm=False)
    trainer = make_trainer(model)
    for _ in range(fits):
        trainer.fit(
            *make_data(16),
            batch_size=8,
            # Its look is filled up to that of the training.
            validation_data=make_data(6),
            callbacks=drive(EPSILON),
            verbose=0,
        )
    # The looks, the gradient of the attack, the step, the validation.
    assert watch._traced == [None, 8, 8, None]


@only_on("jax", "XLA is its one compiler, which says what it compiles")
def test_jax_compiles_as_much_for_a_deep_network():
    import jax

    compiled = []

    def listen(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    def fit(depth):
        """What is compiled for a network with grouped convolutions."""
        inputs = x = keras.Input(SHAPE)
        for level in range(1, depth + 1):
            x = keras.layers.Conv2D(4 * level, 3, padding="same")(x)
            x = keras.layers.Conv2D(4 * level, 3, groups=4 * level)(x)
        outputs = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x))
        trainer = make_trainer(keras.Model(inputs, outputs))
        compiled.clear()
        trainer.fit(
            *make_data(16),
            batch_size=8,
            validation_data=make_data(6),
            callbacks=drive(EPSILON),
            verbose=0,
        )
        return len(compiled)

    jax.monitoring.register_event_duration_secs_listener(listen)
    fit(1)
    # What is small and was compiled before is not compiled again.
    assert fit(1) == fit(3) == 3


@pytest.mark.parametrize("built", [True, False])
def test_the_look_at_data_builds_a_network_and_changes_nothing(built):
    class Drawing(keras.Model):
        """A network that draws random numbers in inference too."""

        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(CLASSES)
            self.seeds = keras.random.SeedGenerator(0)

        def call(self, images):
            flat = ops.reshape(images, (-1, int(np.prod(SHAPE))))
            noise = keras.random.normal((1, CLASSES), seed=self.seeds)
            return self.dense(flat) + noise

    images, labels = make_data(8)
    model = Drawing()
    if built:
        model(images)
    trainer = make_trainer(model)
    before = ops.convert_to_numpy(model.seeds.state)
    first_batch.check(trainer, images, labels)
    assert trainer.num_classes == CLASSES
    assert model.dense.kernel.shape == (int(np.prod(SHAPE)), CLASSES)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.seeds.state), before
    )


@only_on("tensorflow", "elsewhere gradients need what Python cannot read")
def test_a_network_that_only_runs_eagerly_is_trained():
    class Branching(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(CLASSES)

        def call(self, images):
            x = images / 255.0 if float(ops.max(images)) > 1 else images
            return self.dense(ops.reshape(x, (-1, int(np.prod(SHAPE)))))

    images, labels = make_data(8)
    model = Branching()
    model(images)
    trainer = make_trainer(model, compile_with={"run_eagerly": True})
    before = weights_of(model)[0]
    trainer.fit(images, labels, callbacks=drive(EPSILON), verbose=0)
    assert np.abs(weights_of(model)[0] - before).max() > 0


_TWO_REPLICAS = """
import sys
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
sys.path.insert(0, sys.argv[1])
from networks import drive, make_data, make_trainer
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    try:
        make_trainer(compile_with={"jit_compile": True})
    except ValueError as error:
        print("refused:", error)
    trainer = make_trainer(compile_with={"jit_compile": "auto"})
trainer.fit(*make_data(), callbacks=drive(), verbose=0)
with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
    trainer = make_trainer(compile_with={"jit_compile": True})
trainer.fit(*make_data(), callbacks=drive(), verbose=0)
print("trained")
"""


@pytest.mark.ci
@only_on("tensorflow", "tf.distribute is TensorFlow's own")
def test_xla_is_refused_for_several_replicas():
    tests = pathlib.Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _TWO_REPLICAS, str(tests)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'leave `jit_compile` at "auto"' in done.stdout
    assert "jit_compile=True for 2 replicas" in done.stdout
    assert "trained" in done.stdout
