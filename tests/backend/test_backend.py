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


def counting(loop):
    """A function whose body, in a loop, draws, counts and differentiates."""
    seeds = keras.random.SeedGenerator(0)
    calls = keras.Variable(0.0, trainable=False)
    weight = keras.Variable(2.0)

    def network(x):
        calls.assign(calls + 1.0)
        draw = keras.random.uniform((2, 2), seed=seeds)
        return weight * ops.square(x) + 0.0 * draw, draw

    def body(index, carry):
        x, draws = carry
        value, pullback = backend.vjp(lambda x: network(x)[0], x)
        draw = network(x)[1]
        x = x + 0.0 * pullback(ops.ones_like(value))
        return x, draws + ops.cast(index == 1, "float32") * draw

    def nested(index, carry):
        return backend.fori_loop(0, 2, body, carry)

    def run(x):
        begin = x, ops.zeros_like(x)
        if loop == "while":
            _, *carry = backend.while_loop(
                lambda index, *_: index < 2,
                lambda index, *carry: (index + 1, *body(index, carry)),
                (ops.convert_to_tensor(0), *begin),
            )
            return carry[1]
        chosen = body if loop == "for" else nested
        return backend.fori_loop(0, 2, chosen, begin)[1]

    return run, calls, [seeds.state, calls, weight]


@pytest.mark.parametrize(
    "loop, count", [("for", 4), ("while", 4), ("nested", 8)]
)
def test_loops_change_variables(loop, count):
    run, calls, variables = counting(loop)
    compiled = backend.compile(run, variables=variables)
    draws = [ops.convert_to_numpy(compiled(tensor(X))) for _ in range(2)]
    assert np.abs(draws[0] - draws[1]).min() > 0
    assert float(ops.convert_to_numpy(calls.value)) == 2 * count


def test_a_loop_in_a_branch_leaves_variables_alone():
    weight = keras.Variable(2.0)

    def run(x):
        def loop():
            return backend.fori_loop(
                0, 3, lambda _, x: x + ops.stop_gradient(weight.value), x
            )

        return backend.cond(ops.sum(x) > 0, loop, lambda: x)

    compiled = backend.compile(run, variables=[weight])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(compiled(tensor(X))), X + 6
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(compiled(tensor(-9 + X))), X - 9
    )
    assert float(ops.convert_to_numpy(weight.value)) == 2.0


def test_an_error_in_a_loop_leaves_nothing_behind():
    total = keras.Variable(1.0, trainable=False)

    def fails(x):
        def body(_, x):
            raise RuntimeError("on purpose")

        return backend.fori_loop(0, 2, body, x)

    with pytest.raises(RuntimeError, match="on purpose"):
        backend.compile(fails, variables=[total])(tensor(X))
    # Outside of `compile` a loop has nothing to carry.
    found = backend.fori_loop(0, 2, lambda _, x: x + total.value, tensor(X))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), X + 2)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_batches_of_any_size_are_compiled_once(jit_compile):
    traced = []

    def scaled(rows, more):
        traced.append(rows.shape)
        return {"rows": rows * more[0][:, None], "none": None}

    run = backend.compile(scaled, jit_compile, batch_size=4)
    rows = np.arange(8.0, dtype="float32").reshape(4, 2)
    factors = np.array([2.0, 3.0, 4.0, 5.0], "float32")
    for size in (3, 4, 1):
        found = run(rows[:size], (factors[:size],))
        assert found["none"] is None
        assert isinstance(found["rows"], np.ndarray)
        np.testing.assert_array_equal(
            found["rows"], rows[:size] * factors[:size, None]
        )
    if keras.backend.backend() != "torch":
        assert len(traced) == 1


def test_products_of_a_network_are_counted():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Conv2D(4, 1, groups=2)(x)
    x = keras.layers.Reshape((64, 4))(x)
    x = keras.layers.EinsumDense("abc,cd->abd", (64, 6))(x)
    x = keras.layers.Dot(axes=2)([x, x])
    outputs = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    network = keras.Model(inputs, outputs)
    images = np.zeros((2, 8, 8, 3), "float32")
    found = backend.flops(lambda x: network(x, training=False), images)
    # Of a place: kernels, then 6 channels, 64 similarities and their logits.
    products = 27 * 4 + 9 * 4 + 2 * 4 + 4 * 6 + 64 * 6 + 64 * 5
    if keras.backend.backend() == "jax":
        # XLA counts other operations too, and nothing of the padding.
        assert found == pytest.approx(2 * 2 * 64 * products, rel=0.05)
    else:
        assert found == 2 * 2 * 64 * products
