r"""Compares robust fine-tunings of one backbone by several epsilon schedules.

By default there are four: no attack ("standard"), the target epsilon from the
first step on ("fixed"), an epsilon that rises between two hinges ("scheduled",
arXiv 2509.23325), and one that rises above the target and comes back to it
("peak"). All have the same data, initial head, data order and learning rate.
Then the accuracy of each model is measured at every epsilon, by the default
attack and by the protocol of the paper.

The run folder gets the table, two pictures, and each model with its reports.

Examples:
  # The built-in demonstration, about a quarter of an hour on two CPU cores:
  python launch/compare.py
  # Three seeds, with mean and standard error:
  python launch/compare.py --seeds=3
  # Your data and backbone, as strong as in the paper:
  python launch/compare.py --dataset=stanford_dogs --download \
      --backbone=resnet_50_imagenet --image_size=224 --epsilon=4/255 \
      --epochs=50 --augment=flip,color,rotation --learning_rate=1e-4
  # Schedules that choose their own hinges, with another loss:
  python launch/compare.py --objective=trades \
      --schedule=fixed,scheduled,auto,paced
  # The time and the memory that it would take:
  python launch/compare.py --epochs=50 --estimate

With several values of --learning_rate, the best one is chosen first: by the
expected robustness of the fixed schedule on the validation images, with the
first seed. This favours the fixed schedule. To save time, the choice uses APGD
with 10 steps on the margin of probabilities in place of the default
--eval_attack.
"""

import app
import run_flags

from keras_epsched import runs

CONFIG = runs.Comparison
run_flags.define(CONFIG)
run_flags.define_estimate()


def main():
    config = run_flags.config(CONFIG)
    if run_flags.estimated(config):
        return
    result = runs.compare(config, command=run_flags.command())
    following = run_flags.as_command(
        "evaluate.py",
        config,
        run_flags.as_flag("model", result.model(result.best)),
        "--attack=autoattack",
    )
    app.finish(result.text(run_flags.as_flag), result.folder, following)


if __name__ == "__main__":
    app.run(main)
