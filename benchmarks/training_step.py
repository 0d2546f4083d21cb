r"""What one training step costs, against its parts, all from one run.

A PGD-K step needs K input gradients and one plain step, K t_g + t_p; at
epsilon 0 it needs one plain step. The table shows how close ours comes, and,
for contrast, an attack that runs eagerly and one that computes the gradients
of the weights too. Variants are timed in turn, round after round, so that a
machine whose speed drifts slows all of them; ratios are taken within a round,
and their median is compared with the bound. Exit status 1: a bound is missed.

Examples:
  python benchmarks/training_step.py
  python benchmarks/training_step.py --network=small --steps=7 --rounds=50
"""

import itertools
import sys
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", "all", ["small", "mobilenet", "all"], "Network.")
flags.DEFINE_list("steps", ["1", "3", "7"], "Values of K.")
flags.DEFINE_integer("rounds", 25, "Rounds of timing.")
flags.DEFINE_integer("batch_size", 64, "Images in a batch.")
flags.DEFINE_bool("contrast", True, "Also time the two wasteful attacks.")

_BOUND, _BOUND_AT_ZERO = 1.10, 1.05
_EPSILON = 8 / 255


def small_network(calls):
    """Four convolutions at 32 px."""
    import keras

    class Network(keras.Sequential):
        def call(self, inputs, training=None):
            calls.append(1)
            return super().call(inputs, training=training)

    layers = [keras.layers.Rescaling(1 / 127.5, -1.0)]
    for width, strides in ((32, 1), (64, 2), (64, 1), (128, 2)):
        layers += [
            keras.layers.Conv2D(width, 3, strides, "same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    network = Network(layers)
    network.build((None, 32, 32, 3))
    return network, (32, 32, 3)


def mobilenet(calls):
    """MobileNet 0.75 at 96 px, random weights: the cost is the same."""
    import keras

    import keras_epsched as ke

    del calls
    shape = (96, 96, 3)
    backbone = keras.applications.MobileNet(
        alpha=0.75, include_top=False, input_shape=shape, weights=None
    )
    return ke.models.classifier(backbone, 10, scale=1 / 127.5, offset=-1), shape


def compiled(model):
    """Compiles a model for training, with a plain optimizer."""
    import keras

    model.compile(
        optimizer=keras.optimizers.SGD(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def one_step(model, batch):
    """A function that runs one step of the model's own train function."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors(batch).repeat().prefetch(4)
    iterator = iter(dataset)
    model.make_train_function()
    return lambda: float(model.train_function(iterator)["loss"])


def input_gradient(network):
    """A bare compiled input gradient."""
    import keras
    import tensorflow as tf

    @tf.function
    def gradient(images, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = tf.reduce_sum(
                keras.losses.sparse_categorical_crossentropy(
                    labels, network(images, training=False), from_logits=True
                )
            )
        return tape.gradient(loss, images)

    return gradient


def wasteful_step(network, plain, steps, batch, kind):
    """PGD that is eager, or that computes weight gradients, then a step."""
    import keras
    import tensorflow as tf

    images, labels = batch
    radius = _EPSILON * 255
    weights = network.trainable_variables

    def attack(images, labels):
        moved, unused = images, 0.0
        for _ in range(steps):
            with tf.GradientTape(persistent=False) as tape:
                tape.watch(moved)
                loss = tf.reduce_sum(
                    keras.losses.sparse_categorical_crossentropy(
                        labels, network(moved, training=False), from_logits=True
                    )
                )
            watched = [moved, *weights] if kind == "weights" else [moved]
            gradient, *others = tape.gradient(loss, watched)
            # Consumed, or the graph would prune them.
            unused += sum(tf.reduce_sum(other) for other in others)
            moved = moved + 2.5 / steps * radius * tf.sign(gradient)
            moved = tf.clip_by_value(moved, images - radius, images + radius)
            moved = tf.clip_by_value(moved, 0.0, 255.0)
        return moved, unused

    run = attack if kind == "eager" else tf.function(attack)

    def step():
        moved, unused = run(images, labels)
        np.asarray(moved)
        float(unused)
        plain()

    return step


def measure(variants):
    """Seconds of each variant, a row a round, in turn."""
    for run in variants.values():
        for _ in range(3):
            run()
    rounds = []
    for _ in range(FLAGS.rounds):
        row = {}
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            row[name] = time.perf_counter() - started
        rounds.append(row)
    return {name: np.array([row[name] for row in rounds]) for name in variants}


def benchmark(name, make):
    """Times one network; returns the rows of the table and all bounds met."""
    import keras
    import tensorflow as tf

    import keras_epsched as ke

    calls = []
    network, shape = make(calls)
    rng = np.random.default_rng(0)
    size = FLAGS.batch_size
    batch = (
        tf.constant(rng.uniform(0, 255, (size, *shape)), "float32"),
        tf.constant(rng.integers(0, 10, size), "int64"),
    )
    plain = one_step(compiled(keras.Sequential([network])), batch)
    gradient = input_gradient(network)
    variants = {
        "t_p": plain,
        "t_g": lambda: np.asarray(gradient(*batch)),
    }
    counts = [int(step) for step in FLAGS.steps]
    for steps in counts:
        trainer = compiled(
            ke.AdversarialTrainer(
                network, attack=ke.attacks.PGD(steps), epsilon=_EPSILON
            )
        )
        variants[f"ours {steps}"] = one_step(trainer, batch)
    idle = compiled(ke.AdversarialTrainer(network, epsilon=0.0))
    variants["ours at 0"] = one_step(idle, batch)
    if FLAGS.contrast:
        for kind, steps in itertools.product(("eager", "weights"), counts):
            variants[f"{kind} {steps}"] = wasteful_step(
                network, plain, steps, batch, kind
            )
    seconds = measure(variants)
    rows, met = [], True
    for variant, each in seconds.items():
        *kind, steps = variant.split()
        if not kind:
            rows.append((name, variant, f"{np.median(each) * 1e3:.0f}", "", ""))
            continue
        cost = seconds["t_p"] + int(steps) * seconds["t_g"]
        ratio = np.median(each / cost)
        bound = _BOUND if int(steps) else _BOUND_AT_ZERO
        if kind[0] == "ours":
            met &= ratio <= bound
        rows.append(
            (
                name,
                variant,
                f"{np.median(each) * 1e3:.0f}",
                f"{ratio:.3f}",
                f"{bound:.2f}",
            )
        )
    traced = len(calls)
    if traced:
        trainer.fit(
            *(each.numpy() for each in batch),
            batch_size=size,
            epochs=6,
            callbacks=[
                ke.callbacks.EpsilonScheduler(ke.schedules.TwoHinge(_EPSILON))
            ],
            verbose=0,
        )
        first = len(calls)
        trainer.fit(
            *(each.numpy() for each in batch),
            batch_size=size,
            epochs=12,
            initial_epoch=6,
            callbacks=[
                ke.callbacks.EpsilonScheduler(ke.schedules.TwoHinge(_EPSILON))
            ],
            verbose=0,
        )
        print(
            f"{name}: {first - traced} traces of the network in the first 6 "
            f"epochs of a schedule, {len(calls) - first} in a second fit"
        )
    return rows, met


def main(_):
    from tabulate import tabulate

    networks = {"small": small_network, "mobilenet": mobilenet}
    rows, met = [], True
    for name, make in networks.items():
        if FLAGS.network in (name, "all"):
            more, within = benchmark(name, make)
            rows += more
            met &= within
    headers = ("network", "step", "median ms", "ratio", "bound")
    print(tabulate(rows, headers, disable_numparse=True))
    if not met:
        print("a bound is missed")
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
