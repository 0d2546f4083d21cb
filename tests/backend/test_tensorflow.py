"""What is particular to TensorFlow: the compiler, and BatchNorm."""

import contextlib

import keras
import numpy as np
import pytest
from networks import CLASSES, conv_net, make_data, make_trainer

from keras_epsched import backend

if keras.backend.backend() != "tensorflow":
    pytest.skip("only TensorFlow has a choice", allow_module_level=True)

import tensorflow as tf

from keras_epsched.backend import tensorflow as seam

on_a_cpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")),
    reason="on a GPU Keras' choice stays",
)


class Uncompilable(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.supports_jit = False

    def call(self, inputs):
        return inputs


def large(*layers, width=1000):
    """A network of patches, of a million weights by default."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 127.5, -1.0),
            keras.layers.Conv2D(width, 4, strides=4),
            keras.layers.Dense(width),
            *layers,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(CLASSES),
        ]
    )


@on_a_cpu
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (large(), True),
        (large(width=10), False),
        (large(keras.layers.DepthwiseConv2D(3, padding="same")), False),
        (large(keras.layers.Conv2D(8, (1, 2))), False),
        (large(keras.layers.Conv2D(8, 1)), True),
        (large(keras.layers.MaxPooling2D(2)), True),
        (large(Uncompilable()), False),
        (keras.Sequential([large(keras.layers.Conv2D(8, 2))]), False),
    ],
    ids="patches small depthwise wide pointwise pooling unable nested".split(),
)
def test_the_compiler_that_is_faster_for_a_network(model, expected, recwarn):
    assert backend.resolve_jit_compile("auto", model) is expected
    assert backend.resolve_jit_compile("auto") is False
    assert make_trainer(model).jit_compile is expected
    assert not recwarn.list
    for given in (True, False):
        assert backend.resolve_jit_compile(given, model) is given
        if not given or all(x.supports_jit for x in model._flatten_layers()):
            trainer = make_trainer(model, {"jit_compile": given})
            assert trainer.jit_compile is given


@pytest.mark.ci
@on_a_cpu
def test_both_compilers_train_alike():
    images, labels = make_data()
    found = []
    for jit_compile in ("auto", False):
        keras.utils.set_random_seed(0)
        model = large()
        trainer = make_trainer(model, {"jit_compile": jit_compile})
        trainer.epsilon = 8 / 255
        trainer.fit(images, labels, batch_size=8, verbose=0, shuffle=False)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def operations(trainer, data):
    step = tf.function(trainer.train_step).get_concrete_function(data)
    graphs = [step.graph, *(each.graph for each in _functions(step.graph))]
    return [each.type for graph in graphs for each in graph.get_operations()]


def _functions(graph):
    return [graph._get_function(name) for name in graph._functions]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        pytest.param({"center": False}, marks=pytest.mark.ci),
        pytest.param({"scale": False}, marks=pytest.mark.ci),
        pytest.param({"dtype": "mixed_bfloat16"}, marks=pytest.mark.ci),
    ],
    ids=str,
)
def test_batchnorm_is_one_operation(arguments, monkeypatch):
    images, labels = make_data(7)

    def train():
        keras.utils.set_random_seed(0)
        norm = keras.layers.BatchNormalization(momentum=0.5, **arguments)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Rescaling(1 / 127.5, -1.0),
                keras.layers.Conv2D(4, 3),
                norm,
                keras.layers.Flatten(),
                keras.layers.Dense(CLASSES, dtype="float32"),
            ]
        )
        trainer = make_trainer(model)
        trainer.epsilon = 4 / 255
        for _ in range(3):
            trainer.train_on_batch(images, labels)
        assert "call" not in vars(norm)
        data = tf.constant(images), tf.constant(labels)
        return model.get_weights(), operations(trainer, data)

    weights, fused = train()
    assert "FusedBatchNormV3" in fused
    monkeypatch.setattr(
        seam, "_fused_batchnorm", lambda model: contextlib.nullcontext()
    )
    expected, several = train()
    assert "FusedBatchNormV3" not in several
    tolerance = 2e-2 if "dtype" in arguments else 1e-4
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


class OwnNorm(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def net_with(norm):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.Flatten()(norm(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(x))


@pytest.mark.parametrize(
    "norm",
    [
        OwnNorm(),
        *(
            pytest.param(
                keras.layers.BatchNormalization(**each), marks=pytest.mark.ci
            )
            for each in ({"axis": 1}, {"epsilon": 1e-6}, {"trainable": False})
        ),
    ],
    ids="subclass axis epsilon frozen".split(),
)
def test_batchnorm_that_the_operation_cannot_compute(norm):
    images, labels = make_data(8)
    trainer = make_trainer(net_with(norm))
    data = tf.constant(images), tf.constant(labels)
    trainer.train_on_batch(*data)
    assert "FusedBatchNormV3" not in operations(trainer, data)


def test_an_error_in_a_step_leaves_batchnorm_as_it_was():
    model = conv_net()
    with pytest.raises(RuntimeError), seam._fused_batchnorm(model):
        raise RuntimeError
    assert not any("call" in vars(layer) for layer in model.layers)
