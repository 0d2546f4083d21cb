"""What Keras does not offer, for JAX; see tensorflow.py for the contracts."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable

import jax
import keras
from keras import ops

from keras_epsched.backend import common

# JAX has no 64 bits by default, and products of 32 bits wrap around.
HASH_DTYPE = "uint32"


class TrainerSteps:
    """The steps of a trainer, as functions from state to state."""

    # There is one compiler.
    compiler_is_open = False

    def make_train_function(self, force=False):
        """As of Keras, but what it makes is compiled anew.

        JAX takes what it compiled before of an equal function, and methods of
        one object are equal, whatever the object holds by now.
        """
        step = self.train_step
        vars(self)["train_step"] = lambda state, data: step(state, data)
        try:
            super().make_train_function(force)
        finally:
            del vars(self)["train_step"]

    def train_step(self, state, data):
        """One step: perturb, then the step of `keras.Model`."""
        trainable, others, optimizer, metrics = state
        with self._scope(trainable, others, metrics) as scope:
            data = self.perturb(data)
            perturbations = self.weight_perturbations(data)
        # Seeds were drawn, and clean accuracy was measured.
        others, metrics = self._rest(scope)
        # In the order of the weights; None for those that stay.
        perturbations = [
            perturbations.get(id(each)) for each in self.trainable_variables
        ]
        trainable = [
            value if change is None else value + change
            for value, change in zip(trainable, perturbations, strict=True)
        ]
        state = trainable, others, optimizer, metrics
        with self.in_step():
            logs, (trainable, *rest) = super().train_step(state, data)
        trainable = [
            value if change is None else value - change
            for value, change in zip(trainable, perturbations, strict=True)
        ]
        return logs, (trainable, *rest)

    def test_step(self, state, data):
        """One step of validation: clean, and robust if asked for."""
        logs, state = self.clean_test_step(state, data)
        if self.validation_attack is None:
            return logs, state
        return self.robust_test_step(state, data)

    def clean_test_step(self, state, data):
        """The step of `keras.Model`."""
        return super().test_step(state, data)

    def robust_test_step(self, state, data, count=None):
        """The attack on a batch, whose first `count` images are meant."""
        with self._scope(*state) as scope:
            self.measure_robustness(data, count)
            logs = self.get_metrics_result()
        return logs, (state[0], *self._rest(scope))

    def make_test_function(self, force=False):
        """As in Keras, but the attack is compiled for one size of a batch.

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
            or keras.distribution.distribution() is not None
        ):
            return
        clean = jax.jit(self.clean_test_step, donate_argnums=0)
        robust = jax.jit(self.robust_test_step, donate_argnums=0)

        def step(state, data):
            _, state = clean(state, data)
            return robust(state, *common.full_batch(self, data))

        self.test_function = self._make_function(step)

    def _scope(self, trainable, others, metrics):
        variables = (
            *self.trainable_variables,
            *self.non_trainable_variables,
            *self.metrics_variables,
        )
        values = *trainable, *others, *metrics
        return keras.StatelessScope(list(zip(variables, values, strict=True)))

    def _rest(self, scope):
        return tuple(
            [common.current(scope, each) for each in variables]
            for variables in (
                self.non_trainable_variables,
                self.metrics_variables,
            )
        )


def vjp(function: Callable, x):
    """Evaluates `function` and prepares its vector-Jacobian product."""
    depends = []

    @jax.custom_jvp
    def output(value):
        return value

    @output.defjvp
    def follow(primals, tangents):
        # Called only if there is a tangent: JAX itself would answer with a
        # gradient of zeros.
        depends.append(True)
        return primals[0], tangents[0]

    value, pull = jax.vjp(lambda x: output(function(x)), x)

    def pullback(cotangent):
        if not depends:
            raise common.independent()
        return pull(cotangent)[0]

    return value, pullback


def gradients(function: Callable, values: list) -> list:
    """Gradients of a scalar function of a list of tensors."""
    return jax.grad(function)(values)


def compile(
    function: Callable,
    jit_compile: bool = True,
    variables: Iterable = (),
    batch_size: int | None = None,
) -> Callable:
    """Compiles a function of arrays; JAX has no other compiler than XLA.

    Values of `variables` are arguments of what is compiled, not constants in
    it, and those that the function changes are assigned.
    """
    variables = list(variables)

    def pure(values, *arguments):
        if not variables:
            return function(*arguments), {}
        with _Variables(variables, values) as held:
            result = function(*arguments)
        changed = {
            place: value
            for place, value in enumerate(held.values())
            if value is not values[place]
        }
        return result, changed

    compiled = jax.jit(pure)

    def run(*arguments):
        values = [_local(variable.value) for variable in variables]
        result, changed = compiled(values, *arguments)
        for place, value in changed.items():
            variables[place].assign(value)
        return result

    return run if batch_size is None else common.filled(run, batch_size)


def resolve_jit_compile(jit_compile: bool | str, trained=None) -> bool:
    """True: JAX has no other compiler than XLA."""
    return True


