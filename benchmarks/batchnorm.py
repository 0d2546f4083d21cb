r"""Compares BatchNorm settings in short robust fine-tuning.

Fine-tunes a backbone on a small image dataset with each setting: the attack
mode, and the momentum of BatchNorm or frozen statistics. Prints the clean
accuracy on validation and test images, the accuracy at the target epsilon, and
the expected robustness. The table in "Momentum in short epochs" of
docs/how-to/methods.md comes from here.

Examples:
  python benchmarks/batchnorm.py --dataset=FOLDER/flowers12_128 \
      --weights=FOLDER/mobilenet_7_5_224_no_top.weights.h5
  python benchmarks/batchnorm.py --dataset=FOLDER/flowers12_128 \
      --backbone=FOLDER/A_KERAS_HUB_PRESET --batch_size=32 --epochs=2,4,12 \
      --settings=training:0.9,training:default --schedules=scheduled --quick
"""

import itertools
import json

from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "A prepared dataset.", required=True)
flags.DEFINE_string(
    "backbone",
    "keras.applications.MobileNet",
    "Name for `ke.models.classifier`. MobileNet is built with width 0.75.",
)
flags.DEFINE_string("weights", None, "File with weights of the backbone.")
flags.DEFINE_integer("image_size", 64, "Height and width of the images.")
flags.DEFINE_integer("batch_size", 64, "Images in a training step.")
flags.DEFINE_list("epochs", ["24"], "Numbers of epochs, one or several.")
flags.DEFINE_bool("quick", False, "Evaluate with APGD-10 on the margin only.")
flags.DEFINE_integer("seeds", 2, "Number of seeds of each training.")
flags.DEFINE_list("schedules", ["fixed", "scheduled"], "Schedules to train.")
flags.DEFINE_list(
    "settings",
    [
        "inference:0.99",
        "training:0.99",
        "inference:0.9",
        "training:0.9",
        "inference:frozen",
    ],
    "Settings as mode:momentum, mode:default (momentum of the trainer) or "
    "mode:frozen, where mode is the attack mode.",
)

_TARGET = 4 / 255


def train(setting, arm, epochs, seed):
    import keras

    import keras_epsched as ke

    mode, momentum = setting.split(":")
    frozen = momentum == "frozen"
    own = frozen or momentum == "default"
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    size = (FLAGS.image_size, FLAGS.image_size)
    # The table in the docs was made before stratified splits existed.
    data = ke.datasets.load(
        FLAGS.dataset,
        image_size=size,
        batch_size=FLAGS.batch_size,
        splits="contiguous",
        seed=seed,
    )
    mobilenet = FLAGS.backbone == FLAGS["backbone"].default
    net = ke.models.classifier(
        FLAGS.backbone,
        data.num_classes,
        image_size=size,
        seed=seed,
        **({"backbone_config": {"alpha": 0.75}} if mobilenet else {}),
        **({"weights": FLAGS.weights} if FLAGS.weights else {}),
    )
    trainer = ke.AdversarialTrainer(
        net,
        attack=ke.attacks.PGD(steps=3),
        attack_mode=mode,
        batchnorm_momentum=None if own else float(momentum),
        freeze_batchnorm=frozen,
        seed=seed,
    )
    steps = epochs * len(data.train)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - steps // 20,
        warmup_target=1e-3,
        warmup_steps=steps // 20,
    )
    trainer.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    schedule = {
        "fixed": ke.schedules.Constant(_TARGET),
        "scheduled": ke.schedules.TwoHinge(_TARGET, 0.25, 0.75),
    }[arm]
    history = trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=epochs,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
        verbose=0,
        shuffle=False,
    ).history
    quick = ke.attacks.APGD(10, loss="probability_margin")
    report = ke.evaluate(
        net,
        data.test,
        ke.epsilon_grid(_TARGET),
        quick if FLAGS.quick else None,
        verbose=0,
        seed=seed,
    )
    gap = [
        history[f"adversarial_loss_{name}"][-1]
        for name in ("inference", "training")
        if f"adversarial_loss_{name}" in history
    ]
    return {
        "setting": setting,
        "schedule": arm,
        "epochs": epochs,
        "seed": seed,
        "validation": history["val_accuracy"][-1],
        "clean": report.clean_accuracy,
        "at_target": float(report.accuracy[-1]),
        "expected": report.expected_robustness(),
        "losses": gap,
    }


def main(_):
    import numpy as np
    from tabulate import tabulate

    logging.set_verbosity(logging.ERROR)
    measures = ("validation", "clean", "at_target", "expected")
    rows = []
    for epochs, setting, arm in itertools.product(
        map(int, FLAGS.epochs), FLAGS.settings, FLAGS.schedules
    ):
        runs = []
        for seed in range(FLAGS.seeds):
            runs.append(train(setting, arm, epochs, seed))
            print(json.dumps(runs[-1]), flush=True)
        rows.append((epochs, setting, arm))
        for name in measures:
            values = [run[name] for run in runs]
            each = " / ".join(f"{value:.3f}" for value in values)
            rows[-1] += (f"{each} ({np.mean(values):.3f})",)
    headers = ("epochs", "mode:momentum", "schedule", *measures)
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
