"""Runs the cells of a grid on Ray, and gathers their results in one table."""

import contextlib
import dataclasses
import json
import os
import pathlib
import time

from keras_epsched import files, optional
from keras_epsched.configs.values import Card, Role, as_text, entries, value
from keras_epsched.runs import Config, ConfigError
from keras_epsched.runs import folder as run_folder
from keras_epsched.runs.checks import refusing
from keras_epsched.studies import cell as cells_of_a_study
from keras_epsched.studies import devices, grid, results
from keras_epsched.studies.grid import Cell
from keras_epsched.studies.progress import Progress

GRID = "study.json"
STATES = "cells.json"
RESULTS = "results.parquet"


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Study(Config):
    """The config of a study: a grid of fine-tunings.

    The grid is a TOML file. Its keys are the names of values of `Config`:

    ```toml
    [flags]              # values of all cells
    epochs = 50
    [grid]               # each combination of these values is a cell
    backbone = ["SWIN", "CNX"]
    epsilon = ["4/255", "8/255"]
    schedule = ["standard", "fixed", "scheduled", "12/50:30/50"]
    seed = [0, 1, 2]
    [[where]]            # other values for the cells that match
    match = {backbone = "CNX"}
    flags = {learning_rate = 1e-4}
    [[leave_out]]        # combinations that are not run
    backbone = "SWIN"
    schedule = "standard"
    ```

    Values of `Config` that are passed to `Study` apply to all cells.

    Example:
    ```python
    study = keras_epsched.studies.Study(
        study="reproduction/digits.toml", output="runs/digits", epochs=1
    )
    keras_epsched.studies.run(study)
    ```
    """

    study: str = value("", "TOML file of the grid.", card=Card.NEVER)
    retries: int = value(
        2, "Further attempts for a cell that fails.", Role.PLACE, at_least=0
    )
    cell_cpus: float = value(
        1.0,
        "CPU cores, and so threads, of a cell. Use several if a GPU waits for "
        "the data.",
        Role.PLACE,
    )
    cell_gpus: float | None = value(
        None,
        "GPUs of a cell, also a fraction of one; default: one if there are "
        "any.",
        Role.PLACE,
        at_least=0.0,
    )

    def given_to_cells(self) -> dict[str, str]:
        """Returns the values that apply to all cells, as texts."""
        own = {"output", "resume"}
        return {
            name: as_text(getattr(self, name))
            for name in entries(Config)
            if name in self.given - own and getattr(self, name) is not None
        }


@dataclasses.dataclass(frozen=True)
class Studied:
    """The result of a study. Print it to see which cells failed, and why.

    Args:
        folder: `pathlib.Path` of the run folder, which has results.parquet.
        cells: List of `Cell`s.
    """

    folder: pathlib.Path
    cells: list[Cell]

    @property
    def is_done(self) -> bool:
        """Whether all cells are done."""
        return all(cell.state == "done" for cell in self.cells)

    def __str__(self):
        from tabulate import tabulate

        rows = [
            (cell.name, cell.state, number, failure)
            for cell in self.cells
            for number, failure in enumerate(cell.failures, 1)
        ]
        done = [cell for cell in self.cells if cell.state == "done"]
        after = sum(bool(cell.failures) for cell in done)
        text = (
            f"{len(done)} of {len(self.cells)} cells are done, {after} of them "
            "after failures"
        )
        if not rows:
            return text
        headers = ("cell", "final state", "failure", "error")
        return f"{tabulate(rows, headers)}\n{text}"


