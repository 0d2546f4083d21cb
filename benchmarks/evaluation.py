r"""Counts the passes of an evaluation at nine epsilons.

The naive evaluation attacks every correctly classified image at every epsilon
above 0. The nested sweep attacks, at each epsilon, only images that no smaller
epsilon broke. So its passes, as a share of the naive ones, are the mean of the
accuracy curve (at the left ends of the grid) divided by the clean accuracy.
Bisection needs at most 1 + floor(log2(8)) = 4 attacks for each image.

The network is trained robustly on the bundled digits first, or given as
--model. The largest epsilon is chosen so that expected robustness is 0.3, 0.5
and 0.75. Passes are counted, so the result is the same on every machine;
evaluation_speed.py measures the time. The exit status is 1 if a bound is
missed.

Examples:
  python benchmarks/evaluation.py
  python benchmarks/evaluation.py --model=runs/NAME/model.keras --images=1000
"""

import sys

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras classifier of digits, 32 x 32.")
flags.DEFINE_integer("images", 500, "Number of test images.", lower_bound=32)
flags.DEFINE_integer("steps", 10, "Steps of PGD.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_list(
    "robustness", ["0.3", "0.5", "0.75"], "Values of expected robustness."
)

_POINTS = 9
_SLACK, _BISECTED, _NOISE = 0.03, 0.45, 0.01


def trained(data):
    """Returns a classifier of digits that is robust enough."""
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
    """Returns the largest epsilon, so that expected robustness is `wanted`."""
    ends = np.linspace(report.epsilons[1], report.epsilons[-1], 400)
    values = [report.expected_robustness(target_epsilon=end) for end in ends]
    return float(ends[np.argmin(np.abs(np.array(values) - wanted))])


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
    rows, missed = [], []
    for wanted in map(float, FLAGS.robustness):
        grid = np.linspace(0, target(coarse, wanted), _POINTS)
        naive = sweep(grid, protocol="independent")
        nested = sweep(grid, bisect=False)
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
    headers = (
        "target",
        "expected",
        "nested / naive passes",
        "bisected / naive",
        "nested - naive, points",
        "bisected - naive, points",
    )
    print(tabulate(rows, headers, disable_numparse=True))
    for each in missed:
        print(f"MISSED: {each}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    app.run(main)
