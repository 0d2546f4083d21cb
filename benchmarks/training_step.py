r"""What one training step costs, against its parts, all from one run.

A PGD-K step needs K input gradients and one plain step, K t_g + t_p; at
epsilon 0 it needs one plain step. The table shows how close ours comes, and,
for contrast, an attack that runs eagerly and one that computes the gradients
of the weights too: both must exceed the bound, or it would tell nothing.

Variants are timed in turn, round after round, so that a machine whose speed
drifts slows all of them; ratios are taken within a round, against the mean of
the parts before and after, and their median is compared with the bound. All
compiled variants use XLA where Keras does. Exit status 1: a bound is missed,
or a schedule traces the network more often than a constant epsilon.

Examples:
  python benchmarks/training_step.py
  python benchmarks/training_step.py --network=small --steps=7 --rounds=50
  python benchmarks/training_step.py --network=mobilenet --image_size=128 \
      --weights=FOLDER/mobilenet_7_5_224_no_top.weights.h5
"""

import itertools
import sys
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", "all", ["small", "mobilenet", "all"], "Network.")
flags.DEFINE_list("steps", ["1", "3", "7"], "Values of K.")
flags.DEFINE_enum(
    "attack_mode",
    "training",
    ["inference", "training"],
    "Mode of the network under attack, in all variants.",
)
flags.DEFINE_integer("rounds", 25, "Rounds of timing.", lower_bound=15)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer(
    "image_size", None, "Height and width; default: 32 (small), 96 (mobilenet)."
)
flags.DEFINE_string("weights", None, "MobileNet weights; default: random.")
flags.DEFINE_bool("contrast", True, "Also time the two wasteful attacks.")

_BOUND, _BOUND_AT_ZERO = 1.10, 1.05
_EPSILON = 8 / 255
_CLASSES = 10


