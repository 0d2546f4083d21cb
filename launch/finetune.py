r"""Robust fine-tuning of one backbone by one schedule, then its evaluation.

Examples:
  python launch/finetune.py --schedule=scheduled
  python launch/finetune.py --dataset=/data/flowers --image_size=224 \
      --backbone=resnet_50_imagenet --epsilon=4/255 --epochs=50 \
      --learning_rate=1e-4 --augment=flip,color,rotation --output=runs/flowers
  python launch/finetune.py --schedule=fixed --epsilon=8/255
  # On a machine that may disappear: the same command again goes on exactly.
  python launch/finetune.py --output=runs/digits --resume --backup_minutes=5
"""

import json

import common
import flag_types
import refusals
import run_folders
import training_run
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE(
    flag_types.ScheduleName(),
    "schedule",
    "scheduled",
    "No attack, the target from the start, the ramp of --ramp_start and "
    "--ramp_end, another uniform draw in each epoch, a ramp that waits until "
    "the task is adapted to (auto), one that goes on while clean accuracy "
    "holds (paced), or one with hinges of its own, as shares of the training.",
    serializer=flags.ArgumentSerializer(),
)
flags.DEFINE_float("learning_rate", 3e-3, "Peak learning rate of AdamW.")


def run():
    """Trains and evaluates by the flags.

    Returns:
        The run folder, the data, the history and the report.
    """
    import keras_epsched as ke

    folder, probe = common.prepare("finetune")
    common.print_device()
    scheduler = common.make_scheduler(FLAGS.schedule, FLAGS.seed)
    run_folders.write_config(folder, splits=common.splits_config(probe))
    classifier, data, history = training_run.train(
        scheduler, FLAGS.learning_rate, FLAGS.seed, folder
    )
    report = ke.evaluate(
        classifier,
        data.test,
        common.evaluation_grid(),
        common.make_attack(FLAGS.eval_attack, FLAGS.eval_steps),
        seed=FLAGS.seed,
        folder=folder,
        resume=FLAGS.resume,
        verbose=1,
    )
    for name in ("curve.png", "curve.svg"):
        report.plot(folder / name)
    epochs = len(history["epoch"])
    common.write_card(folder, report, data, epochs=epochs)
    return folder, data, history, report


def main(_):
    folder, _, history, report = run()
    print(f"\n{report}")
    if history.get("verdict"):
        print(f"\n{history['verdict']} transfer: {history['advice']}")
    print(json.dumps({"run_folder": str(folder)}))


if __name__ == "__main__":
    refusals.run(main)
