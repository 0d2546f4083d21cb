r"""Runs a grid of fine-tunings, and gathers what comes out in one table.

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

Cells are tasks of Ray, on this machine or on a cluster (RAY_ADDRESS; the run
folder must then be on a file system that all machines share). One that fails
or dies is tried again and goes on where it was, unless flags or data are wrong;
--resume does the same for a study that was interrupted. Needs
`pip install -e ".[study]"`.

Leaves results.parquet, a row a cell, for report.py, beside a run folder for
each cell. Flags on the command line hold in all cells.

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
run_flags.define(CONFIG, required=("study",))


def main():
    result = studies.run(run_flags.config(CONFIG), command=run_flags.command())
    print(result)
    app.print_folder(result.folder)
    return int(not result.is_done)


if __name__ == "__main__":
    app.run(main)
