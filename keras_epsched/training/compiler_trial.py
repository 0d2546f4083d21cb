"""Which compiler is faster, measured on the steps of a training."""

import time

import keras

# The steps of each compiler that are timed.
_TIMED = 3
# A trial takes about this many times as long as the first step, which compiles.
_COST = 3.0
# That must be less than this share of what is left of the training.
_SHARE = 0.02
# A compiler that is faster by less than this share is not worth a change.
_GAIN = 0.03


class CompilerTrial(keras.callbacks.Callback):
    """Times XLA and TensorFlow's graph in a long training; keeps the faster.

    `jit_compile="auto"` begins with the compiler that is usually faster for
    such a network. As soon as epsilon is above 0, this times a few steps of
    the training with it, and then a few with the other. It does so only if
    that costs about 2 % of the remaining time at most. No step is computed
    twice, and results differ by rounding.

    A resumed training goes on with the compiler that was chosen.
    """

    def __init__(self):
        super().__init__()
        self._decided, self._chosen = False, None
        # Seconds of the timed steps of each compiler.
        self._seconds = {}
        self._compiling = None
        self._first = self._started = None
        self._epoch = 0

    def get_state(self) -> dict:
        """Returns the compiler that a trial has chosen, or `None`."""
        return {"jit_compile": self._chosen}

    def set_state(self, state: dict) -> None:
        """Takes the compiler that was chosen before."""
        self._chosen = state["jit_compile"]
        if self._chosen is not None and not self._decided:
            self._decided = True
            self._use(self._chosen)

    def on_train_begin(self, logs=None):
        closed = not self.model.compiler_is_open or self.model.run_eagerly
        if closed or self.params.get("steps") is None:
            self._decided = True
        elif self.params.get("verbose") and self.model.jit_compile:
            print(
                "Compiler: XLA, as it is faster for networks of this kind. "
                "`jit_compile` in `compile` says otherwise.",
                flush=True,
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if self._decided:
            return
        seconds = time.perf_counter() - self._started
        if self._compiling is None:
            self._compiling = seconds
            return
        if self.model.epsilon == 0:
            # Without an attack a step is another one.
            return
        current = bool(self.model.jit_compile)
        if current not in self._seconds:
            # The first step with an attack, or the one that compiles.
            self._seconds[current] = []
            return
        timed = self._seconds[current]
        timed.append(seconds)
        if len(timed) < _TIMED:
            return
        if len(self._seconds) == 2:
            self._decide()
        elif self._pays(min(timed), batch):
            self._first = self.model.train_function
            self._use(not current)
        else:
            self._decided = True

    def _pays(self, seconds, batch):
        """Whether the trial is short against what is left."""
        epochs, steps = self.params["epochs"], self.params["steps"]
        left = (epochs - self._epoch) * steps - batch
        left /= self.model.steps_per_execution
        return _SHARE * left * seconds > _COST * self._compiling

    def _decide(self):
        trainer = self.model
        second = bool(trainer.jit_compile)
        seconds = {key: min(timed) for key, timed in self._seconds.items()}
        chosen = second
        if seconds[second] > (1 - _GAIN) * seconds[not second]:
            chosen = not second
            trainer.train_function = self._first
        trainer.settle_compiler(chosen)
        self._first = None
        self._decided, self._chosen = True, chosen
        # It is compiled as the training is.
        trainer.test_function = None
        if self.params.get("verbose"):
            name = "XLA" if chosen else "TensorFlow's graph"
            print(
                f"\nCompiler: {name}. A step takes {seconds[True]:.3g} s "
                f"with XLA and {seconds[False]:.3g} s without.",
                flush=True,
            )

    def _use(self, jit_compile):
        """Compiles the following steps with or without XLA."""
        if jit_compile != self.model.jit_compile:
            self.model.jit_compile = jit_compile
            self.model.make_train_function(force=True)
            self.model.test_function = None
