"""What Keras does not offer, for TensorFlow."""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf
from keras import ops

from keras_epsched.backend import common

# Holds 32 bits and their product with a factor below 2**31.
HASH_DTYPE = "int64"

# Whether `be_deterministic` was called.
_deterministic = False

cond = ops.cond
fori_loop = ops.fori_loop
while_loop = ops.while_loop


class TrainerSteps(common.TrainerSteps):
    """The steps of a trainer, whose validation is compiled in two parts."""

    # What Keras' `compile` made when `jit_compile` was "auto".
    _auto_loss = None

    def _resolve_auto_jit_compile(self):
        """What `jit_compile="auto"` means; called by Keras' `compile`."""
        if self._distributed() or _has_gpu():
            return super()._resolve_auto_jit_compile()
        self._auto_loss = self._compile_loss
        return resolve_jit_compile("auto", self)

    @property
    def compiler_is_open(self):
        return (
            # Times differ from run to run.
            not _deterministic
            and self._auto_loss is not None
            # Not compiled again since.
            and self._auto_loss is self._compile_loss
            and all(layer.supports_jit for layer in self._flatten_layers())
        )

    def settle_compiler(self, jit_compile):
        self._auto_loss = None
        self.jit_compile = jit_compile

    def _distributed(self):
        return (
            self.distribute_strategy is not tf.distribute.get_strategy()
            or tf.distribute.has_strategy()
        )

    def train_step(self, data):
        """One step, in which each BatchNorm layer is one operation."""
        if self.jit_compile or self._distributed():
            # XLA fuses operations by itself. The replicas of a strategy are
            # traced in threads that share the layers.
            return super().train_step(data)
        with _fused_batchnorm(self.model):
            return super().train_step(data)

    @property
    def jit_compile(self):
        """Whether XLA compiles the steps."""
        if self._jit_compile is None:
            # That of Keras would call what is meant for its `compile`.
            return resolve_jit_compile("auto", self)
        return self._jit_compile

    @jit_compile.setter
    def jit_compile(self, value):
        strategy = self.distribute_strategy
        mirrored = isinstance(strategy, tf.distribute.MirroredStrategy)
        if value and mirrored and strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "XLA cannot compile a step for several replicas of a "
                "`MirroredStrategy`, whose variables lie on several devices: "
                'leave `jit_compile` at "auto", which compiles without XLA '
                f"there. Received: jit_compile={value!r} for "
                f"{strategy.num_replicas_in_sync} replicas"
            )
        keras.Model.jit_compile.fset(self, value)

    def make_test_function(self, force=False):
        """As in Keras, but XLA compiles the attack for one size of a batch.

        The last batch is smaller. It is filled up for the attack, which would
        take long to compile again, and for nothing else.
        """
        made = self.test_function is not None and not force
        super().make_test_function(force)
        if (
            made
            or self.validation_attack is None
            or self.run_eagerly
            or not self.jit_compile
            or self._distributed()
        ):
            return
        clean = self._make_function(self.clean_test_step)
        robust = self._make_function(lambda pair: self.robust_test_step(*pair))

        def step(iterator):
            logs = None
            few = itertools.islice(iterator, self.steps_per_execution)
            for data in few:
                clean([data])
                logs = robust([common.full_batch(self, data)])
            if logs is None:
                raise StopIteration
            return logs

        self.test_function = step


