r"""Searches learning rate and weight decay, and writes the best as a recipe.

Trials are drawn at random and stopped early by ASHA, in Ray Tune, each within
a budget of time, as in the paper (arXiv 2509.23325): there by clean validation
accuracy, in [1e-5, 1e-1], 30 minutes a trial, for the fixed epsilon, whose
choice the schedule then uses as well. Draws repeat with the same --seed. Each
trial has a GPU of its own where there are any; --trial_gpus=0.5 puts two on
one. Needs `pip install -e ".[study]"`.

Examples:
  python launch/tune.py --trials=8 --epochs=10 --output=runs/search
  # Continue what was interrupted; trials that were under way start again. All
  # flags must be as before, but those of time and of what a trial occupies:
  python launch/tune.py --trials=8 --epochs=10 --output=runs/search --resume
  # The best of it:
  python launch/finetune.py --recipe=runs/search/recipe.json
"""

import app
import run_flags

from keras_epsched import studies

CONFIG = studies.Search
run_flags.define(CONFIG)


def main():
    result = studies.search(
        run_flags.config(CONFIG), command=run_flags.command()
    )
    print(result)
    app.print_folder(result.folder)


if __name__ == "__main__":
    app.run(main)
