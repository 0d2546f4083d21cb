"""Results of a study: a table with one row for each cell.

A row has the outcome of a cell, how it was measured, and the values of the
config that distinguish fine-tunings. This file defines all columns. Unknown
columns are refused, because each of their values would count as another
setting.
"""

import pathlib
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from keras_epsched import files, optional
from keras_epsched.configs.values import as_text, entries
from keras_epsched.runs import Config, Finetuned
from keras_epsched.runs.prepare import splits_of

# Outcomes of a cell.
OUTCOMES = (
    *("cell", "num_classes", "training_images", "test_images", "clean"),
    *("at_target", "expected_robustness", "expected_low", "expected_high"),
    *("onset", "epsilons", "accuracy", "validation_accuracy"),
    *("training_epsilon", "seconds"),
)
# Passes of single images in the evaluation by all protocols, with the
# self-checks. Older results do not have it.
EVALUATION_PASSES = "evaluation_passes"
# Measured by the paper's protocol, if that is not the only protocol.
PAPER_MEASURES = ("at_target_paper", "expected_robustness_paper")
# How a cell was measured, with the values of results that do not say so.
MEASURED = {
    "backend": "tensorflow",
    "protocol": "nested",
}
# A table of results has at least these columns.
_NEEDED = (
    *("dataset", "backbone", "epsilon", "norm", "schedule", "seed"),
    *("epochs", *OUTCOMES),
)


def value_columns() -> dict[str, object]:
    """Returns the columns of values.

    Returns:
        A dict from names to the values that hold in older results, which do not
        have the column.
    """
    columns = {
        name: as_column(entry.before)
        for name, entry in entries(Config).items()
        if entry.about.has_column
    }
    return {**dict(sorted(columns.items())), **MEASURED}


def as_column(value):
    """Returns a value as it is stored in a column: a list becomes a text."""
    return as_text(value) if isinstance(value, (list, tuple)) else value


def outcome(result: Finetuned, seconds: float) -> dict:
    """Returns the outcome of a cell, and how it was measured.

    The numbers are those of the first protocol. If the paper's protocol was
    used as well, its numbers have columns of their own.

    Args:
        result: `Finetuned`.
        seconds: Float. Duration of the attempt that finished the cell.

    Returns:
        A dict from names of columns to values.
    """
    protocol, report = next(iter(result.reports.items()))
    low, high = report.expected_robustness_interval()
    # The config may name further protocols.
    measured = {"protocol": protocol, "bisect": report.bisect}
    if protocol == "paper":
        measured |= {"eval_attack": "apgd", "eval_steps": None}
    elif "paper" in result.reports:
        paper = result.reports["paper"]
        measured |= {
            "at_target_paper": paper.accuracy_at(paper.target_epsilon),
            "expected_robustness_paper": paper.expected_robustness(),
        }
    return {
        **measured,
        "backend": keras.backend.backend(),
        "num_classes": result.data.num_classes,
        "training_images": splits_of(result.data)["train"]["num_examples"],
        "test_images": report.num_images,
        "clean": report.clean_accuracy,
        "at_target": report.accuracy_at(report.target_epsilon),
        "expected_robustness": report.expected_robustness(),
        "expected_low": low,
        "expected_high": high,
        "onset": result.history["onset"],
        "epsilons": report.epsilons.tolist(),
        "accuracy": report.accuracy.tolist(),
        "validation_accuracy": result.history["val_accuracy"],
        "training_epsilon": result.history["epsilon"],
        "seconds": seconds,
        EVALUATION_PASSES: sum(map(_passes, result.reports.values())),
    }


def _passes(report):
    return (
        report.forward_passes
        + report.backward_passes
        + report.check_forward_passes
        + report.check_backward_passes
    )


def row(cell: str, values: Mapping, found: Mapping) -> dict:
    """Returns the row of a cell.

    Args:
        cell: String. Name of the cell.
        values: Mapping of the values of the config, which may be texts.
        found: Mapping, see `outcome`.

    Returns:
        A dict from names of columns to values.

    Raises:
        ValueError: If a column is unknown.
    """
    known = entries(Config)
    columns = {
        name: as_column(known[name].parse(values[name]))
        for name in values
        if name in known and known[name].about.has_column
    }
    made = {"cell": cell, **columns, **found}
    check_columns(made, f"the cell {cell}")
    return made


