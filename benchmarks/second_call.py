r"""What a second call of `evaluate` takes beyond the attacks that it runs.

The first call on a classifier compiles its attacks, all others run what was
compiled. Whatever the compiled functions are called with in a later call is
kept, and they are called again by themselves, right after it: their time is
the bare work, and the rest of a call is ours. Weights are random, and labels
are what the network predicts, so that all images are attacked. Ratios are
medians over rounds, in one process. Exit status 1: a later call compiles
something, or takes more than 1.05 of its bare work.

Examples:
  python benchmarks/second_call.py
  python benchmarks/second_call.py --backend=jax --network=mobilenet
"""

import os
import sys
import time
from unittest import mock

import networks
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("backend", "tensorflow", "Backend of Keras.")
flags.DEFINE_enum("network", "small", sorted(networks.SIZES), "Network.")
flags.DEFINE_integer("images", 256, "Images.", lower_bound=1)
flags.DEFINE_integer("steps", 10, "Steps of APGD.", lower_bound=1)
flags.DEFINE_integer("points", 8, "Epsilons above 0.", lower_bound=1)
flags.DEFINE_float("epsilon", 1 / 255, "The end of the grid.")
flags.DEFINE_bool("self_check", True, "With the self-checks.")
flags.DEFINE_integer("rounds", 5, "Rounds of timing.", lower_bound=1)

_MOST = 1.05


class Recorder:
    """Compiles functions, and remembers their calls.

    Args:
        compile: `backend.compile`.
    """

    def __init__(self, compile):
        self._compile = compile
        self.compiled = 0
        self.calls = []

    def __call__(self, *args, **kwargs):
        self.compiled += 1
        function = self._compile(*args, **kwargs)

        def recorded(*arrays):
            self.calls.append((function, arrays))
            return function(*arrays)

        return recorded

    def replay(self) -> None:
        """Repeats the calls."""
        for function, arrays in self.calls:
            function(*arrays)


def timed(function) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main(_):
    """Prints what one call takes, and of what."""
    os.environ["KERAS_BACKEND"] = FLAGS.backend
    import keras

    import keras_epsched as ke
    from keras_epsched import backend

    keras.utils.set_random_seed(0)
    size, batch_size = networks.SIZES[FLAGS.network]
    network = networks.make(FLAGS.network, size)
    images = np.random.default_rng(0).uniform(
        0, 255, (FLAGS.images, size, size, 3)
    )
    images = images.astype("float32")
    labels = network.predict(images, batch_size, verbose=0).argmax(axis=-1)

    def evaluate():
        ke.evaluate(
            network,
            (images, labels),
            FLAGS.epsilon * np.arange(1, FLAGS.points + 1) / FLAGS.points,
            ke.attacks.APGD(FLAGS.steps),
            batch_size=batch_size,
            self_check=FLAGS.self_check,
            verbose=0,
        )

    recorder = Recorder(backend.compile)
    with mock.patch.object(backend, "compile", recorder):
        first = timed(evaluate)
        compiled = recorder.compiled
        calls, work = [], []
        for _ in range(FLAGS.rounds):
            recorder.calls.clear()
            calls.append(timed(evaluate))
            work.append(timed(recorder.replay))
    again = recorder.compiled - compiled
    ratio = float(np.median(np.divide(calls, work)))
    print(
        f"{FLAGS.backend}, {FLAGS.network}, {FLAGS.images} images, "
        f"{FLAGS.points} epsilons, APGD of {FLAGS.steps} steps:"
    )
    print(f"  first call   {first:.2f} s, {compiled} functions compiled")
    print(f"  later calls  {np.median(calls):.2f} s, {again} compiled")
    print(
        f"  bare work    {np.median(work):.2f} s, {len(recorder.calls)} calls"
    )
    print(f"  a later call takes {ratio:.3f} of its bare work")
    if again:
        print(f"MISSED: later calls compile {again} functions")
    if ratio > _MOST:
        print(f"MISSED: {ratio:.3f} is more than {_MOST}")
    sys.exit(bool(again or ratio > _MOST))


if __name__ == "__main__":
    app.run(main)