def _local(value):
    """The copy that a process has of a value that several share."""
    # With shared ones all would have to call the function equally often.
    shared = not getattr(value, "is_fully_addressable", True)
    return value.addressable_data(0) if shared else value


class _Variables:
    """Variables of a function that is being traced, with their values.

    A loop inside must carry them, for its body may change some, as the layers
    do that draw random numbers in inference too. JAX takes those out of the
    loop that stay as they are.
    """

    _current = threading.local()

    def __init__(self, variables, values):
        pairs = list(zip(variables, values, strict=True))
        self.variables = variables
        self._scope = keras.StatelessScope(pairs)

    @classmethod
    def current(cls):
        """The innermost ones, or `None` outside of `compile`."""
        return getattr(cls._current, "held", None)

    @classmethod
    @contextlib.contextmanager
    def hidden(cls):
        """As outside of `compile`."""
        held, cls._current.held = cls.current(), None
        try:
            yield
        finally:
            cls._current.held = held

    def __enter__(self):
        self._outer, self._current.held = self.current(), self
        self._scope.__enter__()
        return self

    def __exit__(self, *exception):
        self._current.held = self._outer
        self._scope.__exit__(*exception)

    def values(self):
        """The current values."""
        return [self._scope.get_current_value(each) for each in self.variables]

    def assign(self, values):
        """Sets the values of those that have changed."""
        for variable, old, new in zip(
            self.variables, self.values(), values, strict=True
        ):
            if new is not old:
                variable.assign(new)

    def carrying(self, body):
        """The body of a loop, as a function that carries the values."""

        def carrying_body(values, *arguments):
            with _Variables(self.variables, values) as held:
                result = body(*arguments)
                return held.values(), result

        return carrying_body


def fori_loop(lower: int, upper: int, body: Callable, carry):
    """A counted loop, whose body may change variables of `compile`."""
    held = _Variables.current()
    if held is None:
        return jax.lax.fori_loop(lower, upper, body, carry)
    carrying = held.carrying(body)
    values, carry = jax.lax.fori_loop(
        lower,
        upper,
        lambda index, both: carrying(both[0], index, both[1]),
        (held.values(), carry),
    )
    held.assign(values)
    return carry


def while_loop(condition: Callable, body: Callable, carry: tuple) -> tuple:
    """A loop on a condition, whose body may change variables of `compile`."""
    held = _Variables.current()
    if held is None:
        return ops.while_loop(condition, body, carry)
    carrying = held.carrying(body)
    values, carry = jax.lax.while_loop(
        lambda both: condition(*both[1]),
        lambda both: carrying(both[0], *both[1]),
        (held.values(), tuple(carry)),
    )
    held.assign(values)
    return carry


def cond(predicate, true_fn: Callable, false_fn: Callable):
    """A choice between functions that change no variable."""
    # Without this, loops in a branch would assign what they carried beyond it.
    with _Variables.hidden():
        return ops.cond(predicate, true_fn, false_fn)


def frozen(variable):
    """The value of a variable, for passes that are never differentiated."""
    return variable.value


def synchronise(model) -> None:
    """Makes variables readable and writable in the midst of `fit`."""
    # Between the steps of an epoch Keras holds the values elsewhere.
    model.jax_state_sync()


def is_chief() -> bool:
    """Whether this process writes for all that train together."""
    return jax.process_index() == 0


def num_replicas() -> int:
    """1: `keras.distribution` sees one batch and one set of weights."""
    return 1


def replica_id():
    """0: `keras.distribution` sees one batch, whatever the devices."""
    return 0


def pass_over(trainer, batches: int, logs: dict) -> None:
    """Makes `fit` pass over the next batches, without a step."""
    together = trainer.steps_per_execution

    def answer(state, iterator):
        for _ in range(together):
            next(iterator)
        return logs, state

    common.pass_over(trainer, batches // together, answer)


random_state = common.no_random_state
set_random_state = common.set_no_random_state


def be_deterministic() -> None:
    """Takes only kernels that give the same numbers bit by bit.

    XLA reads it when it first computes: call it before.
    """
    flag = "--xla_gpu_deterministic_ops=true"
    known = os.environ.get("XLA_FLAGS", "")
    if flag not in known.split():
        os.environ["XLA_FLAGS"] = f"{known} {flag}".strip()


def peak_memory() -> int | None:
    """Most bytes that the device has held so far; `None` on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else None


def step_memory(trainer, data) -> tuple[int, int] | None:
    """Bytes of a training step by XLA's own analysis, which compiles it."""
    trainer.jax_state_sync()
    state = trainer._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    step = jax.jit(trainer.train_step, donate_argnums=0)
    found = step.lower(state, data).compile().memory_analysis()
    if found is None:
        return None
    kept = found.argument_size_in_bytes
    made = found.output_size_in_bytes - found.alias_size_in_bytes
    return kept, made + found.temp_size_in_bytes


def flops(function: Callable, images) -> int:
    """Floating-point operations, as XLA counts them."""
    analysis = jax.jit(function).lower(images).cost_analysis()
    if analysis is None:
        raise ValueError("this version of XLA does not count operations")
    return int(analysis["flops"])
