r"""What a training step costs: against its parts, and against others' loops.

A PGD-K step needs K input gradients and one plain step, K t_g + t_p; at
epsilon 0 it needs one plain step; a scheduled run needs
(z + (1 - z) R) / R of a fixed one, where z is its share of steps at epsilon 0
and R the cost of a PGD-K step in plain ones. The table shows how close ours
comes on each backend of Keras, and the speed of a careful torch loop on the
same network (torch_loop.py), and of ART's adversarial trainer on the very same
Keras model, in units of ours.

Each backend and peer has a process of its own; variants are timed in turn,
round after round, and ratios are medians over rounds (workers.py). Backends
and peers that are not installed are left out, and said to be. On a GPU give
the peak of the card for the share that is reached (model FLOPs utilisation:
(2 K + 3) forward passes of useful work, whatever was computed).

Exit status 1: a bound is missed. Bounds on a CPU are for TensorFlow: XLA, the
only compiler of JAX, uses one core there for what is in a loop or a branch.

Examples:
  python benchmarks/training_step.py
  python benchmarks/training_step.py --networks=small --steps=7 --rounds=30
  python benchmarks/training_step.py --backends=jax,torch --peers=loop \
      --networks=resnet50,vit_base --steps=7 --bf16 --peak_tflops=989 \
      --batch_size=128
"""

import itertools
import sys

import networks
import numpy as np
import workers
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks",
    ["small", "mobilenet", "resnet_stage2", "vit_tiny"],
    f"Of {sorted(networks.SIZES)}.",
)
flags.DEFINE_list(
    "backends", ["tensorflow", "jax", "torch"], "Backends of Keras."
)
flags.DEFINE_list("peers", ["loop", "art_trainer"], "Who else is timed.")
flags.DEFINE_list("steps", ["1", "3", "7", "10"], "Values of K.")
flags.DEFINE_enum(
    "attack_mode",
    "inference",
    ["inference", "training"],
    "Mode of the network under attack, in ours and in the torch loop.",
)
flags.DEFINE_integer("rounds", 9, "Rounds of timing.", lower_bound=3)
flags.DEFINE_integer("batch_size", None, "Default: by the network.")
flags.DEFINE_integer("image_size", None, "Default: by the network.")
flags.DEFINE_bool("bf16", False, "Compute in bfloat16 (mixed precision).")
flags.DEFINE_enum(
    "jit_compile",
    "auto",
    ["auto", "true", "false"],
    "As of a trainer's `compile`, for trainers and plain models.",
)
flags.DEFINE_bool("schedule", True, "Also time whole runs, by `fit`.")
flags.DEFINE_float("peak_tflops", None, "Peak of the device, dense.")

_BOUND, _BOUND_AT_ZERO, _BOUND_OF_A_RUN = 1.10, 1.05, 1.03
_FASTER_THAN = {"loop": 1.0, "art_trainer": 2.0}
_EPSILON = 4 / 255
_EPOCHS, _BATCHES = 8, 4
_GRADIENTS = 4


def steps_of_a_run():
    """The K of what takes long: that nearest to 3."""
    return min(map(int, FLAGS.steps), key=lambda steps: abs(steps - 3))


