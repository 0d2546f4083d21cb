r"""Measures how time and memory grow with the size of the work.

A training step is measured with different numbers of PGD steps, of images in a
batch and of pixels in an image. A nested sweep is measured with different
numbers of epsilons and of images. Growth is the slope of a straight line on
logarithmic scales: 1 means proportional, 0 means constant.

Each measurement has its own process, to get its peak memory: the largest
resident set on a CPU, and the number that the backend reports on a GPU. The
memory of the process before the first step is subtracted.

The goals: time is at most proportional to steps, batch, pixels and images; it
grows less than proportionally with the number of epsilons; and memory does not
grow with steps, epsilons or images. The exit status is 1 if a goal is missed.

Examples:
  python benchmarks/scaling.py
  python benchmarks/scaling.py --backend=jax --network=vit_tiny --axes=steps
"""

import resource
import sys

import networks
import numpy as np
import workers
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("backend", "tensorflow", "Backend of Keras.")
flags.DEFINE_enum("network", "small", sorted(networks.SIZES), "Network.")
flags.DEFINE_integer("rounds", 5, "Calls for each measurement.", lower_bound=1)

_EPSILON = 8 / 255
# Values of what is varied, and the limits of the slopes of time and memory.
_AXES = {
    "steps": ([1, 2, 4, 8, 16], 1.05, 0.1),
    "batch": ([16, 32, 64, 128], 1.1, 1.1),
    "pixels": ([32, 48, 64, 96], 1.1, 1.1),
    "epsilons": ([2, 4, 8, 16, 32], 0.8, 0.1),
    "images": ([256, 512, 1024, 2048], 1.05, 0.3),
}
flags.DEFINE_multi_enum(
    "axes", list(_AXES), list(_AXES), "What to vary. Repeat the flag for more."
)


def peak():
    """Bytes at the peak of this process so far."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        found = jax.local_devices()[0].memory_stats()
        if found:
            return found["peak_bytes_in_use"]
    elif backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    else:
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def make(axis, value):
    """One point: a step or a sweep, and the memory before it."""
    import keras

    import keras_epsched as ke

    image_size = value if axis == "pixels" else networks.SIZES[FLAGS.network][0]
    keras.utils.set_random_seed(0)
    network = networks.make(FLAGS.network, image_size)
    count = value if axis in ("batch", "images") else 32
    if axis == "epsilons":
        count = 256
    rng = np.random.default_rng(0)
    shape = (count, image_size, image_size, 3)
    images = rng.uniform(0, 255, shape).astype("float32")
    # Answered rightly, so that the sweep has something to do.
    labels = network.predict(images, batch_size=32, verbose=0).argmax(-1)
    before = peak()
    if axis in ("epsilons", "images"):
        grid = _EPSILON * np.arange(1, value + 1) / value
        if axis == "images":
            grid = [_EPSILON]

        def sweep(count):
            ke.evaluate(
                network,
                (images[:count], labels[:count]),
                grid,
                ke.attacks.PGD(10),
                # The time is to grow with the number of epsilons.
                bisect=False,
                batch_size=32,
                self_check=False,
                verbose=0,
            )

        variants = {
            "run": lambda: sweep(count),
            # Compiling, which does not grow.
            "constant": lambda: sweep(32),
        }
    else:
        attack = ke.attacks.PGD(value if axis == "steps" else 3)
        trainer = ke.AdversarialTrainer(network, attack, epsilon=_EPSILON)
        trainer.compile(
            optimizer=keras.optimizers.SGD(1e-4),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

        variants = {"run": lambda: trainer.train_on_batch(images, labels)}
    return variants | {"memory": lambda: peak() - before}, {}


def main(_):
    from tabulate import tabulate

    missed = []
    headers = ("what grows", "over", "of", "measured", "slope")
    for axis in FLAGS.axes:
        values, *limits = _AXES[axis]
        rows, seconds, memory = [], [], []
        for value in values:
            worker = workers.Worker(make, axis, value, backend=FLAGS.backend)
            names = [each for each in worker.names if each != "memory"]
            taken, _ = workers.measure(
                [(worker, each) for each in names], FLAGS.rounds
            )
            # Of a sweep, what the first batch takes with its compiling is
            # left out.
            seconds.append(np.median(taken[0] - sum(taken[1:])))
            # Less than this is noise.
            memory.append(max(worker.time("memory")[1], 2**23))
            worker.close()
        sizes = np.log(np.square(values) if axis == "pixels" else values)
        for what, unit, found, limit in (
            ("time", "{:.3f} s", seconds, limits[0]),
            ("memory", "{:.0f} MiB", np.divide(memory, 2**20), limits[1]),
        ):
            slope = np.polyfit(sizes, np.log(found), 1)[0]
            if slope > limit:
                missed.append(f"{what} against {axis}: {slope:.2f} > {limit}")
            rows.append(
                (
                    axis,
                    f"{values[0]} to {values[-1]}",
                    what,
                    f"{unit.format(found[0])} to {unit.format(found[-1])}",
                    f"{slope:.2f} <= {limit}",
                )
            )
        print(tabulate(rows, headers, disable_numparse=True), flush=True)
    for each in missed:
        print(f"MISSED: {each}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    app.run(main)
