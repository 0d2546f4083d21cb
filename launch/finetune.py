r"""Robust fine-tuning of one backbone by one schedule, then its evaluation.

Examples:
  python launch/finetune.py --schedule=scheduled
  python launch/finetune.py --dataset=/data/flowers --image_size=224 \
      --backbone=resnet_50_imagenet --epsilon=4/255 --epochs=50 \
      --learning_rate=1e-4 --augment=flip,color,rotation --output=runs/flowers
  python launch/finetune.py --schedule=fixed --epsilon=8/255
  # Measured as in the paper too, in the folder `paper` of the run folder:
  python launch/finetune.py --protocols=nested,paper
  # On a machine that may disappear: the same command again goes on exactly.
  python launch/finetune.py --output=runs/digits --resume --backup_minutes=5
"""

import json

import caveats
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
common.define_protocols(["nested"])


def run():
    """Trains and evaluates by the flags.

    Returns:
        The run folder, the data, the history and a dict from protocols to
        reports, of which the first lies in the run folder itself.
    """
    folder, probe = common.prepare("finetune")
    common.print_device()
    scheduler = common.make_scheduler(FLAGS.schedule, FLAGS.seed)
    run_folders.write_config(
        folder,
        splits=common.splits_config(probe),
        evaluation=common.evaluation_config(),
    )
    classifier, data, history = training_run.train(
        scheduler, FLAGS.learning_rate, FLAGS.seed, folder
    )
    first = FLAGS.protocols[0]
    reports = {
        protocol: common.evaluate(
            classifier,
            data.test,
            protocol,
            folder=folder if protocol == first else folder / protocol,
            resume=FLAGS.resume,
        )
        for protocol in FLAGS.protocols
    }
    for name in ("curve.png", "curve.svg"):
        reports[first].plot(folder / name)
    epochs = len(history["epoch"])
    common.write_card(folder, reports[first], data, epochs=epochs)
    return folder, data, history, reports


def main(_):
    folder, _, history, reports = run()
    for report in reports.values():
        print(f"\n{report}")
    if history.get("verdict"):
        print(f"\n{history['verdict']} transfer: {history['advice']}")
    print(f"\n{caveats.text(reports)}")
    print(json.dumps({"run_folder": str(folder)}))


if __name__ == "__main__":
    refusals.run(main)
