r"""What a sweep over nine epsilons costs, against its naive form and peers.

Naive: the same attack on every image that is correct without it, at every
epsilon above 0. The nested sweep attacks at each epsilon only what still
stands, so its share of the naive passes is the mean of the curve (left ends of
the grid) over the clean accuracy: the metric is its own cost. Bisection needs
at most 1 + floor(log2(8)) attacks an image.

Targets are chosen such that expected robustness is 0.3, 0.5 and 0.75, for one
network that is trained robustly on the bundled digits first (or --model).
Foolbox and ART, if installed (`pip install -e ".[peers]"`), loop PGD of the
same steps over the same grid, images and Keras model. All from one run, so
ratios hold on any machine. Exit status 1: a bound is missed.

Examples:
  python benchmarks/evaluation.py
  python benchmarks/evaluation.py --model=runs/NAME/model.keras --images=1000
"""

import importlib.util
import sys
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras classifier of digits at 32 px.")
flags.DEFINE_integer("images", 500, "Images of the test split.", lower_bound=32)
flags.DEFINE_integer("steps", 10, "Steps of PGD.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_list("robustness", ["0.3", "0.5", "0.75"], "Values to look at.")
flags.DEFINE_bool("peers", True, "Also time Foolbox and ART, if installed.")

_POINTS = 9
_SLACK, _BISECTED, _SPEED, _NOISE = 0.03, 0.45, 3.0, 0.01


def trained(data):
    """A robust classifier of digits, and none too weak."""
    import keras

    import keras_epsched as ke

    keras.utils.set_random_seed(0)
    classifier = ke.models.classifier("resnet_letters", 10, image_size=(32, 32))
    trainer = ke.AdversarialTrainer(classifier, ke.attacks.PGD(steps=3))
    trainer.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    schedule = ke.schedules.TwoHinge(0.15)
    trainer.fit(
        data.train,
        epochs=16,
        shuffle=False,
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
    )
    return classifier


def target(report, wanted):
    """The end of the interval on which expected robustness is `wanted`."""
    ends = np.linspace(report.epsilons[1], report.epsilons[-1], 400)
    values = [report.expected_robustness(target_epsilon=end) for end in ends]
    return float(ends[np.argmin(np.abs(np.array(values) - wanted))])


def timed(function):
    """Seconds of a call, and what it returns."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def foolbox_curve(classifier, images, labels, grid):
    """Accuracy at each epsilon, by Foolbox."""
    import eagerpy as ep
    import foolbox
    import tensorflow as tf

    model = foolbox.TensorFlowModel(classifier, bounds=(0, 255))
    attack = foolbox.attacks.LinfPGD(
        steps=FLAGS.steps, rel_stepsize=2.5 / FLAGS.steps
    )
    correct = np.zeros(len(grid))
    for at in range(0, len(images), FLAGS.batch_size):
        part = slice(at, at + FLAGS.batch_size)
        x, y = tf.constant(images[part]), tf.constant(labels[part])
        clean = foolbox.accuracy(model, ep.astensor(x), ep.astensor(y))
        _, _, success = attack(model, x, y, epsilons=list(255 * grid[1:]))
        correct[0] += clean * len(images[part])
        correct[1:] += (1 - success.numpy()).sum(axis=1)
    return correct / len(images)


def art_curve(classifier, images, labels, grid):
    """Accuracy at each epsilon, by ART."""
    import keras
    from art.attacks.evasion import ProjectedGradientDescentTensorFlowV2
    from art.estimators.classification import TensorFlowV2Classifier

    wrapped = TensorFlowV2Classifier(
        model=classifier,
        nb_classes=10,
        input_shape=images.shape[1:],
        loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
        clip_values=(0, 255),
    )
    curve = []
    for epsilon in grid:
        moved = images
        if epsilon:
            attack = ProjectedGradientDescentTensorFlowV2(
                wrapped,
                eps=255 * epsilon,
                eps_step=255 * epsilon * 2.5 / FLAGS.steps,
                max_iter=FLAGS.steps,
                num_random_init=1,
                batch_size=FLAGS.batch_size,
                verbose=False,
            )
            moved = attack.generate(images, np.eye(10)[labels])
        logits = wrapped.predict(moved, batch_size=FLAGS.batch_size)
        curve.append((logits.argmax(-1) == labels).mean())
    return np.array(curve)


_PEERS = {
    "Foolbox": ("foolbox", foolbox_curve),
    "ART": ("art", art_curve),
}


def main(_):
    from tabulate import tabulate

    import keras_epsched as ke

    data = ke.datasets.load("digits", image_size=(32, 32), batch_size=64)
    if FLAGS.model:
        classifier = ke.models.load(FLAGS.model)
    else:
        classifier = trained(data)
    batches = [(np.asarray(x), np.asarray(y)) for x, y in data.test]
    images, labels = (
        np.concatenate(each)[: FLAGS.images]
        for each in zip(*batches, strict=True)
    )
    attack = ke.attacks.PGD(FLAGS.steps)

    def sweep(grid, **kwargs):
        return ke.evaluate(
            classifier,
            (images, labels),
            grid,
            attack,
            batch_size=FLAGS.batch_size,
            self_check=False,
            verbose=0,
            **kwargs,
        )

    coarse = sweep(np.linspace(0, 0.6, 25))
    rows, peer_rows, missed = [], [], []
    for wanted in map(float, FLAGS.robustness):
        grid = np.linspace(0, target(coarse, wanted), _POINTS)
        naive = sweep(grid, protocol="independent")
        seconds, nested = timed(lambda grid=grid: sweep(grid))
        halved = sweep(grid, bisect=True)
        bound = nested.accuracy[:-1].mean() / nested.clean_accuracy + _SLACK
        shares = []
        for report in (nested, halved):
            passes = report.forward_passes + report.backward_passes
            shares.append(
                passes / (naive.forward_passes + naive.backward_passes)
            )
            above = (report.accuracy - naive.accuracy).max()
            if above > _NOISE:
                missed.append(f"{wanted}: {100 * above:.1f} points above naive")
        if shares[0] > bound:
            missed.append(f"{wanted}: nested {shares[0]:.3f} > {bound:.3f}")
        if wanted == 0.5 and shares[1] > _BISECTED:
            missed.append(f"{wanted}: bisected {shares[1]:.3f} > {_BISECTED}")
        rows.append(
            (
                f"{grid[-1]:.3f}",
                f"{nested.expected_robustness():.3f}",
                f"{shares[0]:.3f} <= {bound:.3f}",
                f"{shares[1]:.3f}",
                f"{100 * (nested.accuracy - naive.accuracy).max():+.1f}",
                f"{100 * (halved.accuracy - naive.accuracy).max():+.1f}",
            )
        )
        for name, (module, curve) in _PEERS.items():
            if not FLAGS.peers or importlib.util.find_spec(module) is None:
                continue
            curve_seconds, values = timed(
                lambda curve=curve, grid=grid: curve(
                    classifier, images, labels, grid
                )
            )
            ratio = curve_seconds / seconds
            if ratio < _SPEED:
                missed.append(
                    f"{wanted}: only {ratio:.1f} times {name}'s speed"
                )
            robustness = np.trapezoid(values, grid) / grid[-1]
            peer_rows.append(
                (
                    f"{grid[-1]:.3f}",
                    name,
                    f"{curve_seconds:.1f}",
                    f"{seconds:.1f}",
                    f"{ratio:.1f}",
                    f"{robustness:.3f}",
                    f"{nested.expected_robustness():.3f}",
                )
            )
    headers = (
        "target",
        "expected",
        "nested / naive passes",
        "bisected / naive",
        "nested - naive, points",
        "bisected - naive, points",
    )
    print(tabulate(rows, headers, disable_numparse=True))
    if peer_rows:
        headers = ("target", "peer", "its s", "our s", "ratio")
        headers += ("its expected robustness", "ours")
        print(f"\n{tabulate(peer_rows, headers, disable_numparse=True)}")
    for each in missed:
        print(f"MISSED: {each}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    app.run(main)
