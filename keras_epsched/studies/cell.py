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
    """Fine-tunes and evaluates by a config, or resumes that.

    Args:
        config: `Config` of the cell.
        folder: The run folder, which gets result.json last; beside it lies
            the log.
        directory: Where relative paths begin.
        resources: What Ray lends, see `devices.resources`.
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
        # What is not Python writes there as well.
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
    """Returns where a cell writes what it prints."""
    return folder.parent / f"{folder.name}.log"


def epochs_done(folder: pathlib.Path) -> int | None:
    """Returns the epochs of a cell so far, `None` before it has begun."""
    with contextlib.suppress(OSError):
        text = (folder / "history.csv").read_text(encoding="utf-8")
        return max(text.count("\n") - 1, 0)
    return None


def has_begun(folder: pathlib.Path, since: float) -> bool:
    """Whether a cell has written since a time."""
    with contextlib.suppress(OSError):
        return log_of(folder).stat().st_mtime > since
    return False


def in_short(error: BaseException) -> str:
    """Returns what went wrong, on one line; the log has the rest."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(f"{type(cause).__name__}: {cause}".split())
    return text if len(text) <= 500 else f"{text[:497]}..."
