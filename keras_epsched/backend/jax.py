"""What Keras does not offer, for JAX; see tensorflow.py for the contracts."""

from collections.abc import Callable, Iterable

import jax
import keras
from keras import ops

from keras_epsched.backend import common

# JAX has no 64 bits by default, and products of 32 bits wrap around.
HASH_DTYPE = "uint32"


class TrainerSteps:
    """The steps of a trainer, as functions from state to state."""

    def train_step(self, state, data):
        """One step: perturb, then the step of `keras.Model`."""
        trainable, others, optimizer, metrics = state
        with self._scope(trainable, others, metrics) as scope:
            data = self.perturb(data)
        # Seeds were drawn, and clean accuracy was measured.
        state = trainable, *self._rest(scope), optimizer
        trainable, others, metrics, optimizer = state
        return super().train_step((trainable, others, optimizer, metrics), data)

    def test_step(self, state, data):
        """One step of validation: clean, and robust if asked for."""
        logs, state = super().test_step(state, data)
        if self.validation_attack is None:
            return logs, state
        with self._scope(*state) as scope:
            self.measure_robustness(data)
            logs = self.get_metrics_result()
        return logs, (state[0], *self._rest(scope))

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


def compile(
    function: Callable,
    jit_compile: bool | str = "auto",
    variables: Iterable = (),
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
        values = [variable.value for variable in variables]
        result, changed = compiled(values, *arguments)
        for place, value in changed.items():
            variables[place].assign(value)
        return result

    return run


class _Variables:
    """Variables of a function that is being traced, with their values."""

    entered = []

    def __init__(self, variables, values):
        pairs = list(zip(variables, values, strict=True))
        self.variables = variables
        self._scope = keras.StatelessScope(pairs)
        # What a network may change in inference: counters, and the state of
        # its random numbers.
        self._carried = [
            place
            for place, variable in enumerate(variables)
            if "int" in keras.backend.standardize_dtype(variable.dtype)
        ]

    def __enter__(self):
        self.entered.append(self)
        self._scope.__enter__()
        return self

    def __exit__(self, *exception):
        self._scope.__exit__(*exception)
        self.entered.pop()

    def values(self):
        """The current values."""
        return [common.current(self._scope, each) for each in self.variables]

    def states(self):
        """The current values that a loop must carry."""
        values = self.values()
        return [values[place] for place in self._carried]

    def keep(self, states):
        """Assigns what a loop has carried to its end."""
        for place, state in zip(self._carried, states, strict=True):
            self.variables[place].assign(state)

    def carrying(self, body):
        """The body of a loop, as a function that carries the states."""
        outside = self.values()

        def carrying_body(states, *arguments):
            inside = list(outside)
            for place, state in zip(self._carried, states, strict=True):
                inside[place] = state
            with _Variables(self.variables, inside) as held:
                result = body(*arguments)
                return held.states(), result

        return carrying_body


def fori_loop(lower: int, upper: int, body: Callable, carry):
    """A counted loop, whose body may draw from the network's own seeds."""
    if not _Variables.entered:
        return jax.lax.fori_loop(lower, upper, body, carry)
    held = _Variables.entered[-1]
    carrying = held.carrying(body)
    states, carry = jax.lax.fori_loop(
        lower,
        upper,
        lambda index, both: carrying(both[0], index, both[1]),
        (held.states(), carry),
    )
    held.keep(states)
    return carry


def while_loop(condition: Callable, body: Callable, carry: tuple) -> tuple:
    """A loop on a condition, whose body may draw from the network's seeds."""
    if not _Variables.entered:
        return ops.while_loop(condition, body, carry)
    held = _Variables.entered[-1]
    carrying = held.carrying(body)
    states, carry = jax.lax.while_loop(
        lambda both: condition(*both[1]),
        lambda both: carrying(both[0], *both[1]),
        (held.states(), tuple(carry)),
    )
    held.keep(states)
    return carry


def frozen(variable):
    """The value of a variable, for passes that are never differentiated."""
    return variable.value


def synchronise(model) -> None:
    """Makes variables readable and writable in the midst of `fit`."""
    # Between the steps of an epoch Keras holds the values elsewhere.
    model.jax_state_sync()


def replica_id():
    """0: `keras.distribution` sees one batch, whatever the devices."""
    return 0