def run(study: Study, *, command: str | None = None) -> Studied:
    """Runs a grid of fine-tunings, and gathers the results in one table.

    The run folder gets results.parquet, with one row for each cell, and a run
    folder for each cell.

    The cells are tasks of Ray, on this machine or on a cluster. For a cluster
    set RAY_ADDRESS, and use a run folder on a file system that all machines
    share. A cell that fails is started again and resumes, unless the error is
    in its values or data. To resume an interrupted study, set `study.resume`.
    Needs `pip install "keras-epsched[study]"`.

    Args:
        study: `Study`.
        command: String or `None`. The command to store in config.json.

    Returns:
        A `Studied`.

    Raises:
        ConfigError: If the file is not a grid, or the folder has another study.
    """
    with contextlib.ExitStack() as stack:
        with refusing():
            # A missing package is reported before anything is written.
            for name in ("ray", "rich", "pandas"):
                optional.package(
                    name, "a study", 'Or: pip install "keras-epsched[study]".'
                )
            cells = grid.read(study.study, study.given_to_cells())
            name = pathlib.Path(study.study).stem
            # No value is compared here: `_compare_with_stored` compares cells.
            folder, _ = stack.enter_context(
                run_folder.opened(study, name, command, tuple(entries(study)))
            )
            _compare_with_stored(study, cells, folder)
        folder = folder.resolve()
        states = {}
        with contextlib.suppress(FileNotFoundError):
            states = json.loads((folder / STATES).read_text("utf-8"))
        for cell in cells:
            cell.folder = folder / "cells" / cell.name
            cell.failures = states.get(cell.name, {}).get("failures", [])
            if (cell.folder / cells_of_a_study.OUTCOME).exists():
                cell.state = "done"
        print(f"{len(cells)} cells in {folder}", flush=True)
        with Progress(cells, folder / STATES) as progress:
            try:
                _run_cells(study, cells, progress)
            finally:
                _write_results(cells, folder / RESULTS)
    return Studied(folder, cells)


def _compare_with_stored(study, cells, folder):
    """Stores the cells. Raises an error if stored ones differ or are gone."""
    path = folder / GRID
    if path.exists():
        stored, begun = (
            json.loads(each.read_text(encoding="utf-8"))
            for each in (path, folder / run_folder.CONFIG)
        )
        now = {cell.name: cell for cell in cells}
        for cell in cells:
            # New cells have the defaults of those that are there.
            then = begun["flags"] | grid.expanded(cell.texts)
            cell.config = run_folder.with_earlier_defaults(cell.config, then)
        differ = [
            f"{name} ({', '.join(found)})"
            for name, texts in stored.items()
            if (found := _differing(texts, begun["flags"], now.get(name)))
        ]
        if differ:
            raise ConfigError(
                "`resume` continues a study with its own cells. A grid may "
                "gain cells, but not change or lose stored ones. Received: "
                f"{len(differ)} stored cells that are no longer there, or have "
                f"other values: {'; '.join(differ[:5])}. Restore them, or use "
                "another `output`"
            )
    files.write_json(path, {cell.name: cell.texts for cell in cells})


def _differing(texts, begun, cell):
    """Returns the differences that keep a stored cell from resuming, as texts.

    A value that a cell does not name has the default that it had when the study
    was begun.
    """
    if cell is None:
        return ["no longer there"]
    then = begun | grid.expanded(texts)
    return [
        f"{name}: stored {stored!r}, received {now!r}"
        for name, stored, now in run_folder.differences(cell.config, then)
    ]


def _run_cells(study, cells, progress):
    """Runs the cells that are not done, and starts failed ones again."""
    import ray

    ray.init(log_to_driver=False)
    resources = devices.resources(
        devices.nodes(), study.cell_cpus, study.cell_gpus, "cell"
    )
    # Each cell has its own process, whose end frees the memory of its networks.
    task = ray.remote(
        num_cpus=resources["cpu"],
        num_gpus=resources["gpu"],
        max_calls=1,
        max_retries=0,
    )(cells_of_a_study.run)

    def start(cell):
        cell.since = time.time()
        return task.remote(
            cell.config, str(cell.folder), os.getcwd(), resources
        )

    running = {start(cell): cell for cell in cells if cell.state != "done"}
    retries = dict.fromkeys((cell.name for cell in cells), study.retries)
    while running:
        ready, _ = ray.wait(list(running), timeout=1.0)
        for reference in ready:
            cell = running.pop(reference)
            try:
                ray.get(reference)
                cell.state = "done"
            except ray.exceptions.RayError as error:
                cell.failures.append(cells_of_a_study.in_short(error))
                # An error in values or data would occur again.
                wrong = isinstance(getattr(error, "cause", None), ValueError)
                if wrong or not retries[cell.name]:
                    cell.state = "failed"
                else:
                    retries[cell.name] -= 1
                    cell.state = "waiting"
                    running[start(cell)] = cell
            progress.changed(cell)
        progress.look()


def _write_results(cells, path):
    """Writes the results of the finished cells as one table."""
    rows = []
    for cell in cells:
        if cell.state == "done":
            config, found = (
                json.loads((cell.folder / name).read_text(encoding="utf-8"))
                for name in (run_folder.CONFIG, cells_of_a_study.OUTCOME)
            )
            # The texts of the grid, because paths differ between machines.
            values = {**config["flags"], **cell.texts}
            rows.append(results.row(cell.name, values, found))
    if rows:
        results.write(rows, path)
