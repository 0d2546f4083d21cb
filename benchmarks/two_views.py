r"""Compares one pass for both views of TRADES with one pass for each view.

TRADES uses the clean and the adversarial view of each image. In this package,
each view has its own pass, in which BatchNorm uses the statistics of that view.
The alternative is one pass for both views, in which BatchNorm uses their joint
statistics. This benchmark trains the bundled network on digits in both ways,
and times a step of each in turn. The numbers in docs/how-to/methods.md come
from here.

Examples:
  python benchmarks/two_views.py
"""

import time

from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 12, "Epochs of each training.")
flags.DEFINE_integer("seeds", 3, "Number of seeds.")
flags.DEFINE_integer("rounds", 7, "Rounds of timing.")
flags.DEFINE_integer("steps", 10, "Training steps to time in a round.")

_TARGET = 0.3


def objectives():
    from keras import ops

    import keras_epsched as ke

    class OnePass(ke.training.TRADES):
        def views(self, clean, adversarial):
            return {"both": ops.concatenate([clean, adversarial])}

        def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
            views = self.split(y_pred)
            return super().compute_loss(compiled_loss, y, views, sample_weight)

        def predictions(self, y_pred):
            return self.split(y_pred)["adversarial"]

        def split(self, y_pred):
            clean, adversarial = ops.split(y_pred["both"], 2)
            return {"clean": clean, "adversarial": adversarial}

    return {"a pass each": ke.training.TRADES(), "one pass": OnePass()}


def make(objective, seed):
    import keras

    import keras_epsched as ke

    keras.utils.set_random_seed(seed)
    data = ke.datasets.load(
        "digits", image_size=(32, 32), batch_size=64, seed=seed
    )
    net = ke.models.classifier(
        "resnet_letters", data.num_classes, image_size=(32, 32), seed=seed
    )
    trainer = ke.AdversarialTrainer(
        net, attack=ke.attacks.PGD(steps=5), objective=objective, seed=seed
    )
    steps = FLAGS.epochs * len(data.train)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - steps // 20,
        warmup_target=3e-3,
        warmup_steps=steps // 20,
    )
    trainer.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return trainer, data


def train(objective, seed):
    import keras_epsched as ke

    trainer, data = make(objective, seed)
    schedule = ke.schedules.TwoHinge(_TARGET)
    trainer.fit(
        data.train,
        epochs=FLAGS.epochs,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
        verbose=0,
        shuffle=False,
    )
    report = ke.evaluate(
        trainer.model, data.test, ke.epsilon_grid(_TARGET), verbose=0
    )
    return (
        report.clean_accuracy,
        float(report.accuracy[-1]),
        report.expected_robustness(),
    )


def step_times():
    """Seconds of the timed steps: a row a round, in the objectives' order."""
    made = []
    for objective in objectives().values():
        trainer, data = make(objective, 0)
        trainer.epsilon = _TARGET
        images, labels = next(iter(data.train))
        trainer.train_on_batch(images, labels)  # compiles
        made.append((trainer, images, labels))
    rows = []
    for _ in range(FLAGS.rounds):
        row = []
        for trainer, images, labels in made:
            started = time.perf_counter()
            for _ in range(FLAGS.steps):
                trainer.train_on_batch(images, labels)
            row.append(time.perf_counter() - started)
        rows.append(row)
    return rows


def main(_):
    import numpy as np
    from tabulate import tabulate

    logging.set_verbosity(logging.ERROR)
    times = np.asarray(step_times())
    ratios = times[:, 1] / times[:, 0]
    print(
        "time of a step with one pass, divided by that with a pass for each "
        "view: "
        f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})",
        flush=True,
    )
    rows = []
    for name, objective in objectives().items():
        runs = np.asarray([train(objective, s) for s in range(FLAGS.seeds)])
        errors = runs.std(axis=0, ddof=1) / np.sqrt(FLAGS.seeds)
        means = runs.mean(axis=0)
        values = zip(means, errors, strict=True)
        rows.append([name, *(f"{m:.3f} ± {e:.3f}" for m, e in values)])
    print(tabulate(rows, ("", "clean", f"at {_TARGET}", "expected")))


if __name__ == "__main__":
    app.run(main)
