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

import contextlib
import json
import os
import pathlib
import sys
import time

import finetune  # noqa: F401  (its flags)
import ray_devices
import refusals
import run_folders
import study_cell
import study_grid
import study_results
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("study", None, "The grid, a TOML file.", required=True)
flags.DEFINE_integer(
    "retries", 2, "How often a cell is tried again.", lower_bound=0
)
flags.DEFINE_float(
    "cell_cpus",
    1.0,
    "CPU cores of a cell, which has as many threads; several where a GPU would "
    "wait for the data.",
)
flags.DEFINE_float(
    "cell_gpus",
    None,
    "GPUs, or the share of one, of a cell; default: one if there are any.",
    lower_bound=0.0,
)

# Of the study, not of its cells.
_OWN = ("study", "retries", "cell_cpus", "cell_gpus", "output", "resume")
# What says nothing of a result, or is said by the result itself.
_NO_COLUMNS = (
    *("data_dir", "deterministic", "monitors", "monitor_images", "protocols"),
    *run_folders.MAY_DIFFER,
)


def read_cells():
    """The cells of the grid, with the flags of the command line."""
    given = {
        name: study_grid.as_text(FLAGS[name].value)
        for name in run_folders.resolved_flags()
        if FLAGS[name].present and name not in _OWN
    }
    return study_grid.read(FLAGS.study, given)


def check_cells(cells):
    """Refuses flags that finetune.py does not have, or not with this value."""
    known = set(run_folders.resolved_flags()) - set(_OWN)
    for cell in cells:
        for name, value in cell.flags.items():
            if name not in known:
                raise ValueError(
                    f"{FLAGS.study}: {name!r} is not a flag of finetune.py"
                )
            try:
                FLAGS[name].parser.parse(os.path.expandvars(value))
            except ValueError as error:
                raise ValueError(
                    f"{FLAGS.study}: {name} = {value!r}: {error}"
                ) from error


class Progress:
    """The states of the cells: in a file, and in a table or line by line."""

    def __init__(self, cells, path):
        self.cells, self.path = cells, path
        self._live = None

    def __enter__(self):
        from rich.live import Live

        if sys.stdout.isatty():
            self._live = Live(self.table(), refresh_per_second=2)
            self._live.__enter__()
        return self

    def __exit__(self, *details):
        if self._live is not None:
            self._live.__exit__(*details)

    def table(self):
        """The cells that are not waiting, and how many there are of all."""
        from rich.table import Table

        counts = {}
        for cell in self.cells:
            counts[cell.state] = counts.get(cell.state, 0) + 1
        title = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table("cell", "state", "epoch", "failures", title=title)
        shown = [cell for cell in self.cells if cell.state != "waiting"]
        # What runs stands below what is done, and is always seen.
        shown.sort(key=lambda cell: cell.state == "running")
        for cell in shown[-30:]:
            epochs = study_cell.epochs_done(cell.folder)
            failures = len(cell.failures) or None
            table.add_row(
                cell.name,
                cell.state,
                *("" if n is None else str(n) for n in (epochs, failures)),
            )
        return table

    def look(self):
        """Sees which cells have begun."""
        for cell in self.cells:
            if cell.state == "waiting" and study_cell.has_begun(
                cell.folder, cell.since
            ):
                cell.state = "running"
        if self._live is not None:
            self._live.update(self.table())

    def changed(self, cell):
        """Writes the states, and tells of a cell."""
        states = {
            each.name: {"state": each.state, "failures": each.failures}
            for each in self.cells
        }
        run_folders.write_json(self.path, states)
        if self._live is None:
            done = sum(each.state == "done" for each in self.cells)
            text = f"[{done}/{len(self.cells)}] {cell.name}: {cell.state}"
            if cell.state == "waiting":
                text += " to be tried again"
            if cell.state != "done":
                log = study_cell.log_of(cell.folder)
                text += f", {cell.failures[-1]} (see {log})"
            print(text, flush=True)


