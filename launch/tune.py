r"""Searches learning rate and weight decay, and writes the best as a recipe.

Trials draw both at random and are stopped early by ASHA, in Ray Tune. Each has
a budget of time. As in the paper (arXiv 2509.23325), by default the clean
validation accuracy of the fixed schedule decides; the paper searched in
[1e-5, 1e-1] with 30 minutes a trial, and used the result for the scheduled
training as well. The same --seed draws the same values. Each trial has a GPU
of its own if there are any; with --trial_gpus=0.5, two trials share one. Needs
`pip install -e ".[study]"`.

Examples:
  python launch/tune.py --trials=8 --epochs=10 --output=runs/search
  # Resume a search that was interrupted. Trials that were under way start
  # again. Flags must be as before, except for time and what a trial occupies:
  python launch/tune.py --trials=8 --epochs=10 --output=runs/search --resume
  # Train with the best values:
  python launch/finetune.py --recipe=runs/search/recipe.json
"""

import app
import run_flags

from keras_epsched import studies

CONFIG = studies.Search
run_flags.define(CONFIG, "Search")


def main():
    result = studies.search(
        run_flags.config(CONFIG), command=run_flags.command()
    )
    print(result)
    app.print_folder(result.folder)


if __name__ == "__main__":
    app.run(main)
