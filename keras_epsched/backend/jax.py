"""What Keras does not offer, for JAX; see tensorflow.py for the contracts."""

from collections.abc import Callable, Iterable

import jax
import keras

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
        scope = keras.StatelessScope(list(zip(variables, values, strict=True)))
        with scope:
            result = function(*arguments)
        changed = {
            place: scope.get_current_value(variable)
            for place, variable in enumerate(variables)
            if scope.get_current_value(variable) is not values[place]
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