def run_cells(cells, progress):
    """Runs what is not done, and again what fails."""
    import ray

    # Tasks find the launchers, wherever they run.
    path = [str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    ray.init(runtime_env={"env_vars": variables}, log_to_driver=False)
    resources = ray_devices.resources(
        ray_devices.nodes(), FLAGS.cell_cpus, FLAGS.cell_gpus, "cell"
    )
    # Each in a process of its own, for flags and memory are of a process.
    task = ray.remote(
        num_cpus=resources["cpu"],
        num_gpus=resources["gpu"],
        max_calls=1,
        max_retries=0,
    )(study_cell.run)

    def start(cell):
        cell.since = time.time()
        return task.remote(
            cell.arguments(), str(cell.folder), os.getcwd(), resources
        )

    running = {start(cell): cell for cell in cells if cell.state != "done"}
    retries = dict.fromkeys((cell.name for cell in cells), FLAGS.retries)
    while running:
        ready, _ = ray.wait(list(running), timeout=1.0)
        for reference in ready:
            cell = running.pop(reference)
            try:
                ray.get(reference)
                cell.state = "done"
            except ray.exceptions.RayError as error:
                cell.failures.append(study_cell.in_short(error))
                # What is wrong with flags or data stays wrong.
                wrong = isinstance(getattr(error, "cause", None), ValueError)
                if wrong or not retries[cell.name]:
                    cell.state = "failed"
                else:
                    retries[cell.name] -= 1
                    cell.state = "waiting"
                    running[start(cell)] = cell
            progress.changed(cell)
        progress.look()


def write_results(cells, path):
    """Writes what the cells have left, as one table."""
    import pandas as pd

    rows = []
    for cell in cells:
        if cell.state == "done":
            config, result = (
                json.loads((cell.folder / name).read_text(encoding="utf-8"))
                for name in ("config.json", "result.json")
            )
            # As the grid has them: paths differ from machine to machine.
            values = {**config["flags"], **cell.flags}
            values = {
                name: _value(name, value)
                for name, value in values.items()
                if name not in (*_NO_COLUMNS, *_OWN)
            }
            row = {"cell": cell.name, **values, **result}
            study_results.check_columns(row, cell.folder)
            rows.append(row)
    if rows:
        temporary = path.with_name(path.name + ".tmp")
        pd.DataFrame(rows).to_parquet(temporary)
        os.replace(temporary, path)


def _value(name, value):
    """A flag as a column has it: of its own type, a list as text."""
    if isinstance(value, str) and name in FLAGS:
        value = FLAGS[name].parser.parse(value)
    return study_results.as_column(value)


def open_folder(cells):
    """The folder of the study; new, or as it was left."""
    # What counts of the flags is in the cells, which are compared below.
    folder = run_folders.run_folder(
        pathlib.Path(FLAGS.study).stem, tuple(run_folders.resolved_flags())
    )
    grid = {cell.name: cell.flags for cell in cells}
    path = folder / "study.json"
    if path.exists():
        stored, begun = (
            json.loads(each.read_text(encoding="utf-8"))
            for each in (path, folder / "config.json")
        )
        differ = [
            f"{name} ({', '.join(found)})"
            for name in stored
            if (found := _differing(stored[name], begun, grid.get(name)))
        ]
        if differ:
            raise ValueError(
                "--resume continues a study with its own cells; the grid may "
                f"grow. Received: {len(differ)} stored cells that are no "
                "longer there, or have other flags: "
                f"{'; '.join(differ[:5])}"
            )
    run_folders.write_json(path, grid)
    return folder.resolve()


def _differing(stored, begun, given):
    """What keeps a stored cell from going on, in words.

    Flags that a cell does not give are at their defaults, which were others
    when a study was begun by an older version.
    """
    if given is None:
        return ["no longer there"]
    differ = []
    for name in sorted(set(run_folders.resolved_flags()) - set(_OWN)):
        then = run_folders.stored_flag(begun["flags"], name)
        then = _expanded(name, stored.get(name, then))
        now = _expanded(name, given.get(name, FLAGS[name].value))
        if then != now:
            differ.append(f"--{name}: stored {then!r}, received {now!r}")
    return differ


def _expanded(name, value):
    if isinstance(value, str):
        value = os.path.expandvars(value)
    return _value(name, value)


def main(_):
    with refusals.checking():
        try:
            import ray  # noqa: F401  (said before anything is written)
        except ImportError as error:
            raise ImportError(
                'a study needs Ray: pip install -e ".[study]"'
            ) from error
        cells = read_cells()
        check_cells(cells)
        folder = open_folder(cells)
    states = {}
    with contextlib.suppress(FileNotFoundError):
        states = json.loads((folder / "cells.json").read_text("utf-8"))
    for cell in cells:
        cell.folder = folder / "cells" / cell.name
        cell.failures = states.get(cell.name, {}).get("failures", [])
        if (cell.folder / "result.json").exists():
            cell.state = "done"
    print(f"{len(cells)} cells in {folder}", flush=True)
    with Progress(cells, folder / "cells.json") as progress:
        try:
            run_cells(cells, progress)
        finally:
            write_results(cells, folder / "results.parquet")
    print_outcome(cells)
    print(json.dumps({"run_folder": str(folder)}))
    return int(any(cell.state != "done" for cell in cells))


def print_outcome(cells):
    """Says what was tried again, and what failed."""
    from tabulate import tabulate

    rows = [
        (cell.name, cell.state, number, failure)
        for cell in cells
        for number, failure in enumerate(cell.failures, 1)
    ]
    if rows:
        print(tabulate(rows, ("cell", "in the end", "failure", "of what")))
    done = [cell for cell in cells if cell.state == "done"]
    after = sum(bool(cell.failures) for cell in done)
    print(
        f"{len(done)} of {len(cells)} cells are done, {after} of them after "
        "failures",
        flush=True,
    )


if __name__ == "__main__":
    refusals.run(main)
