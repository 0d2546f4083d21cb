r"""Compares two validation attacks for choosing the best robust epoch.

Fine-tunes the small ResNet on digits, with a learning rate that falls along a
cosine from the warm-up on. After each epoch at the target epsilon, the
validation images are attacked twice, at the same cost: by APGD with 10 steps on
cross-entropy, and by APGD with 10 steps on the probability margin.
`RobustCheckpoint` would keep the best epoch by one of them. All these epochs
are then evaluated on test images with the default attack of
`keras_epsched.evaluate`.

Prints for each training and validation attack: the chosen epoch; its accuracy
at the target epsilon and its expected robustness; the regret, which is the
number of points by which the best epoch is better; and Spearman's correlation
of validation and test accuracy over the epochs. The last lines are the means
over all trainings.

Examples:
  python benchmarks/checkpoint_choice.py
  # A quick look, at a few epochs and epsilons:
  python benchmarks/checkpoint_choice.py --seeds=1 --most=4 --num_epsilons=3
"""

import json

import numpy as np
from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 20, "Epochs of each training.", lower_bound=2)
flags.DEFINE_integer("seeds", 2, "Trainings of each schedule.", lower_bound=1)
flags.DEFINE_list("schedules", ["fixed", "scheduled"], "Schedules to train.")
flags.DEFINE_float("epsilon", 0.3, "Target epsilon, on the [0, 1] scale.")
flags.DEFINE_integer("train_steps", 7, "Steps of PGD in training.")
flags.DEFINE_float("learning_rate", 3e-3, "Peak learning rate of AdamW.")
flags.DEFINE_integer("images", 200, "Number of test images.", lower_bound=8)
flags.DEFINE_integer("num_epsilons", 9, "Number of epsilons.", lower_bound=2)
flags.DEFINE_integer(
    "most",
    20,
    "Largest number of epochs of a training to evaluate, evenly spaced.",
    lower_bound=2,
)

_LOSSES = ("ce", "probability_margin")


def train(arm, seed):
    """A row for each epoch that was looked at."""
    import keras

    import keras_epsched as ke

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    data = ke.datasets.load(
        "digits",
        image_size=(32, 32),
        batch_size=64,
        test_examples=FLAGS.images,
        seed=seed,
    )
    net = ke.models.classifier(
        "resnet_letters", data.num_classes, image_size=(32, 32), seed=seed
    )
    trainer = ke.AdversarialTrainer(
        net, ke.attacks.PGD(FLAGS.train_steps), seed=seed
    )
    steps = FLAGS.epochs * len(data.train)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - steps // 20,
        warmup_target=FLAGS.learning_rate,
        warmup_steps=steps // 20,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4),
        loss=loss,
        metrics=["accuracy"],
    )
    judges = {}
    for name in _LOSSES:
        attack = ke.attacks.APGD(10, loss=name)
        # What `RobustCheckpoint` sees in its logs.
        judges[name] = ke.AdversarialTrainer(net, validation_attack=attack)
        judges[name].compile(loss=loss)
        judges[name].target_epsilon = FLAGS.epsilon
    rows, weights = [], []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if trainer.epsilon < trainer.target_epsilon * (1 - 1e-6):
                return
            row = {"schedule": arm, "seed": seed, "epoch": epoch + 1}
            for name, judge in judges.items():
                found = judge.evaluate(
                    data.validation, verbose=0, return_dict=True
                )
                row[name] = found["robust_accuracy"]
            rows.append(row)
            weights.append(net.get_weights())

    schedule = {
        "fixed": ke.schedules.Constant(FLAGS.epsilon),
        "scheduled": ke.schedules.TwoHinge(FLAGS.epsilon, 0.25, 0.75),
    }[arm]
    trainer.fit(
        data.train,
        epochs=FLAGS.epochs,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule), Look()],
        verbose=0,
        shuffle=False,
    )
    grid = ke.epsilon_grid(FLAGS.epsilon, FLAGS.num_epsilons)
    count = len(rows)
    kept = np.linspace(0, count - 1, min(count, FLAGS.most)).round().astype(int)
    rows, weights = ([each[i] for i in kept] for each in (rows, weights))
    for row, values in zip(rows, weights, strict=True):
        net.set_weights(values)
        report = ke.evaluate(
            net, data.test, grid, self_check=False, verbose=0, seed=seed
        )
        row["clean"] = report.clean_accuracy
        row["at_target"] = float(report.accuracy[-1])
        row["expected"] = report.expected_robustness()
        print(json.dumps(row), flush=True)
    return rows


def choice(rows, loss):
    """What the epoch is worth that a validation attack chooses."""
    from scipy.stats import spearmanr

    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    # The first of equal ones, as a checkpoint keeps it.
    best = int(np.argmax(columns[loss]))
    found = {}
    for name in ("at_target", "expected"):
        values = columns[name]
        found[name] = values[best]
        found[f"regret {name}"] = values.max() - values[best]
        found[f"rank {name}"] = spearmanr(columns[loss], values).statistic
    return rows[best]["epoch"], [*found.values()]


def main(_):
    from tabulate import tabulate

    logging.set_verbosity(logging.ERROR)
    table, means = [], {loss: [] for loss in _LOSSES}
    for arm in FLAGS.schedules:
        for seed in range(FLAGS.seeds):
            rows = train(arm, seed)
            for loss in _LOSSES:
                epoch, found = choice(rows, loss)
                means[loss].append(found)
                table.append((arm, seed, loss, len(rows), epoch, *found))
    for loss in _LOSSES:
        mean = np.nanmean(means[loss], axis=0)
        table.append(("mean", "", loss, "", "", *mean))
    headers = ("schedule", "seed", "validated on", "epochs", "chosen epoch")
    headers += ("at target", "regret", "rank correlation")
    headers += ("expected", "regret", "rank correlation")
    print(tabulate(table, headers, tablefmt="github", floatfmt=".3f"))


if __name__ == "__main__":
    app.run(main)
