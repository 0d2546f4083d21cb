r"""What it takes to compile a training step of the paper's backbones.

Each has its full depth, random weights and a process of its own. The table
tells the seconds to trace a PGD-K step and to compile it by XLA, the time of
all cores in both, which other work does not change, the memory that the
compiler plans for it, and how often the step contains the network:
passes forward, back to the images, and to the weights. K steps of the attack
are one loop, so that any K needs 2 passes forward, 2 back and 1 to the weights.
The pass back to the images also leads to the weights below the head.

Passes are counted by the matrix products of the head, whose shapes occur
nowhere else. The memory is that of arguments and intermediate results, as
JAX's compiler tells it; TensorFlow's does not. Nothing is run.

Examples:
  python benchmarks/compile_step.py
  python benchmarks/compile_step.py --backends=jax --networks=convnext_base
"""

import multiprocessing
import os
import re
import resource
import time

import networks
import workers
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks",
    ["resnet50", "vit_base", "clip_base", "swin_base", "convnext_base"],
    f"Of {sorted(networks.SIZES)}.",
)
flags.DEFINE_list("backends", ["jax", "tensorflow"], "Backends with XLA.")
flags.DEFINE_integer("steps", 7, "Steps of PGD.", lower_bound=1)
flags.DEFINE_integer("batch_size", 2, "Images of a step.", lower_bound=1)
flags.DEFINE_integer("image_size", 224, "Height and width.")
flags.DEFINE_integer("limit", 900, "Seconds after which one is given up.")

# A prime, which no other layer has as its width.
_CLASSES = 97
_HEADERS = (
    "network",
    "backend",
    "trace",
    "compile",
    "all cores",
    "arguments",
    "temporary",
    "process",
    "forward",
    "back",
    "weights",
)


def make_trainer(name, steps, image_size):
    """A trainer with all its state."""
    import keras

    import keras_epsched as ke

    network = networks.make(name, image_size, _CLASSES)
    trainer = ke.AdversarialTrainer(
        network, ke.attacks.PGD(steps), epsilon=4 / 255
    )
    trainer.compile(
        optimizer=keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    trainer.infer_outputs((None, image_size, image_size, 3))
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def compile_on_jax(trainer, batch):
    """Seconds, bytes and the shapes of the matrix products of a step."""
    import jax

    state = [
        [variable.value for variable in variables]
        for variables in (
            trainer.trainable_variables,
            trainer.non_trainable_variables,
            trainer.optimizer.variables,
            trainer.metrics_variables,
        )
    ]
    started = time.perf_counter()
    traced = jax.jit(trainer.train_step, donate_argnums=0).trace(
        tuple(state), batch
    )
    lowered = traced.lower()
    between = time.perf_counter()
    memory = lowered.compile().memory_analysis()
    seconds = between - started, time.perf_counter() - between
    sizes = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    return seconds, sizes, list(_products(traced.jaxpr))


def _products(jaxpr):
    """Shapes of all matrix products; what is called twice counts twice."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.outvars[0].aval.shape
        for value in equation.params.values():
            # The branches of a condition are a tuple.
            for each in value if isinstance(value, tuple) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from _products(inner)


def compile_on_tensorflow(trainer, batch):
    """As `compile_on_jax`."""
    import tensorflow as tf

    step = tf.function(trainer.train_step, jit_compile=True, autograph=False)
    started = time.perf_counter()
    read = step.experimental_get_compiler_ir(batch)
    text = read(stage="hlo")
    between = time.perf_counter()
    read(stage="optimized_hlo")
    seconds = between - started, time.perf_counter() - between
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* dot\(", text)
    shapes = [tuple(map(int, filter(None, x.split(",")))) for x in shapes]
    return seconds, (None, None), shapes


def measure(name, backend, steps, batch_size, image_size):
    """A row of the table."""
    import keras
    import numpy as np

    trainer = make_trainer(name, steps, image_size)
    features = trainer.model.layers[-1].kernel.shape[0]
    batch = (
        keras.ops.zeros((batch_size, image_size, image_size, 3)),
        keras.ops.convert_to_tensor(np.arange(batch_size), "int32"),
    )
    compiled = {"jax": compile_on_jax, "tensorflow": compile_on_tensorflow}
    started = time.process_time()
    seconds, sizes, shapes = compiled[backend](trainer, batch)
    seconds = *seconds, time.process_time() - started
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Of a layer and of a transposed one alike.
    shapes = [tuple(sorted(shape)) for shape in shapes]
    passes = [(batch_size, _CLASSES), (batch_size, features)]
    passes.append((_CLASSES, features))
    return (
        *(f"{each:.1f} s" for each in seconds),
        *("" if x is None else f"{x / 2**30:.2f} GiB" for x in (*sizes, peak)),
        *(shapes.count(tuple(sorted(shape))) for shape in passes),
    )


def main(_):
    from tabulate import tabulate

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    context = multiprocessing.get_context("spawn")
    rows = []
    for backend in workers.installed(FLAGS.backends):
        os.environ["KERAS_BACKEND"] = backend
        for name in FLAGS.networks:
            arguments = name, backend, FLAGS.steps, FLAGS.batch_size
            with context.Pool(1) as pool:
                found = pool.apply_async(
                    measure, (*arguments, FLAGS.image_size)
                )
                try:
                    row = found.get(FLAGS.limit)
                except multiprocessing.TimeoutError:
                    row = ("", f"> {FLAGS.limit} s")
            rows.append((name, backend, *row))
            print(*rows[-1], flush=True)
    print(tabulate(rows, _HEADERS, disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
