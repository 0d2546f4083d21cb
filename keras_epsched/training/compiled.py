"""A function that is computed with a trainer beside its steps."""

from collections.abc import Callable

import keras

from keras_epsched import backend
from keras_epsched.identity import identify, identify_model


class CompiledFunction:
    """A function that reads a trainer, compiled where it was not yet.

    It is compiled again when the trainer has other variables, layers or
    public attributes, as another attack, and not when `fit` is called again.
    """

    def __init__(self):
        self._key = self._run = None

    def of(
        self,
        trainer,
        function: Callable,
        *parts,
        reads: keras.Model | None = None,
        batch_size: int | None = None,
    ) -> Callable:
        """Returns the compiled function.

        Args:
            trainer: `AdversarialTrainer`.
            function: Function of tensors, the same at each call.
            *parts: What else it depends on.
            reads: The part of the trainer that it reads, by default all:
                metrics and optimizer, which `fit` builds, then do not count.
            batch_size: See `backend.compile`.
        """
        reads = trainer if reads is None else reads
        jit_compile = backend.resolve_jit_compile(
            bool(getattr(trainer, "jit_compile", False)), trainer
        )
        # Elsewhere one function takes batches of any size.
        size = batch_size if jit_compile else None
        key = identify_model(reads), jit_compile, size, identify(parts)
        if key != self._key:
            self._run = backend.compile(
                function, jit_compile, reads.variables, batch_size
            )
            self._key = key
        return self._run