def compiled(model):
    """Compiles a model for training, with a plain optimizer."""
    import keras

    from keras_epsched import backend

    given = {"true": True, "false": False}.get(FLAGS.jit_compile, "auto")
    jit_compile = backend.resolve_jit_compile(given, model)
    model.compile(
        optimizer=keras.optimizers.SGD(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # A plain model as a trainer, for Keras would not take XLA on a CPU.
        jit_compile=jit_compile,
    )
    return model


def input_gradient(model, network, images, labels):
    """A function that runs bare input gradients, by the backend's means."""
    import keras

    training = FLAGS.attack_mode == "training"

    def loss(images, values):
        pairs = list(zip(network.variables, values, strict=True))
        with keras.StatelessScope(pairs):
            logits = network(images, training=training)
        return keras.ops.sum(
            keras.losses.sparse_categorical_crossentropy(
                labels, logits, from_logits=True
            )
        )

    # Copies, for JAX gives the arrays of variables away in its steps.
    values = [keras.ops.copy(each.value) for each in network.variables]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=model.jit_compile)
        def gradient():
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                value = loss(images, values)
            return tape.gradient(value, images)

        def wait(_):
            tf.test.experimental.sync_devices()

    elif backend == "jax":
        import jax

        compiled_gradient = jax.jit(jax.grad(loss))

        def gradient():
            return compiled_gradient(images, values)

        def wait(found):
            found.block_until_ready()

    else:
        import torch

        values = [each.detach() for each in values]

        def gradient():
            moved = images.detach().requires_grad_(True)
            return torch.autograd.grad(loss(moved, values), moved)[0]

        def wait(found):
            found[0, 0, 0, 0].item()

    def run():
        # One wait for all, as in an attack.
        for _ in range(_GRADIENTS):
            found = gradient()
        wait(found)

    return run


def make_batch(network, batch_size):
    """A batch on the device."""
    import keras

    rng = np.random.default_rng(0)
    shape = (batch_size, *network.input_shape[1:])
    return (
        keras.ops.convert_to_tensor(rng.uniform(0, 255, shape), "float32"),
        keras.ops.convert_to_tensor(
            rng.integers(0, networks.CLASSES, batch_size), "int32"
        ),
    )


def make_network(name, image_size):
    """The network, in the asked precision."""
    import keras

    if FLAGS.bf16:
        keras.config.set_dtype_policy("mixed_bfloat16")
    return networks.make(name, image_size)


def ours(name, image_size, batch_size):
    """Our steps on one backend, and their parts."""
    import keras

    import keras_epsched as ke

    if keras.backend.backend() == "torch":
        import torch_loop

        torch_loop.tune()
    network = make_network(name, image_size)
    images, labels = make_batch(network, batch_size)
    plain = compiled(keras.Sequential([network]))
    counts = [int(steps) for steps in FLAGS.steps]

    def trainer(steps, epsilon=_EPSILON):
        return compiled(
            ke.AdversarialTrainer(
                network,
                ke.attacks.PGD(steps),
                epsilon=epsilon,
                attack_mode=FLAGS.attack_mode,
            )
        )

    def step(model):
        return lambda: float(model.train_on_batch(images, labels)[0])

    variants = {
        "plain": step(plain),
        "gradient": input_gradient(plain, network, images, labels),
        "ours 0": step(trainer(1, epsilon=0.0)),
    }
    for steps in counts:
        variants[f"ours {steps}"] = step(trainer(steps))
    facts = {
        "parameters": sum(
            int(np.prod(each.shape)) for each in network.trainable_variables
        )
    }
    schedules = {
        "idle": ke.schedules.Constant(0.0),
        "fixed": ke.schedules.Constant(_EPSILON),
        "scheduled": ke.schedules.TwoHinge(_EPSILON),
    }
    # Data as `fit` gets it: on the host.
    many = [
        np.concatenate([keras.ops.convert_to_numpy(each)] * _BATCHES)
        for each in (images, labels)
    ]
    for which, schedule in schedules.items():
        model = trainer(steps_of_a_run())

        def run(schedule=schedule, model=model):
            scheduler = ke.callbacks.EpsilonScheduler(schedule)
            history = model.fit(
                *many,
                batch_size=batch_size,
                epochs=_EPOCHS,
                callbacks=[scheduler],
                verbose=0,
            )
            return history.history["epsilon"][-1]

        variants[which] = run
    strengths = schedules["scheduled"](np.arange(_EPOCHS) / _EPOCHS)
    facts["zero share"] = float((strengths == 0).mean())
    return variants, facts


