"""The two files of a saved report: `report.json` and `per_image.parquet`."""

import hashlib
import importlib
import importlib.metadata
import json
import os
import pathlib

import keras
import numpy as np

from keras_epsched.epsilons import format_epsilon

REPORT = "report.json"
PER_IMAGE = "per_image.parquet"
_FORMAT = "keras_epsched.report/2"

# The constructor's arguments that are stored as they are.
_METADATA = (
    "created",
    "model_name",
    "dataset",
    "value_range",
    "norm",
    "protocol",
    "attack",
    "attack_name",
    "attack_members",
    "bisect",
    "shard",
    "model_fingerprint",
    "target_epsilon",
    "seed",
    "forward_passes",
    "backward_passes",
    "naive_forward_passes",
    "naive_backward_passes",
    "check_forward_passes",
    "check_backward_passes",
    "seconds",
    "zero_gradient_images",
    "checks",
    "notes",
    "versions",
)
# Those that older files lack.
_LATER = ("attack_title", "member_titles", "precision", "device")


def plain(value, name: str):
    """Returns `value` as JSON would return it: lists, dicts and numbers.

    Args:
        value: A nesting of dicts, sequences, strings and numbers, NumPy's
            among them.
        name: String. What the caller names the value, for the message.

    Returns:
        The same nesting, of Python's own types only.

    Raises:
        ValueError: If it holds anything that JSON cannot express.
    """

    def unwrap(leaf):
        if isinstance(leaf, (np.generic, np.ndarray)):
            return leaf.tolist()
        raise TypeError(f"{leaf!r} of {type(leaf)}")

    try:
        return json.loads(json.dumps(value, default=unwrap))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must consist of dicts, lists, strings and numbers, so "
            f"that it can be saved as JSON. Received: {error}"
        ) from error


def package_versions() -> dict:
    """Returns the versions of the packages that decide a result."""
    backend = keras.config.backend()
    versions = {
        "keras": keras.__version__,
        backend: importlib.import_module(backend).__version__,
        "numpy": np.__version__,
        "backend": backend,
    }
    try:
        own = importlib.metadata.version("keras-epsched")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
    return {"keras_epsched": own, **versions}


def save(report, folder: pathlib.Path) -> None:
    """Writes both files of `report` into `folder`.

    Each is written beside its destination and renamed, so a reader never
    sees half a file; the checksum tells when one rename was interrupted
    before the other.

    Args:
        report: A `Report`.
        folder: Path of the folder, created if need be.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder.mkdir(parents=True, exist_ok=True)

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
    replace(folder / PER_IMAGE, per_image)
    text = json.dumps(_summary(report, per_image), indent=2, allow_nan=False)
    replace(folder / REPORT, (text + "\n").encode())


def load(folder: pathlib.Path) -> dict:
    """Reads both files from `folder`.

    Args:
        folder: Path of the folder given to `save`.

    Returns:
        A dict of the arguments of `Report`.

    Raises:
        FileNotFoundError: If one of the two files is missing.
        ValueError: If they were not written by `save`, or not together.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for name in (REPORT, PER_IMAGE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no report: it has no file {name}. Pass the "
                "folder that was given to `Report.save`."
            )
    try:
        summary = json.loads((folder / REPORT).read_bytes())
    except ValueError:
        summary = None
    if not isinstance(summary, dict) or summary.get("format") != _FORMAT:
        raise ValueError(
            f"{folder / REPORT} was not written by `Report.save`: expected a "
            f"JSON object whose `format` is {_FORMAT!r}."
        )
    missing = [
        name
        for name in (*_METADATA, "epsilons", "per_image_sha256")
        if name not in summary
    ]
    if missing:
        raise ValueError(
            f"{folder / REPORT} was changed after `Report.save`: it lacks "
            f"{missing}"
        )
    per_image = (folder / PER_IMAGE).read_bytes()
    if hashlib.sha256(per_image).hexdigest() != summary["per_image_sha256"]:
        raise ValueError(
            f"{folder / PER_IMAGE} does not belong to the {REPORT} beside "
            "it: its checksum differs. Restore the file, or evaluate again."
        )
    table = parquet.read_table(pa.BufferReader(per_image))

    def matrix(name):
        flat = table[name].combine_chunks().flatten()
        flat = flat.to_numpy(zero_copy_only=False)
        return flat.reshape(table.num_rows, -1)

    return {
        **{name: summary[name] for name in _METADATA},
        **{name: summary.get(name) for name in _LATER},
        "epsilons": summary["epsilons"],
        "image_ids": table["image"].to_numpy(),
        "labels": table["label"].to_numpy(),
        "predictions": table["prediction"].to_numpy(),
        "correct": matrix("correct"),
        "broken_by": matrix("broken_by"),
    }


def _summary(report, per_image: bytes) -> dict:
    """What `report.json` holds: all metadata, and the figures to read."""
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
    return {
        "format": _FORMAT,
        **{name: getattr(report, name) for name in (*_METADATA, *_LATER)},
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


def replace(path: pathlib.Path, content: bytes) -> None:
    """Writes a file such that a reader never sees half of it."""
    # The rename is atomic only within one file system, hence the same folder.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
