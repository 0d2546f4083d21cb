r"""Measures the overhead of a second call of `evaluate`.

The first call on a classifier compiles its attacks, and later calls use the
compiled functions. The arguments of the compiled functions in a later call are
recorded, and the functions are called again with them, right after the call.
Their time is the bare work; the rest of the call is overhead. Weights are
random, and the labels are the predictions of the network, so that all images
are attacked. Ratios are medians over rounds, in one process.

The exit status is 1 if a later call compiles something, or takes more than 1.05
times its bare work.

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
flags.DEFINE_integer("images", 256, "Number of images.", lower_bound=1)
flags.DEFINE_integer("steps", 10, "Steps of APGD.", lower_bound=1)
flags.DEFINE_integer("points", 8, "Number of epsilons above 0.", lower_bound=1)
flags.DEFINE_float("epsilon", 1 / 255, "The largest epsilon.")
flags.DEFINE_bool("self_check", True, "Whether to run the self-checks.")
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
    print(
        f"  later calls  {np.median(calls):.2f} s, {again} functions compiled"
    )
    print(
        f"  bare work    {np.median(work):.2f} s, {len(recorder.calls)} calls"
    )
    print(f"  a later call takes {ratio:.3f} times its bare work")
    if again:
        print(f"MISSED: later calls compile {again} functions, instead of none")
    if ratio > _MOST:
        print(
            f"MISSED: a later call takes {ratio:.3f} times its bare work, more "
            f"than {_MOST}"
        )
    sys.exit(bool(again or ratio > _MOST))


if __name__ == "__main__":
    app.run(main)
