"""The states of the cells of a study, stored in a file and shown."""

import pathlib
import sys

from keras_epsched import files
from keras_epsched.studies import cell as cells_of_a_study
from keras_epsched.studies.grid import Cell

# Most rows that the table on a terminal shows.
_SHOWN = 30


class Progress:
    """Shows the progress of a study: a table on a terminal, lines elsewhere.

    Args:
        cells: List of `Cell`s.
        path: Path of the file that stores their states.
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
        """Returns a table of the cells that have begun."""
        from rich.table import Table

        counts = {}
        for cell in self.cells:
            counts[cell.state] = counts.get(cell.state, 0) + 1
        title = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table("cell", "state", "epoch", "failures", title=title)
        shown = [cell for cell in self.cells if cell.state != "waiting"]
        # Running cells come last, so that they are always among those shown.
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
        """Updates which cells have begun, and the table."""
        for cell in self.cells:
            if cell.state == "waiting" and cells_of_a_study.has_begun(
                cell.folder, cell.since
            ):
                cell.state = "running"
        if self._live is not None:
            self._live.update(self.table())

    def changed(self, cell: Cell) -> None:
        """Stores the states of all cells, and prints that of one."""
        states = {
            each.name: {"state": each.state, "failures": each.failures}
            for each in self.cells
        }
        files.write_json(self.path, states)
        if self._live is None:
            done = sum(each.state == "done" for each in self.cells)
            text = f"[{done}/{len(self.cells)}] {cell.name}: {cell.state}"
            if cell.state == "waiting":
                text += " for another attempt"
            if cell.state != "done":
                log = cells_of_a_study.log_of(cell.folder)
                text += f", {cell.failures[-1]} (see {log})"
            print(text, flush=True)
