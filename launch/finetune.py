r"""Fine-tunes one backbone robustly by one schedule, and evaluates it.

The run folder gets the model, its history, reports, curve and model card.

Examples:
  # The built-in demonstration:
  python launch/finetune.py
  # Your photos and backbone:
  python launch/finetune.py --dataset=/data/flowers --image_size=224 \
      --backbone=resnet_50_imagenet --epsilon=4/255 --epochs=50 \
      --learning_rate=1e-4 --augment=flip,color,rotation --output=runs/flowers
  # Without a schedule, at the target from the first step on:
  python launch/finetune.py --schedule=fixed --epsilon=8/255
  # The time and the memory that it would take here; and on another card:
  python launch/finetune.py --epochs=50 --estimate --memory_gb=15
  python launch/finetune.py --epochs=50 --estimate --card=T4
  # Also measured as in the paper, in the folder `paper` of the run folder:
  python launch/finetune.py --protocols=nested,paper
  # On a machine that may stop: the same command again resumes the run.
  python launch/finetune.py --output=runs/digits --resume --backup_minutes=5
"""

import app
import run_flags

from keras_epsched import runs
from keras_epsched.configs.values import Group

CONFIG = runs.Config
run_flags.define(CONFIG)
run_flags.define_estimate()


def main():
    config = run_flags.config(CONFIG)
    if run_flags.estimated(config):
        return
    result = runs.finetune(config, command=run_flags.command())
    if result.history.get("verdict") == "undecided":
        # A standard fine-tuning is missing.
        following = run_flags.as_command("compare.py", config, groups=(*Group,))
    else:
        model = result.folder / "model.keras"
        following = run_flags.as_command(
            "evaluate.py",
            config,
            run_flags.as_flag("model", model),
            "--attack=autoattack",
        )
    app.finish(result.text(run_flags.as_flag), result.folder, following)


if __name__ == "__main__":
    app.run(main)
