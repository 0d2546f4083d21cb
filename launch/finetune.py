r"""Robust fine-tuning of one backbone by one schedule, then its evaluation.

Examples:
  python launch/finetune.py --schedule=scheduled
  python launch/finetune.py --dataset=/data/flowers --image_size=224 \
      --backbone=resnet_50_imagenet --epsilon=4/255 --epochs=50 \
      --learning_rate=1e-4 --augment=flip,color,rotation --output=runs/flowers
  python launch/finetune.py --schedule=fixed --epsilon=8/255
  # What it would take, before hours are spent; and on another card:
  python launch/finetune.py --epochs=50 --estimate --memory_gb=15
  python launch/finetune.py --epochs=50 --estimate --card=T4
  # Measured as in the paper too, in the folder `paper` of the run folder:
  python launch/finetune.py --protocols=nested,paper
  # On a machine that may disappear: the same command again goes on exactly.
  python launch/finetune.py --output=runs/digits --resume --backup_minutes=5
"""

import app
import run_flags

from keras_epsched import runs

CONFIG = runs.Config
run_flags.define(CONFIG)
run_flags.define_estimate()


def main():
    config = run_flags.config(CONFIG)
    if run_flags.estimated(config):
        return
    result = runs.finetune(config, command=run_flags.command())
    print(f"\n{result.text(run_flags.as_flag)}")
    app.print_folder(result.folder)


if __name__ == "__main__":
    app.run(main)
