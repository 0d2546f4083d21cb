"""What Keras does not offer, for TensorFlow."""

from collections.abc import Callable

import tensorflow as tf


def vjp(function: Callable, x):
    """Evaluates `function` and prepares its vector-Jacobian product.

    Only `x` is watched, so no gradient of a weight is ever computed.

    Args:
        function: Function of one tensor.
        x: Float tensor.

    Returns:
        A pair `(value, pullback)`; `pullback(cotangent)` is the gradient of
        `sum(value * cotangent)` with respect to `x`.

    Raises:
        ValueError: From `pullback`, if the value does not depend on `x` by
            differentiable operations.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)

    def pullback(cotangent):
        gradient = tape.gradient(value, x, output_gradients=cotangent)
        if gradient is None:
            raise ValueError(
                "the logits do not depend on the image by differentiable "
                "operations, so no gradient attack is possible. Preprocess "
                "inside the model with Keras layers, not with rounding, "
                "integer casts or NumPy functions."
            )
        return gradient

    return value, pullback


def compile(function: Callable, jit_compile: bool | str = "auto") -> Callable:
    """Compiles a function of tensors into a graph.

    Args:
        function: Function of tensors, of fixed shapes.
        jit_compile: Boolean or `"auto"`: use XLA. On a GPU XLA is the faster
            choice; on a CPU it slows convolutions down several times, so
            `"auto"` takes it where there is a GPU.
    """
    if jit_compile == "auto":
        jit_compile = bool(tf.config.list_physical_devices("GPU"))
    return tf.function(function, jit_compile=jit_compile)


def replica_id():
    """Number of this replica under a distribution strategy, else 0."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group
