r"""Measures whether the input pipeline is as fast as the training step.

The pipeline alone (which reads, decodes, resizes, shuffles, augments and
batches records) is timed with and without its cache. The training step alone
is timed at epsilon 0, where it is fastest, and with PGD. All speeds are in
images per second, and the ratio is the speed of the pipeline divided by that of
the step.

On a CPU, the pipeline and the step use the same cores and slow each other down.
The last column is the time of a step that is fed by the uncached pipeline,
divided by the time of a step that gets the same batch again and again. All
variants are timed in turn, round after round, and medians are printed.

The exit status is 1 if the uncached pipeline is slower than a step of the
scheduled training, whose mean time is between those of the two steps.

Examples:
  python benchmarks/pipeline.py --dataset=FOLDER/cub100_128
  python benchmarks/pipeline.py --dataset=cub200 --data_dir=FOLDER \
      --weights=FOLDER/mobilenet_7_5_224_no_top.weights.h5
"""

import itertools
import sys
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "digits", "Name or folder of the dataset.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds datasets.")
flags.DEFINE_integer("images", 512, "Training images.", lower_bound=32)
flags.DEFINE_integer("image_size", 224, "Height and width of the images.")
flags.DEFINE_integer("batch_size", 32, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer("steps", 7, "Steps of PGD.", lower_bound=1)
flags.DEFINE_integer("rounds", 5, "Rounds of timing.", lower_bound=1)
flags.DEFINE_string("weights", None, "MobileNet weights. Default: random.")

_EPSILON = 4 / 255


def load(cache):
    """The data of the flags, of which few are used to train on."""
    import keras_epsched as ke

    arguments = {
        "image_size": (FLAGS.image_size, FLAGS.image_size),
        "batch_size": FLAGS.batch_size,
        "data_dir": FLAGS.data_dir,
        "splits": "stratified",
        "augment": True,
        "cache": cache,
    }
    data = ke.datasets.load(FLAGS.dataset, **arguments)
    share = FLAGS.images / data.class_counts["train"].sum() * 0.8
    if share < 0.8:
        data = ke.datasets.load(
            FLAGS.dataset, validation_split=1 - share, **arguments
        )
    return data


def make_trainer(num_classes, epsilon):
    """MobileNet 0.75, fine-tuned at an epsilon."""
    import keras

    import keras_epsched as ke

    backbone = keras.applications.MobileNet(
        alpha=0.75,
        include_top=False,
        input_shape=(FLAGS.image_size, FLAGS.image_size, 3),
        weights=FLAGS.weights,
    )
    net = ke.models.classifier(
        backbone, num_classes, scale=1 / 127.5, offset=-1.0
    )
    trainer = ke.AdversarialTrainer(
        net, ke.attacks.PGD(FLAGS.steps), epsilon=epsilon
    )
    trainer.compile(
        optimizer=keras.optimizers.SGD(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    trainer.make_train_function()
    return trainer


def steps_on(trainer, batches):
    """A function that runs a step on each of the next two batches."""
    iterator = iter(batches)

    def run():
        for _ in range(2):
            float(trainer.train_function(iterator)["loss"])
        return 2 * FLAGS.batch_size

    return run


def epoch_of(dataset):
    """A function that reads the training images once."""

    def run():
        return sum(int(labels.shape[0]) for _, labels in dataset)

    return run


def measure(variants):
    """Images a second of each variant, a row a round, in turn."""
    for run in variants.values():
        # The first run compiles, and fills the cache.
        run()
    rows = []
    for _ in range(FLAGS.rounds):
        rows.append([])
        for run in variants.values():
            started = time.perf_counter()
            images = run()
            rows[-1].append(images / (time.perf_counter() - started))
    return dict(zip(variants, np.median(rows, axis=0), strict=True))


def main(_):
    import tensorflow as tf
    from absl import logging
    from tabulate import tabulate

    # tfds tells of each dataset that it opens.
    logging.set_verbosity(logging.ERROR)
    fresh, cached = load(cache=False), load(cache=True)
    batch = next(iter(fresh.train))
    again = tf.data.Dataset.from_tensors(batch).repeat().prefetch(4)
    variants = {
        "pipeline, no cache": epoch_of(fresh.train),
        "pipeline, cached": epoch_of(cached.train),
    }
    steps = {"epsilon 0": 0.0, f"PGD-{FLAGS.steps}": _EPSILON}
    for name, epsilon in steps.items():
        trainer = make_trainer(fresh.num_classes, epsilon)
        variants[f"step, {name}"] = steps_on(trainer, again)
        variants[f"fed, {name}"] = steps_on(trainer, fresh.train.repeat())
    found = measure(variants)
    rows = [
        (name, f"{rate:.1f}", "", "", "")
        for name, rate in itertools.islice(found.items(), 2)
    ]
    for name in steps:
        step = found[f"step, {name}"]
        rows.append(
            (
                f"step, {name}",
                f"{step:.1f}",
                f"{found['pipeline, no cache'] / step:.1f}",
                f"{found['pipeline, cached'] / step:.1f}",
                f"{step / found[f'fed, {name}']:.2f}",
            )
        )
    print(
        tabulate(
            rows,
            headers=(
                f"{FLAGS.image_size} px, batch {FLAGS.batch_size}",
                "images/s",
                "pipeline / step",
                "cached / step",
                "fed / unfed time",
            ),
            disable_numparse=True,
        )
    )
    slowest = found[f"step, PGD-{FLAGS.steps}"]
    if found["pipeline, no cache"] < slowest:
        sys.exit("the pipeline is slower than the training step")


if __name__ == "__main__":
    app.run(main)
