"""What Keras does not offer, for torch; see tensorflow.py for the contracts."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import torch
from keras import ops
from torch.utils.flop_counter import FlopCounterMode

from keras_epsched.backend import common

HASH_DTYPE = "int64"

TrainerSteps = common.TrainerSteps
cond = ops.cond
while_loop = ops.while_loop


def vjp(function: Callable, x):
    """Evaluates `function` and prepares its vector-Jacobian product."""
    # Evaluation runs without gradients, and all else that attacks do.
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = function(x)

    def pullback(cotangent):
        if not value.requires_grad:
            raise common.independent()
        (gradient,) = torch.autograd.grad(
            value, x, cotangent, allow_unused=True
        )
        if gradient is None:
            raise common.independent()
        return gradient

    return value.detach(), pullback


def gradients(function: Callable, values: list) -> list:
    """Gradients of a scalar function of a list of tensors."""
    with torch.enable_grad():
        values = [each.detach().requires_grad_() for each in values]
        return list(
            torch.autograd.grad(
                function(values), values, materialize_grads=True
            )
        )


def compile(
    function: Callable,
    jit_compile: bool = False,
    variables: Iterable = (),
    batch_size: int | None = None,
) -> Callable:
    """A function of arrays that keeps no graph for gradients.

    `torch.compile` is used where `jit_compile=True` asks for it, as Keras
    does; its first calls take minutes.
    """

    def run(*arguments):
        tensors = keras.tree.map_structure(ops.convert_to_tensor, arguments)
        with torch.no_grad():
            return function(*tensors)

    if not jit_compile:
        return (
            run if batch_size is None else lambda *x: common.to_numpy(run(*x))
        )
    compiled = torch.compile(run)
    return (
        compiled if batch_size is None else common.filled(compiled, batch_size)
    )


def resolve_jit_compile(jit_compile: bool | str, trained=None) -> bool:
    """Whether `torch.compile` is asked for: it takes minutes at first."""
    return jit_compile is True


def fori_loop(lower: int, upper: int, body: Callable, carry):
    """A counted loop, whose index is a tensor as on the other backends."""
    return ops.fori_loop(
        lower,
        upper,
        lambda index, carry: body(ops.convert_to_tensor(index), carry),
        carry,
    )


def frozen(variable):
    """The value of a variable, for passes that are never differentiated."""
    return variable.value.detach()


def synchronise(model) -> None:
    """Makes variables readable and writable in the midst of `fit`."""


def is_chief() -> bool:
    """True: Keras trains in one process here."""
    return True


def num_replicas() -> int:
    """1: Keras has no distribution on torch."""
    return 1


def replica_id():
    """0: Keras has no distribution on torch."""
    return 0


def pass_over(trainer, batches: int, logs: dict) -> None:
    """Makes `fit` pass over the next batches, without a step."""
    # Keras has one step a call here.
    common.pass_over(trainer, batches, lambda data: logs)


def random_state() -> list:
    """State of torch's own generators: Keras' dropout draws from them."""
    states = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    return [each.numpy() for each in states]


def set_random_state(states: list) -> None:
    """Takes what `random_state` returned."""
    first, *others = [torch.from_numpy(np.array(each)) for each in states]
    torch.set_rng_state(first)
    torch.cuda.set_rng_state_all(others)


def be_deterministic() -> None:
    """Takes only kernels that give the same numbers bit by bit."""
    torch.use_deterministic_algorithms(True)


def peak_memory() -> int | None:
    """Most bytes that the device has held so far; `None` on a CPU."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_allocated()


def step_memory(trainer, data) -> tuple[int, int] | None:
    """`None`: there is no compiler that tells."""
    return None


def flops(function: Callable, images) -> int:
    """Floating-point operations of products of matrices and convolutions."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(images)
    return counter.get_total_flops()