@contextlib.contextmanager
def _fused_batchnorm(model):
    """Makes the BatchNorm layers of a model train by TensorFlow's operation.

    Keras uses several operations, each of which reads all activations. The
    results differ by rounding only.
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        # A subclass may compute something else.
        if type(layer).call is keras.layers.BatchNormalization.call
        and "call" not in vars(layer)
    ]
    for layer in layers:
        # `setattr` would add it to what Keras saves and tracks.
        vars(layer)["call"] = functools.partial(_call_fused, layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["call"]


def _call_fused(layer, inputs, training=None, mask=None):
    """Does what `BatchNormalization.call` does."""
    if (
        not (training and layer.trainable)
        or mask is not None
        or layer.synchronized
        or getattr(layer, "renorm", False)
        or inputs.shape.rank != 4
        or layer.axis not in (-1, 3)
        or inputs.dtype == tf.float64
        # The operation would replace it by this one.
        or layer.epsilon < 1.001e-5
    ):
        call = keras.layers.BatchNormalization.call
        return call(layer, inputs, training=training, mask=mask)
    # As Keras does: half precision overflows.
    inputs = ops.cast(inputs, "float32")
    channels = inputs.shape[-1]
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        inputs,
        ops.cast(layer.gamma, "float32") if layer.scale else tf.ones(channels),
        ops.cast(layer.beta, "float32") if layer.center else tf.zeros(channels),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation returns the unbiased variance, and Keras keeps the biased.
    count = tf.cast(tf.size(inputs) // channels, "float32")
    variance *= (count - 1.0) / count
    for moving, seen in (
        (layer.moving_mean, mean),
        (layer.moving_variance, variance),
    ):
        own = ops.cast(moving, "float32")
        share = layer.momentum
        moving.assign(own * share + seen * (1.0 - share))
    return ops.cast(outputs, layer.compute_dtype)


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
            raise common.independent()
        return gradient

    return value, pullback


def gradients(function: Callable, values: list) -> list:
    """Gradients of a scalar function of a list of tensors."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        # Those of variables as well, which are handles.
        values = [tf.identity(each) for each in values]
        tape.watch(values)
        result = function(values)
    return tape.gradient(result, values, unconnected_gradients="zero")


# As Keras traces its steps: AutoGraph would rewrite the source of all that is
# called, which takes long, for branches on tensors, of which there are none.
_graph = functools.partial(tf.function, autograph=False)


def compile(
    function: Callable,
    jit_compile: bool = False,
    variables: Iterable = (),
    batch_size: int | None = None,
) -> Callable:
    """Compiles a function of tensors into a graph.

    Args:
        function: Function of tensors, or of trees of them.
        jit_compile: Boolean. Whether to compile with XLA.
        variables: What the function reads or changes of Keras' variables;
            a graph of TensorFlow finds them by itself.
        batch_size: Int. If given, the function is compiled once for NumPy
            arrays of up to that many rows, and returns NumPy arrays. Batches
            are filled up where the compiler needs a fixed shape.
    """
    if batch_size is None:
        return _graph(function, jit_compile=jit_compile)
    if jit_compile:
        return common.filled(_graph(function, jit_compile=True), batch_size)
    return _of_any_size(function)


def resolve_jit_compile(jit_compile: bool | str, trained=None) -> bool:
    """Decides whether attacks on a model, and its training, use XLA.

    `"auto"` takes XLA on a GPU. On a CPU XLA computes transformers faster
    than a graph of TensorFlow does, and convolutions several times slower. In
    a training, `"auto"` therefore takes it for networks without spatial
    convolutions that are large enough to repay the longer compilation. The
    choice depends on the layers alone, so that it is the same in each run. In
    an evaluation XLA loses time on a CPU with batches that are not full.

    Args:
        jit_compile: Boolean or `"auto"`.
        trained: `keras.Model` that is trained; `None` in an evaluation.
    """
    if jit_compile != "auto":
        return bool(jit_compile)
    if trained is None:
        return _has_gpu()
    layers = trained._flatten_layers()
    if not all(layer.supports_jit for layer in layers):
        return False
    if _has_gpu():
        return True
    parameters = sum(math.prod(each.shape) for each in trained.weights)
    return parameters >= _LARGE and not any(
        map(_is_spatial_convolution, layers)
    )


def _has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


# From this many parameters on, the time that XLA saves in tens of steps
# exceeds the seconds that it takes longer to compile.
_LARGE = 1_000_000


def _is_spatial_convolution(layer):
    """Whether the windows of a convolution overlap, unlike those of patches."""
    sizes = getattr(layer, "kernel_size", None)
    strides = getattr(layer, "strides", None)
    # Pooling has strides alone.
    if not isinstance(sizes, tuple) or not isinstance(strides, tuple):
        return False
    return any(
        size > stride for size, stride in zip(sizes, strides, strict=True)
    )