def small_network():
    """Four convolutions, at 32 px."""
    import keras

    size = FLAGS.image_size or 32
    layers = [
        keras.Input((size, size, 3)),
        keras.layers.Rescaling(1 / 127.5, -1.0),
    ]
    for width, strides in ((32, 1), (64, 2), (64, 1), (128, 2)):
        layers += [
            keras.layers.Conv2D(width, 3, strides, "same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    layers += [
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(_CLASSES),
    ]
    return keras.Sequential(layers)


def mobilenet():
    """MobileNet 0.75, at 96 px."""
    import keras

    import keras_epsched as ke

    size = FLAGS.image_size or 96
    backbone = keras.applications.MobileNet(
        alpha=0.75,
        include_top=False,
        input_shape=(size, size, 3),
        weights=FLAGS.weights,
    )
    return ke.models.classifier(
        backbone, _CLASSES, scale=1 / 127.5, offset=-1.0
    )


def counted(network):
    """The network in a model that counts its traces, and their list."""
    import keras
    import tensorflow as tf

    traces = []

    class Counted(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = network

        def call(self, images, training=None):
            if tf.inside_function():
                traces.append(1)
            return self.network(images, training=training)

    model = Counted()
    model.build(network.input_shape)
    return model, traces


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

    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat().prefetch(4))
    model.make_train_function()
    return lambda: float(model.train_function(iterator)["loss"])


def cross_entropy(network, images, labels):
    """Sum of the cross-entropy of a batch; no variable is updated."""
    import keras

    variables = [(each, each.value) for each in network.variables]
    with keras.StatelessScope(variables):
        logits = network(images, training=FLAGS.attack_mode == "training")
    return keras.ops.sum(
        keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
    )


def input_gradient(network, batch, jit_compile):
    """A function that runs one bare compiled input gradient."""
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile)
    def gradient(images, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = cross_entropy(network, images, labels)
        return tape.gradient(loss, images)

    def run():
        gradient(*batch)
        # Waits, without fetching the images: no attack would do that.
        tf.test.experimental.sync_devices()

    return run


def wasteful_step(network, plain, steps, batch, kind, jit_compile):
    """PGD that is eager, or that computes weight gradients, then a step."""
    import tensorflow as tf

    images, labels = batch
    radius = _EPSILON * 255
    weights = []
    if kind == "weights":
        weights = [each.value for each in network.trainable_variables]

    def attack(images, labels):
        moved, consumed = images, tf.constant(0.0)
        for _ in range(steps):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([moved, *weights])
                loss = cross_entropy(network, moved, labels)
            gradient, *others = tape.gradient(loss, [moved, *weights])
            # Consumed, or the graph would prune them.
            consumed += sum(tf.reduce_sum(other) for other in others)
            moved = moved + 2.5 / steps * radius * tf.sign(gradient)
            moved = tf.clip_by_value(moved, images - radius, images + radius)
            moved = tf.clip_by_value(moved, 0.0, 255.0)
        return moved, consumed

    if kind == "weights":
        attack = tf.function(attack, jit_compile=jit_compile)

    def step():
        attack(images, labels)
        tf.test.experimental.sync_devices()
        plain()

    return step


def measure(variants):
    """Seconds of each variant, a row a round, in turn."""
    for run in variants.values():
        for _ in range(3):
            run()
    rows = []
    for _ in range(FLAGS.rounds):
        rows.append([])
        for run in variants.values():
            started = time.perf_counter()
            run()
            rows[-1].append(time.perf_counter() - started)
    return dict(zip(variants, np.transpose(rows), strict=True))


def traces_of_a_schedule(network, batch):
    """Traces of a training at constant epsilon, and over a schedule."""
    import keras_epsched as ke

    found = []
    for schedule in (
        ke.schedules.Constant(_EPSILON),
        ke.schedules.TwoHinge(_EPSILON),
    ):
        model, traces = counted(network)
        trainer = compiled(
            ke.AdversarialTrainer(model, attack=ke.attacks.PGD(1))
        )
        trainer.fit(
            *(each.numpy() for each in batch),
            batch_size=FLAGS.batch_size,
            epochs=8,
            callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
            verbose=0,
        )
        found.append(len(traces))
    return found


def make_variants(network, batch):
    """The steps to time, by name; a name ends in its K, but for the parts."""
    import keras

    import keras_epsched as ke

    plain_model = compiled(keras.Sequential([network]))
    plain = one_step(plain_model, batch)
    jit_compile = plain_model.jit_compile
    gradient = input_gradient(network, batch, jit_compile)
    counts = [int(steps) for steps in FLAGS.steps]
    idle = ke.AdversarialTrainer(network, epsilon=0.0)
    variants = {"t_p": plain, "t_g": gradient}
    variants["ours 0"] = one_step(compiled(idle), batch)
    for steps in counts:
        attack = ke.attacks.PGD(steps)
        trainer = ke.AdversarialTrainer(
            network,
            attack,
            epsilon=_EPSILON,
            attack_mode=FLAGS.attack_mode,
        )
        variants[f"ours {steps}"] = one_step(compiled(trainer), batch)
    # The parts once more, on the other side of what is compared with them.
    variants |= {"t_p again": plain, "t_g again": gradient}
    if FLAGS.contrast:
        for kind, steps in itertools.product(("eager", "weights"), counts):
            variants[f"{kind} {steps}"] = wasteful_step(
                network, plain, steps, batch, kind, jit_compile
            )
    return variants


def benchmark(name, make):
    """Times one network; returns the rows of the table, and complaints."""
    import tensorflow as tf

    network = make()
    rng = np.random.default_rng(0)
    shape = (FLAGS.batch_size, *network.input_shape[1:])
    batch = (
        tf.constant(rng.uniform(0, 255, shape), "float32"),
        tf.constant(rng.integers(0, _CLASSES, FLAGS.batch_size), "int64"),
    )
    seconds = measure(make_variants(network, batch))
    parts = {
        part: (seconds.pop(part) + seconds.pop(f"{part} again")) / 2
        for part in ("t_p", "t_g")
    }
    rows, complaints = [], []
    for part, each in parts.items():
        rows.append((name, part, f"{np.median(each) * 1e3:.1f}", "", ""))
    for variant, each in seconds.items():
        kind, steps = variant.split()
        ratios = each / (parts["t_p"] + int(steps) * parts["t_g"])
        ratio = np.median(ratios)
        bound = _BOUND if int(steps) else _BOUND_AT_ZERO
        meets = ratio <= bound if kind == "ours" else ratio > bound
        if not meets:
            complaints.append(
                f"{name}, {variant}: {ratio:.3f} is not "
                f"{'within' if kind == 'ours' else 'beyond'} {bound:.2f}"
            )
        low, high = np.quantile(ratios, (0.25, 0.75))
        rows.append(
            (
                name,
                variant,
                f"{np.median(each) * 1e3:.1f}",
                f"{ratio:.3f} ({low:.3f} to {high:.3f})",
                f"{'<=' if kind == 'ours' else '>'} {bound:.2f}",
            )
        )
    constant, scheduled = traces_of_a_schedule(network, batch)
    print(
        f"{name}: {scheduled} traces of the network over a whole schedule, "
        f"{constant} at constant epsilon"
    )
    if scheduled != constant:
        complaints.append(f"{name}: the schedule retraces")
    return rows, complaints


def main(_):
    from tabulate import tabulate

    networks = {"small": small_network, "mobilenet": mobilenet}
    rows, complaints = [], []
    for name, make in networks.items():
        if FLAGS.network in (name, "all"):
            more, new = benchmark(name, make)
            rows += more
            complaints += new
    headers = ("network", "step and K", "median ms", "ratio (quartiles)", "")
    print(tabulate(rows, headers, disable_numparse=True))
    if complaints:
        print("A bound is missed:", *complaints, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
