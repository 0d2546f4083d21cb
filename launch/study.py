r"""Runs a grid of fine-tunings, and gathers the results in one table.

The grid is a TOML file. Every key is a flag of finetune.py:

  [flags]              # the same in all cells
  epochs = 50
  [grid]               # each combination of these values is a cell
  backbone = ["SWIN", "CNX"]
  dataset = ["stanford_cars", "fgvc_aircraft"]
  epsilon = ["4/255", "8/255"]
  schedule = ["standard", "fixed", "scheduled", "random", "12/50:30/50"]
  objective = ["adversarial", "trades"]
  seed = [0, 1, 2]
  [[where]]            # in cells that match, other flags
  match = {backbone = "CNX"}
  flags = {learning_rate = 1e-4}
  [[leave_out]]        # combinations that are not run
  backbone = "SWIN"
  schedule = "random"

Flags of the command line are the same in all cells. Cells are tasks of Ray, on
this machine or on a cluster (set RAY_ADDRESS; all machines must then share the
file system of the run folder). A cell that fails is tried again and resumes,
unless its flags or data are wrong. --resume resumes a study that was
interrupted. Needs `pip install -e ".[study]"`.

The run folder gets results.parquet, with a row for each cell, for report.py,
and a run folder for each cell.

Examples:
  python launch/study.py --study=reproduction/digits.toml --output=runs/digits
  # A first look:
  python launch/study.py --study=reproduction/digits.toml --epochs=1
  python launch/study.py --study=reproduction/digits.toml \
      --output=runs/digits --resume
  python launch/report.py --results=runs/digits/results.parquet
"""

import app
import run_flags

from keras_epsched import studies

CONFIG = studies.Study
run_flags.define(CONFIG, "Study", required=("study",))


def main():
    result = studies.run(run_flags.config(CONFIG), command=run_flags.command())
    print(result)
    app.print_folder(result.folder)
    return int(not result.is_done)


if __name__ == "__main__":
    app.run(main)
