"""Results of a study: a row a cell, written and read by one definition.

A row has what came out of a cell, how that was measured, and the values of its
config that tell one fine-tuning from another. What is not here is neither
written nor read: a column that no one knows would make a setting of its own of
every row.
"""

import pathlib
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from keras_epsched import files, optional
from keras_epsched.configs.values import as_text, entries
from keras_epsched.runs import Config, Finetuned
from keras_epsched.runs.prepare import splits_of

# What came out.
OUTCOMES = (
    *("cell", "num_classes", "training_images", "test_images", "clean"),
    *("at_target", "expected_robustness", "expected_low", "expected_high"),
    *("onset", "epsilons", "accuracy", "validation_accuracy"),
    *("training_epsilon", "seconds"),
)
# Of the paper's protocol, where it is beside another.
PAPER_MEASURES = ("at_target_paper", "expected_robustness_paper")
# How it was measured. Results that do not say so are older than the choice.
MEASURED = {
    "backend": "tensorflow",
    "protocol": "nested",
}
# Without these a table is no table of results.
_NEEDED = (
    *("dataset", "backbone", "epsilon", "norm", "schedule", "seed"),
    *("epochs", *OUTCOMES),
)


def value_columns() -> dict[str, object]:
    """Names of the columns of values, with what they are in older results."""
    columns = {
        name: as_column(entry.before)
        for name, entry in entries(Config).items()
        if entry.about.has_column
    }
    return {**dict(sorted(columns.items())), **MEASURED}


def as_column(value):
    """Returns a value as a column has it: a list is a text."""
    return as_text(value) if isinstance(value, (list, tuple)) else value


def outcome(result: Finetuned, seconds: float) -> dict:
    """Returns what a row has besides the values of its config.

    The numbers are those of the first protocol. Where that of the paper is
    another, its own stand beside them.

    Args:
        result: `Finetuned`.
        seconds: Float. How long the attempt took that ended the cell.
    """
    protocol, report = next(iter(result.reports.items()))
    low, high = report.expected_robustness_interval()
    # What measured, whatever the config says of other protocols.
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
    }


def row(cell: str, values: Mapping, found: Mapping) -> dict:
    """Returns the row of a cell.

    Args:
        cell: String. Its name.
        values: Mapping, the values of its config, some as texts.
        found: Mapping, as `outcome` returned it.

    Raises:
        ValueError: If there is anything that is not of the schema.
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
    """Refuses columns that are not of the schema.

    Args:
        names: Names of columns.
        source: String. Where they are from, for the message.

    Raises:
        ValueError: If there is another one.
    """
    known = {*OUTCOMES, *PAPER_MEASURES, *value_columns()}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(
            f"{source} has columns that are neither an outcome nor a value of "
            f"a config: {unknown}. Remove them, or, if a newer version wrote "
            "them, use that version. A new outcome is named in "
            "keras_epsched/studies/results.py, a new value in "
            "keras_epsched/configs/config.py."
        )


def completed(frame, path):
    """Returns results with all the columns of the schema.

    Args:
        frame: `pandas.DataFrame`, as it was read.
        path: Path it was read from, for messages.

    Raises:
        ValueError: If it holds no results of a study, or others as well.
    """
    lacks = set(_NEEDED) - set(frame)
    if lacks or frame.empty:
        raise ValueError(
            f"{path} is no file of results of a study: it lacks "
            f"{sorted(lacks) or 'rows'}"
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
    """Columns that tell one fine-tuning from another, but schedule and seed."""
    return [
        name
        for name in frame
        if name in set(value_columns()) - {"schedule", "seed"}
    ]


def read(*paths: str | pathlib.Path):
    """Reads results, of one study or of several that belong together.

    Returns:
        A `pandas.DataFrame`, a row a cell, with more columns. `setting`, a
        tuple, is the same for cells that differ in schedule and seed alone,
        `task` for those that differ in epsilon as well; `delay` and `half`
        are epochs.

    Raises:
        ValueError: If a file holds no results or unknown columns, or a cell is
            there twice.
    """
    pd = optional.package("pandas", "a report on results")
    frames = []
    for path in paths:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} is no file of results: {error}"
            ) from error
        frames.append(completed(frame, path))
    frame = pd.concat(frames, ignore_index=True)
    flags = frame[settings(frame)].astype(object)
    # Equal from row to row, whatever stands for nothing.
    flags = flags.where(flags.notna(), "")
    for name, without in (("setting", ()), ("task", ("epsilon",))):
        kept = flags.drop(columns=list(without))
        frame[name] = list(kept.itertuples(index=False, name=None))
    twice = frame.duplicated(["setting", "schedule", "seed"])
    if twice.any():
        raise ValueError(
            "results of the same fine-tuning are there twice: "
            f"{', '.join(frame[twice]['cell'].head(3))}. Name each file once."
        )
    # As in the paper: those that never adapt count as the whole training.
    frame["delay"] = frame["onset"].fillna(frame["epochs"])
    frame["half"] = [_half(frame, row) for row in frame.itertuples()]
    return frame


def _half(frame, row):
    """First epoch with half of what standard fine-tuning reaches."""
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