def _of_any_size(function):
    """One graph for batches of any size."""
    traced = None

    def run(*arrays):
        nonlocal traced
        arrays = keras.tree.map_structure(tf.convert_to_tensor, arrays)
        if traced is None:
            signature = keras.tree.map_structure(
                lambda each: tf.TensorSpec((None, *each.shape[1:]), each.dtype),
                arrays,
            )
            # Its one graph: TensorFlow warns of many tracings where several
            # functions are traced once each.
            traced = _graph(function).get_concrete_function(*signature)
        return common.to_numpy(traced(*arrays))

    return run


def frozen(variable):
    """The value of a variable, for passes that are never differentiated."""
    return variable.value


def synchronise(model) -> None:
    """Makes variables readable and writable in the midst of `fit`."""


def is_chief() -> bool:
    """True: Keras trains in one process here."""
    return True


def num_replicas() -> int:
    """Replicas of the distribution strategy that each have the weights."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id():
    """Number of this replica under a distribution strategy, else 0."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def pass_over(trainer, batches: int, logs: dict) -> None:
    """Makes `fit` pass over the next batches, without a step.

    Args:
        trainer: `keras.Model`, in `fit`, at the beginning of an epoch.
        batches: Int. How many; a multiple of `steps_per_execution`.
        logs: `dict` of what the callbacks get in these steps.
    """
    together = trainer.steps_per_execution

    def answer(iterator):
        for _ in range(together):
            next(iterator)
        return logs

    common.pass_over(trainer, batches // together, answer)


random_state = common.no_random_state
set_random_state = common.set_no_random_state


def be_deterministic() -> None:
    """Takes only kernels that give the same numbers bit by bit."""
    global _deterministic
    _deterministic = True
    tf.config.experimental.enable_op_determinism()


def peak_memory() -> int | None:
    """Most bytes that the device has held so far; `None` on a CPU."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def step_memory(trainer, data) -> tuple[int, int] | None:
    """Bytes of a training step by the compiler's own analysis.

    Args:
        trainer: `AdversarialTrainer` that has made a step.
        data: Batch of images and labels.

    Returns:
        The bytes of weights and state, and those that a step holds besides;
        `None` where the compiler does not tell.
    """
    return None


def flops(function: Callable, images) -> int:
    """Floating-point operations of products of matrices and convolutions.

    Args:
        function: Function of images.
        images: Array of the images.
    """
    spec = tf.TensorSpec(images.shape, "float32")
    graph = tf.function(function).get_concrete_function(spec).graph
    return 2 * _products_of(graph)


def _products_of(graph):
    """Multiplications of all operations in a graph."""
    total = 0
    for operation in graph.get_operations():
        if operation.type.endswith("PartitionedCall"):
            # Keras has XLA compute convolutions of several groups.
            name = operation.get_attr("f").name
            total += _products_of(graph._get_function(name).graph)
        else:
            total += _products(operation)
    return total


def _products(operation):
    """Multiplications of an operation in a graph."""
    if operation.type == "Einsum":
        terms = operation.get_attr("equation").decode().split("->")[0]
        sizes = {}
        for term, each in zip(terms.split(","), operation.inputs, strict=True):
            sizes.update(zip(term, each.shape, strict=True))
        return math.prod(sizes.values())
    if operation.type == "Conv2D":
        summed = operation.inputs[1].shape[:3].num_elements()
    elif operation.type == "DepthwiseConv2dNative":
        summed = operation.inputs[1].shape[:2].num_elements()
    elif operation.type == "MatMul":
        transposed = operation.get_attr("transpose_a")
        summed = operation.inputs[0].shape[0 if transposed else 1]
    elif operation.type.startswith("BatchMatMul"):
        transposed = operation.get_attr("adj_x")
        summed = operation.inputs[0].shape[-2 if transposed else -1]
    else:
        return 0
    return summed * operation.outputs[0].shape.num_elements()