def write(rows: list[dict], path: str | pathlib.Path) -> None:
    """Writes rows as one table."""
    pd = optional.package("pandas", "the results of a study")
    with files.written_whole(path) as temporary:
        pd.DataFrame(rows).to_parquet(temporary)


def check_columns(names: Iterable[str], source: str) -> None:
    """Raises an error for unknown columns.

    Args:
        names: Names of columns.
        source: String. Where the columns are from, for the message.

    Raises:
        ValueError: If a column is unknown.
    """
    known = {*OUTCOMES, EVALUATION_PASSES, *PAPER_MEASURES, *value_columns()}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(
            f"{source} has columns that are neither an outcome nor a value of "
            f"a config: {unknown}. Remove them. If a newer version of "
            "keras_epsched wrote them, use that version. To add an outcome, "
            "see keras_epsched/studies/results.py; to add a value, see "
            "keras_epsched/configs/config.py."
        )


def completed(frame, path):
    """Returns results with all columns, also those that older files lack.

    Args:
        frame: `pandas.DataFrame` of a file of results.
        path: Path of the file, for messages.

    Raises:
        ValueError: If a needed column is missing, or a column is unknown.
    """
    lacks = set(_NEEDED) - set(frame)
    if lacks or frame.empty:
        raise ValueError(
            f"{path} is no file of results of a study: it lacks "
            f"{sorted(lacks) or 'rows'}. Expected results.parquet, which "
            "launch/study.py writes"
        )
    check_columns(frame, path)
    frame = frame.copy()
    for name, value in value_columns().items():
        if name not in frame:
            frame[name] = value
        elif value is not None and frame[name].isna().any():
            found = frame[name].astype(object)
            frame[name] = found.where(found.notna(), value)
    return frame


def settings(frame) -> list[str]:
    """Returns the columns that distinguish fine-tunings.

    Schedule and seed are not among them.
    """
    return [
        name
        for name in frame
        if name in set(value_columns()) - {"schedule", "seed"}
    ]


def read(*paths: str | pathlib.Path):
    """Reads the results of a study from one file or several.

    Returns:
        A `pandas.DataFrame` with one row for each cell and four more columns:

        - `setting`, a tuple: equal for cells that differ only in schedule and
          seed;
        - `task`, a tuple: equal for cells that differ only in schedule, seed
          and epsilon;
        - `delay`: the epoch of the onset;
        - `half`: the first epoch with half of the validation accuracy that
          standard fine-tuning ends with.

    Raises:
        ValueError: If a file holds no results, a column is unknown, or a cell
            appears twice.
    """
    pd = optional.package("pandas", "a report on results")
    frames = []
    for path in paths:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} is no file of results: {error}. Expected "
                "results.parquet, which launch/study.py writes"
            ) from error
        frames.append(completed(frame, path))
    frame = pd.concat(frames, ignore_index=True)
    flags = frame[settings(frame)].astype(object)
    # NaN is not equal to itself, so cells without a value get "".
    flags = flags.where(flags.notna(), "")
    for name, without in (("setting", ()), ("task", ("epsilon",))):
        kept = flags.drop(columns=list(without))
        frame[name] = list(kept.itertuples(index=False, name=None))
    twice = frame.duplicated(["setting", "schedule", "seed"])
    if twice.any():
        raise ValueError(
            "the results have the same fine-tuning twice: "
            f"{', '.join(frame[twice]['cell'].head(3))}. Name each file once."
        )
    # As in the paper, a run that never adapts counts with all its epochs.
    frame["delay"] = frame["onset"].fillna(frame["epochs"])
    frame["half"] = [_half(frame, row) for row in frame.itertuples()]
    return frame


def _half(frame, row):
    """Returns the first epoch with half of the final standard accuracy."""
    standard = frame[
        (frame["schedule"] == "standard")
        & (frame["seed"] == row.seed)
        & (frame["task"] == row.task)
    ]
    if standard.empty:
        return np.nan
    final = standard["validation_accuracy"].iloc[0][-1]
    above = np.asarray(row.validation_accuracy) >= final / 2
    return 1 + int(np.argmax(above)) if above.any() else row.epochs
