"""The two files of a saved report: `report.json` and `per_image.parquet`."""

import hashlib
import json
import pathlib

import numpy as np

from keras_epsched import files
from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports.fields import ALWAYS, LATER, names

REPORT = "report.json"
PER_IMAGE = "per_image.parquet"
_FORMAT = "keras_epsched.report/2"


def plain(value, name: str):
    """Returns `value` with only the types that JSON can store.

    Args:
        value: Nested dicts, sequences, strings and numbers. NumPy types are
            allowed.
        name: String. Name of the value in error messages.

    Returns:
        The same nested value, made only of Python's own types.

    Raises:
        ValueError: If `value` contains anything that JSON cannot store.
    """

    def unwrap(leaf):
        if isinstance(leaf, (np.generic, np.ndarray)):
            return leaf.tolist()
        raise TypeError(f"{leaf!r} of {type(leaf)}")

    try:
        return json.loads(json.dumps(value, default=unwrap))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must consist of dicts, lists, strings and numbers, "
            f"because it is saved as JSON. Received: {error}"
        ) from error


def save(report, folder: pathlib.Path) -> None:
    """Writes both files of `report` into `folder`.

    Each file is complete or absent. A checksum in `report.json` shows if an
    interruption left the two files of different reports.

    Args:
        report: A `Report`.
        folder: Path of the folder. It is created if it does not exist.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def lists(matrix):
        offsets = np.arange(len(matrix) + 1, dtype="int32") * matrix.shape[1]
        return pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel()))

    table = pa.table(
        {
            "image": report.image_ids,
            "label": report.labels,
            "prediction": report.predictions,
            "critical_epsilon": report.critical_epsilon,
            "correct": lists(report.correct),
            "broken_by": lists(report.broken_by),
        }
    )
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer)
    per_image = buffer.getvalue().to_pybytes()
    files.write(folder / PER_IMAGE, per_image)
    text = json.dumps(_summary(report, per_image), indent=2, allow_nan=False)
    files.write(folder / REPORT, text + "\n")


def load(report_class: type, folder: pathlib.Path) -> dict:
    """Reads both files from `folder`.

    Args:
        report_class: `Report`, whose fields the files hold.
        folder: Path of the folder given to `save`.

    Returns:
        A dict of the arguments of `Report`.

    Raises:
        FileNotFoundError: If one of the two files is missing.
        ValueError: If the files were not written by `save`, or not together.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for name in (REPORT, PER_IMAGE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} does not contain a report: the file {name} is "
                "missing. Pass the folder that was given to `Report.save`."
            )
    try:
        summary = json.loads((folder / REPORT).read_bytes())
    except ValueError:
        summary = None
    if not isinstance(summary, dict) or summary.get("format") != _FORMAT:
        raise ValueError(
            f"{folder / REPORT} was not written by `Report.save`. Expected: a "
            f"JSON object with `format` {_FORMAT!r}"
        )
    always = names(report_class, saved=ALWAYS)
    later = names(report_class, saved=LATER)
    missing = [
        name
        for name in (*always, "epsilons", "per_image_sha256")
        if name not in summary
    ]
    if missing:
        raise ValueError(
            f"{folder / REPORT} was changed after `Report.save` wrote it: "
            f"the entries {missing} are missing. Restore the file, or "
            "evaluate again."
        )
    per_image = (folder / PER_IMAGE).read_bytes()
    if hashlib.sha256(per_image).hexdigest() != summary["per_image_sha256"]:
        raise ValueError(
            f"{folder / PER_IMAGE} does not belong to the {REPORT} in the "
            "same folder: its checksum differs. Restore the file, or evaluate "
            "again."
        )
    table = parquet.read_table(pa.BufferReader(per_image))

    def matrix(name):
        flat = table[name].combine_chunks().flatten()
        flat = flat.to_numpy(zero_copy_only=False)
        return flat.reshape(table.num_rows, -1)

    return {
        **{name: summary[name] for name in always},
        **{name: summary.get(name) for name in later},
        "epsilons": summary["epsilons"],
        "image_ids": table["image"].to_numpy(),
        "labels": table["label"].to_numpy(),
        "predictions": table["prediction"].to_numpy(),
        "correct": matrix("correct"),
        "broken_by": matrix("broken_by"),
    }


def _summary(report, per_image: bytes) -> dict:
    """The content of `report.json`: all settings and the main results."""
    curve = []
    for epsilon, accuracy in zip(report.epsilons, report.accuracy, strict=True):
        low, high = report.accuracy_interval(epsilon)
        curve.append(
            {
                "epsilon": float(epsilon),
                "text": format_epsilon(epsilon, report.norm),
                "accuracy": float(accuracy),
                "low": low,
                "high": high,
            }
        )
    low, high = report.expected_robustness_interval()
    saved = names(report, saved=ALWAYS) + names(report, saved=LATER)
    return {
        "format": _FORMAT,
        **{name: getattr(report, name) for name in saved},
        "num_images": report.num_images,
        "epsilons": report.epsilons.tolist(),
        "clean_accuracy": report.clean_accuracy,
        "expected_robustness": {
            "value": report.expected_robustness(),
            "low": low,
            "high": high,
        },
        "confidence": 0.95,
        "curve": curve,
        "violations": report.violations,
        "broken_counts": report.broken_counts.tolist(),
        "per_image_sha256": hashlib.sha256(per_image).hexdigest(),
    }
