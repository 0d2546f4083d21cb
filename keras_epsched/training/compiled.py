"""A function that is computed with a trainer beside its steps."""

from collections.abc import Callable

from keras_epsched import backend
from keras_epsched.identity import identify, identify_model


class CompiledFunction:
    """A function that reads a trainer, compiled where it was not yet.

    It is compiled again when the trainer has other variables, layers or
    public attributes, as another attack, and not when `fit` is called again.
    """

    def __init__(self):
        self._key = self._run = None

    def of(self, trainer, function: Callable, *parts) -> Callable:
        """Returns the compiled function.

        Args:
            trainer: `AdversarialTrainer`.
            function: Function of tensors, the same at each call.
            *parts: What else it depends on.
        """
        jit_compile = bool(getattr(trainer, "jit_compile", False))
        key = identify_model(trainer), jit_compile, identify(parts)
        if key != self._key:
            self._run = backend.compile(
                function, jit_compile, trainer.variables
            )
            self._key = key
        return self._run
