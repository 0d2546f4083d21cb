r"""Compares standard, fixed-epsilon and scheduled robust fine-tuning.

Fine-tunes one non-robust backbone once by each schedule, on the same data,
with the same head initialisation, data order and learning rate: without any
attack, with the target epsilon from the first step on ("fixed"), and with
epsilon ramped between two hinges ("scheduled", arXiv 2509.23325), or by the
--schedules given. Then measures the accuracy of all at every epsilon, by the
default attack and by the protocol of the paper, and draws two pictures.

Examples:
  # The built-in demonstration, about ten minutes on two CPU cores:
  python launch/compare.py
  # Three seeds, with mean and standard error:
  python launch/compare.py --seeds=3
  # Your data and backbone, at the paper's strength:
  python launch/compare.py --dataset=stanford_dogs --download \
      --backbone=resnet_50_imagenet --image_size=224 --epsilon=4/255 \
      --epochs=50 --augment=flip,color,rotation --learning_rates=1e-4
  # Schedules that find their hinges themselves, under another objective:
  python launch/compare.py --objective=trades \
      --schedules=fixed,scheduled,auto,paced
  # The numbers of the paper's protocol alone:
  python launch/compare.py --protocols=paper

With several --learning_rates the best is chosen first, for the FIXED arm, by
its expected robustness on the validation split with the first seed: the
comparison favours the baseline. To rank them, APGD with 10 steps on the margin
of probabilities stands in for the default --eval_attack. Without
--learning_rates, that of a --recipe is taken. The default is what that choice
gave on the built-in demonstration, by APGD with 10 steps on cross-entropy:

  | rate | fixed: clean | fixed: expected robustness (validation) |
  |---|---|---|
  | 1e-4 | 30.1 % | 0.019 |
  | 3e-4 | 73.0 % | 0.077 |
  | 1e-3 | 76.8 % | 0.284 |
  | 3e-3 | 62.9 % | 0.374 |
  | 1e-2 | 48.6 % | 0.312 |
  | 3e-2 | 51.4 % | 0.265 |
  | 1e-1 |  5.4 % | 0.054 |

With --attack_mode=inference the best of the same seven is 3e-2 (52.5 %, 0.363).
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
    print(f"\n{result.text(run_flags.as_flag)}")
    app.print_folder(result.folder)


if __name__ == "__main__":
    app.run(main)
