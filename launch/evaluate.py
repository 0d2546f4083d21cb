r"""Measures the robustness of saved classifiers on a dataset.

The run folder gets report.html to look at, report.json, per_image.parquet and
the curve. With several models, each has a folder of its own.

Examples:
  python launch/evaluate.py --model=runs/NAME/seed0/scheduled/model.keras
  # Two models side by side, by the attack that papers report:
  python launch/evaluate.py --attack=autoattack \
      --model=runs/NAME/seed0/fixed/model.keras \
      --model=runs/NAME/seed0/scheduled/model.keras
  # If tenths of a point matter:
  python launch/evaluate.py --attack=margin_ensemble-thorough --model=...
  # A preset with its own head, on the classes that it was trained on, by the
  # protocol of the paper, whose accuracies are a loose upper bound:
  python launch/evaluate.py --model=resnet_letters --dataset=letters \
      --epsilon=0.1 --protocol=paper
  # A curve beyond the target. The same command again resumes it:
  python launch/evaluate.py --model=... --epsilon=4/255 \
      --epsilons=1/255,2/255,4/255,8/255,16/255 --output=runs/far --resume
  # A large test set, shared by eight processes (pip install -e ".[study]"):
  python launch/evaluate.py --model=... --workers=8
"""

import app
import run_flags
from absl import flags

from keras_epsched import studies
from keras_epsched.configs.values import Group

CONFIG = studies.SharedEvaluation
run_flags.define(
    CONFIG,
    "Workers",
    required=("model",),
    repeated=("model",),
    # Values of a training.
    unused=(
        Group.ADAPTATION,
        Group.ATTACK,
        Group.TRAINING,
        Group.MONITORS,
        *("backbone", "backup_minutes"),
    ),
)
flags.DEFINE_alias("attack", "eval_attack")


def main():
    result = studies.evaluate(
        run_flags.config(CONFIG), command=run_flags.command()
    )
    app.finish(result.text(run_flags.as_flag), result.folder)


if __name__ == "__main__":
    app.run(main)
