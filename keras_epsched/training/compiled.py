"""Compiles functions that read a trainer, outside its training step."""

from collections.abc import Callable

import keras

from keras_epsched import backend
from keras_epsched.identity import identify, identify_model


class CompiledFunction:
    """A function that reads a trainer, compiled only when needed.

    It is compiled again if the trainer has new variables, layers or public
    attributes (such as another attack), but not for each call of `fit`.
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
            *parts: Other objects that the function depends on.
            reads: The part of the trainer that the function reads. Defaults
                to the whole trainer. With a part, metrics and optimizer, which
                `fit` builds, cause no new compilation.
            batch_size: See `backend.compile`.
        """
        reads = trainer if reads is None else reads
        jit_compile = backend.resolve_jit_compile(
            bool(getattr(trainer, "jit_compile", False)), trainer
        )
        # Without it one function takes batches of any size.
        size = batch_size if jit_compile else None
        key = identify_model(reads), jit_compile, size, identify(parts)
        if key != self._key:
            self._run = backend.compile(
                function, jit_compile, reads.variables, batch_size
            )
            self._key = key
        return self._run
