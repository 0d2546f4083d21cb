"""One cell of a study, in a process of its own."""

import contextlib
import os
import pathlib
import time
import traceback

from keras_epsched import files, runs
from keras_epsched.studies import devices, results

OUTCOME = "result.json"


def run(
    config: runs.Config, folder: str, directory: str, resources: dict
) -> None:
    """Fine-tunes and evaluates one cell, or resumes it.

    Args:
        config: `Config` of the cell.
        folder: Path of the run folder. Its last file is result.json. The log is
            beside the folder.
        directory: Path that relative paths start from.
        resources: Dict of CPUs and GPUs, see `devices.resources`.
    """
    started = time.time()
    place = pathlib.Path(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.isdir(directory):
        os.chdir(directory)
    devices.share(resources)
    with (
        open(log_of(place), "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        # Code that is not Python writes to the descriptors directly.
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        try:
            result = runs.finetune(config.replace(output=folder, resume=True))
            for report in result.reports.values():
                print(report)
            seconds = time.time() - started
            outcome = results.outcome(result, seconds)
            files.write_json(place / OUTCOME, outcome)
        except BaseException:
            traceback.print_exc()
            raise


def log_of(folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of the log of a cell."""
    return folder.parent / f"{folder.name}.log"


def epochs_done(folder: pathlib.Path) -> int | None:
    """Returns the finished epochs of a cell, `None` if it has not begun."""
    with contextlib.suppress(OSError):
        text = (folder / "history.csv").read_text(encoding="utf-8")
        return max(text.count("\n") - 1, 0)
    return None


def has_begun(folder: pathlib.Path, since: float) -> bool:
    """Returns whether a cell has written to its log since a time."""
    with contextlib.suppress(OSError):
        return log_of(folder).stat().st_mtime > since
    return False


def in_short(error: BaseException) -> str:
    """Returns an error as one line of at most 500 characters."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(f"{type(cause).__name__}: {cause}".split())
    return text if len(text) <= 500 else f"{text[:497]}..."
