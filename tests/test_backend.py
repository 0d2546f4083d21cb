"""The seam keeps one contract on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_epsched import backend

X = np.array([[1.0, 2.0], [3.0, -4.0]], "float32")


def tensor(values):
    return ops.convert_to_tensor(values, "float32")


def test_a_product_with_the_jacobian():
    value, pullback = backend.vjp(ops.square, tensor(X))
    np.testing.assert_array_equal(ops.convert_to_numpy(value), X**2)
    gradient = pullback(tensor([[1.0, 0.0], [2.0, 0.5]]))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(gradient), [[2.0, 0.0], [12.0, -4.0]]
    )


@pytest.mark.parametrize(
    "function",
    [
        ops.stop_gradient,
        lambda x: ops.cast(ops.cast(x, "int32"), "float32"),
        lambda x: ops.ones((2, 2)),
    ],
    ids=["detached", "integers", "constant"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_what_does_not_depend_on_the_image_is_an_error(function, compiled):
    def gradient(x):
        value, pullback = backend.vjp(function, x)
        return pullback(ops.ones_like(value))

    if compiled:
        gradient = backend.compile(gradient)
    with pytest.raises(ValueError, match="differentiable"):
        gradient(tensor(X))


def test_no_gradient_of_a_weight_is_left_behind():
    layer = keras.layers.Dense(3)
    layer.build((None, 2))

    def gradient(x):
        value, pullback = backend.vjp(layer, x)
        return pullback(ops.ones_like(value))

    found = backend.compile(gradient, variables=layer.variables)(X)
    kernel = ops.convert_to_numpy(layer.kernel.value)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), np.tile(kernel.sum(1), (2, 1)), rtol=1e-6
    )
    if keras.backend.backend() == "torch":
        assert layer.kernel.value.grad is None
        assert not found.requires_grad


def test_compiled_functions_read_and_change_variables():
    total = keras.Variable(1.0, trainable=False)
    factor = keras.Variable(2.0)
    seeds = keras.random.SeedGenerator(0)

    def step(x):
        total.assign(total + ops.sum(factor * x))
        return keras.random.uniform((4,), seed=seeds)

    variables = [total, factor, seeds.state]
    compiled = backend.compile(step, variables=variables)
    draws = [ops.convert_to_numpy(compiled(X)) for _ in range(2)]
    assert np.abs(draws[0] - draws[1]).max() > 0.01
    assert float(ops.convert_to_numpy(total.value)) == 1.0 + 2 * 2 * X.sum()
    # They are no constants of what was compiled.
    factor.assign(0.0)
    compiled(X)
    assert float(ops.convert_to_numpy(total.value)) == 1.0 + 2 * 2 * X.sum()


def test_trees_of_arrays_go_in_and_come_out():
    def add(pair, more):
        return {"sum": pair[0] + pair[1] + more}

    found = backend.compile(add)((X, X), X)
    np.testing.assert_array_equal(ops.convert_to_numpy(found["sum"]), 3 * X)
