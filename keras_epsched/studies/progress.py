"""The states of the cells of a study, in a file and before the eyes."""

import pathlib
import sys

from keras_epsched import files
from keras_epsched.studies import cell as cells_of_a_study
from keras_epsched.studies.grid import Cell

# Rows of the table that is kept up to date.
_SHOWN = 30


class Progress:
    """Tells how far a study is: a table on a terminal, elsewhere lines.

    Args:
        cells: List of `Cell`.
        path: Path of the file that keeps their states.
    """

    def __init__(self, cells: list[Cell], path: pathlib.Path):
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
        """Returns the cells that are not waiting, and how many there are."""
        from rich.table import Table

        counts = {}
        for cell in self.cells:
            counts[cell.state] = counts.get(cell.state, 0) + 1
        title = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table("cell", "state", "epoch", "failures", title=title)
        shown = [cell for cell in self.cells if cell.state != "waiting"]
        # What runs stands below what is done, and is always seen.
        shown.sort(key=lambda cell: cell.state == "running")
        for cell in shown[-_SHOWN:]:
            epochs = cells_of_a_study.epochs_done(cell.folder)
            failures = len(cell.failures) or None
            table.add_row(
                cell.name,
                cell.state,
                *("" if n is None else str(n) for n in (epochs, failures)),
            )
        return table

    def look(self) -> None:
        """Sees which cells have begun."""
        for cell in self.cells:
            if cell.state == "waiting" and cells_of_a_study.has_begun(
                cell.folder, cell.since
            ):
                cell.state = "running"
        if self._live is not None:
            self._live.update(self.table())

    def changed(self, cell: Cell) -> None:
        """Writes the states, and tells of a cell."""
        states = {
            each.name: {"state": each.state, "failures": each.failures}
            for each in self.cells
        }
        files.write_json(self.path, states)
        if self._live is None:
            done = sum(each.state == "done" for each in self.cells)
            text = f"[{done}/{len(self.cells)}] {cell.name}: {cell.state}"
            if cell.state == "waiting":
                text += " to be tried again"
            if cell.state != "done":
                log = cells_of_a_study.log_of(cell.folder)
                text += f", {cell.failures[-1]} (see {log})"
            print(text, flush=True)