def art_trainer(name, image_size, batch_size):
    """ART's adversarial trainer on the same model, as its manual has it."""
    import keras
    import tensorflow as tf
    from art.attacks.evasion import ProjectedGradientDescentTensorFlowV2
    from art.defences.trainer import AdversarialTrainer
    from art.estimators.classification import TensorFlowV2Classifier

    network = make_network(name, image_size)
    images, labels = (np.asarray(x) for x in make_batch(network, batch_size))
    one_hot = np.eye(networks.CLASSES, dtype="float32")[labels]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(1e-4)

    # Its own would be traced anew in each call of `fit`.
    @tf.function
    def train_step(model, images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        weights = model.trainable_variables
        optimizer.apply_gradients(
            zip(tape.gradient(value, weights), weights, strict=True)
        )

    classifier = TensorFlowV2Classifier(
        model=network,
        nb_classes=networks.CLASSES,
        input_shape=network.input_shape[1:],
        loss_object=loss,
        train_step=train_step,
        clip_values=(0, 255),
    )
    variants = {}
    for steps in map(int, FLAGS.steps):
        attack = ProjectedGradientDescentTensorFlowV2(
            classifier,
            eps=255 * _EPSILON,
            eps_step=255 * _EPSILON * 2.5 / steps,
            max_iter=steps,
            num_random_init=1,
            batch_size=batch_size,
            verbose=False,
        )
        trainer = AdversarialTrainer(classifier, attack, ratio=1.0)
        variants[f"art_trainer {steps}"] = lambda trainer=trainer: trainer.fit(
            images, one_hot, batch_size=batch_size, nb_epochs=1
        )
    return variants, {}


def loop(name, image_size, batch_size):
    """The torch loop."""
    import torch_loop

    return torch_loop.variants(
        name,
        image_size,
        batch_size,
        networks.CLASSES,
        [int(steps) for steps in FLAGS.steps],
        steps_of_a_run(),
        FLAGS.attack_mode,
        FLAGS.bf16,
    )


_PEERS = {"loop": (loop, "torch"), "art_trainer": (art_trainer, "tensorflow")}


def start(name, image_size, batch_size):
    """Starts all the processes for one network."""
    shape = name, image_size, batch_size
    started = {
        backend: workers.Worker(ours, *shape, backend=backend)
        for backend in workers.installed(FLAGS.backends)
    }
    for peer in workers.installed(FLAGS.peers):
        make, backend = _PEERS[peer]
        started[peer] = workers.Worker(make, *shape, backend=backend)
    return started


class Table:
    """Rows to print, and the bounds that were missed."""

    def __init__(self):
        self.rows, self.missed = [], []

    def add(self, name, side, what, seconds, speed, ratios=None, bound=None):
        """Adds a row; `ratios` of each round are held against a bound."""
        shown = target = ""
        if ratios is not None:
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
            shown = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        if bound is not None:
            sign, limit = bound
            target = f"{sign} {limit:.2f}"
            meets = middle <= limit if sign == "<=" else middle >= limit
            if not meets:
                self.missed.append(f"{name}, {side}, {what}: {shown}, {target}")
        time = f"{np.median(seconds) * 1e3:.1f}"
        self.rows.append((name, side, what, time, speed, shown, target))

    def show(self):
        """Prints the rows since the last call."""
        from tabulate import tabulate

        headers = (
            "network",
            "who",
            "what",
            "median ms",
            "images/s",
            "ratio (quartiles)",
            "bound",
        )
        print(tabulate(self.rows, headers, disable_numparse=True), flush=True)
        self.rows.clear()


def benchmark(name, table):
    """Times one network; fills the table."""
    usual_size, usual_batch = networks.SIZES[name]
    image_size = FLAGS.image_size or usual_size
    batch_size = FLAGS.batch_size or usual_batch
    sides = start(name, image_size, batch_size)
    counts = FLAGS.steps
    backends = [each for each in sides if each in FLAGS.backends]
    turns = [(side, "plain") for side in backends]
    turns += [(side, "gradient") for side in backends]
    turns += [(side, "ours 0") for side in backends]
    if "loop" in sides:
        turns.append(("loop", "loop plain"))
    for count in counts:
        for side in sides:
            kind = side if side in FLAGS.peers else "ours"
            turns.append((side, f"{kind} {count}"))
    # The parts once more, on the other side of what is compared with them.
    again = [
        (side, what) for side, what in turns if what in ("plain", "gradient")
    ]
    seconds, _ = workers.measure(
        [(sides[side], what) for side, what in turns + again], FLAGS.rounds
    )
    found = dict(zip(turns, seconds, strict=False))
    for key, more in zip(again, seconds[len(turns) :], strict=True):
        found[key] = (found[key] + more) / 2
    for side in backends:
        found[side, "gradient"] /= _GRADIENTS

    facts = sides["loop"].facts if "loop" in sides else {}
    if facts:
        print(
            f"{name}: the fastest torch loop is {facts['form']}; its plain "
            f"step takes {facts['plain over best']:.2f} of the fastest one."
        )
    for side in backends:
        parameters = sides[side].facts["parameters"]
        if facts and parameters != facts["parameters"]:
            raise RuntimeError(
                f"{name} has {parameters} parameters on {side}, and "
                f"{facts['parameters']} in the torch loop"
            )

    def speed(taken, count):
        text = f"{batch_size / np.median(taken):.1f}"
        if facts and FLAGS.peak_tflops:
            work = batch_size * (2 * int(count) + 3) * facts["flops"]
            share = work / np.median(taken) / (FLAGS.peak_tflops * 1e12)
            text += f" ({100 * share:.1f} %)"
        return text

    # The others are shown: XLA runs loops on one core of a CPU, and Keras on
    # torch runs eagerly.
    held = "tensorflow" if "tensorflow" in backends else backends[0]
    for side in backends:
        plain, gradient = found[side, "plain"], found[side, "gradient"]
        table.add(name, side, "plain step, t_p", plain, speed(plain, 0))
        table.add(name, side, "input gradient, t_g", gradient, "")
        for count in ("0", *counts):
            taken = found[side, f"ours {count}"]
            bound = _BOUND if int(count) else _BOUND_AT_ZERO
            table.add(
                name,
                side,
                f"PGD-{count} / (K t_g + t_p)",
                taken,
                speed(taken, count),
                taken / (plain + int(count) * gradient),
                ("<=", bound) if side == held else None,
            )
    for peer, side in itertools.product(
        [each for each in sides if each in FLAGS.peers], backends
    ):
        if peer == "art_trainer" and side != "tensorflow":
            continue
        own = [("plain", "loop plain", "0")] if peer == "loop" else []
        own += [(f"ours {each}", f"{peer} {each}", each) for each in counts]
        for mine, its, count in own:
            taken = found[peer, its]
            bound = (">=", _FASTER_THAN[peer])
            table.add(
                name,
                peer,
                f"{its}, its time / {side}'s",
                taken,
                speed(taken, count),
                taken / found[side, mine],
                bound if side == held and mine != "plain" else None,
            )
    if FLAGS.schedule:
        for side in backends:
            add_runs(table, name, side, sides[side], side == held)
    for worker in sides.values():
        worker.close()


def add_runs(table, name, side, worker, held):
    """Times whole runs: without attacks, at fixed epsilon, and scheduled."""
    (idle, fixed, scheduled), _ = workers.measure(
        [(worker, each) for each in ("idle", "fixed", "scheduled")],
        max(3, FLAGS.rounds // 2),
        warm_up=1,
    )
    z, r = worker.facts["zero share"], fixed / idle
    table.add(
        name,
        side,
        f"run, scheduled / fixed PGD-{steps_of_a_run()} / (z + (1 - z) R) * R",
        scheduled,
        "",
        scheduled / fixed / ((z + (1 - z) * r) / r),
        ("<=", _BOUND_OF_A_RUN) if held else None,
    )


def main(_):
    if FLAGS.peak_tflops and "loop" not in FLAGS.peers:
        raise app.UsageError("--peak_tflops needs --peers=loop, which counts")
    table = Table()
    for name in FLAGS.networks:
        benchmark(name, table)
        # At once, for the next network takes minutes.
        table.show()
    if table.missed:
        print("A bound is missed:", *table.missed, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
