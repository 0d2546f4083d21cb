r"""Which BatchNorm setting makes short robust fine-tuning robust?

Fine-tunes keras.applications MobileNet 0.75 on a small image dataset in each
setting of (attack mode, momentum, frozen or not) and prints clean accuracy,
accuracy at the target and expected robustness on the test split. The table in
docs/how-to/methods.md comes from here.

Examples:
  python benchmarks/batchnorm.py --dataset=FOLDER/flowers12_128 \
      --weights=FOLDER/mobilenet_7_5_224_no_top.weights.h5
"""

import json

from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "A prepared dataset.", required=True)
flags.DEFINE_string("weights", None, "MobileNet weights.", required=True)
flags.DEFINE_integer("image_size", 64, "Height and width.")
flags.DEFINE_integer("epochs", 24, "Epochs.")
flags.DEFINE_integer("seeds", 2, "Seeds.")
flags.DEFINE_list("schedules", ["fixed", "scheduled"], "Which arms.")
flags.DEFINE_list(
    "settings",
    [
        "inference:0.99",
        "training:0.99",
        "inference:0.9",
        "training:0.9",
        "inference:frozen",
    ],
    "mode:momentum, or mode:frozen.",
)

_TARGET = 4 / 255


def train(setting, arm, seed):
    import keras

    import keras_epsched as ke

    mode, momentum = setting.split(":")
    frozen = momentum == "frozen"
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    size = (FLAGS.image_size, FLAGS.image_size)
    # As that table was made, before there were stratified splits.
    data = ke.datasets.load(
        FLAGS.dataset,
        image_size=size,
        batch_size=64,
        splits="contiguous",
        seed=seed,
    )
    backbone = keras.applications.MobileNet(
        alpha=0.75,
        include_top=False,
        input_shape=(*size, 3),
        weights=FLAGS.weights,
    )
    net = ke.models.classifier(
        backbone, data.num_classes, scale=1 / 127.5, offset=-1.0, seed=seed
    )
    trainer = ke.AdversarialTrainer(
        net,
        attack=ke.attacks.PGD(steps=3),
        attack_mode=mode,
        batchnorm_momentum=None if frozen else float(momentum),
        freeze_batchnorm=frozen,
        seed=seed,
    )
    steps = FLAGS.epochs * len(data.train)
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
        epochs=FLAGS.epochs,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
        verbose=0,
        shuffle=False,
    ).history
    report = ke.evaluate(
        net, data.test, ke.epsilon_grid(_TARGET), verbose=0, seed=seed
    )
    gap = [
        history[f"adversarial_loss_{name}"][-1]
        for name in ("inference", "training")
        if f"adversarial_loss_{name}" in history
    ]
    return {
        "setting": setting,
        "schedule": arm,
        "seed": seed,
        "clean": report.clean_accuracy,
        "at_target": float(report.accuracy[-1]),
        "expected": report.expected_robustness(),
        "losses": gap,
    }


def main(_):
    import numpy as np
    from tabulate import tabulate

    logging.set_verbosity(logging.ERROR)
    rows = []
    for setting in FLAGS.settings:
        for arm in FLAGS.schedules:
            runs = []
            for seed in range(FLAGS.seeds):
                runs.append(train(setting, arm, seed))
                print(json.dumps(runs[-1]), flush=True)
            rows.append(
                (
                    setting,
                    arm,
                    *(
                        " / ".join(f"{run[name]:.3f}" for run in runs)
                        + f" ({np.mean([run[name] for run in runs]):.3f})"
                        for name in ("clean", "at_target", "expected")
                    ),
                )
            )
    headers = ("mode:momentum", "schedule", "clean", "at 4/255", "expected")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
