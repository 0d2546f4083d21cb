"""The files of a running evaluation: one for each finished window.

An evaluation that was interrupted resumes from these files. A file that exists
is complete.
"""

import json
import pathlib
import shutil
import warnings
import zlib

import numpy as np

from keras_epsched import files
from keras_epsched.reports import storage

SETTINGS = "evaluation.json"
PARTS = "per_image"
# Settings that are missing in folders of older versions.
_LATER = ("precision", "device")
_OTHER_IMAGES = (
    "The evaluation in {} used other images, or the same images in another "
    "order. To resume it, pass the same dataset in the same order, without "
    "shuffling and without random augmentation."
)


def _checksums(pixels) -> np.ndarray:
    """A checksum of each image."""
    return np.array(
        [zlib.crc32(np.ascontiguousarray(image).data) for image in pixels],
        "int64",
    )


def begin(
    folder: pathlib.Path, settings: dict, window: int, resume: bool
) -> int:
    """Prepares the folder of an evaluation.

    Args:
        folder: Path. It is created if it does not exist.
        settings: Dict of everything that decides the result.
        window: Int. Number of images in a window.
        resume: Boolean. Whether to resume the evaluation in the folder.

    Returns:
        The number of images in a window. A resumed evaluation keeps its own.

    Raises:
        ValueError: If the folder has an evaluation and `resume` is false, or
            if its settings differ.
    """
    path = folder / SETTINGS
    settings = storage.plain(settings, "settings")
    if (folder / storage.REPORT).exists() and not path.exists():
        raise ValueError(
            f"{folder} already has a report without the settings of its "
            "evaluation, so it cannot be resumed. Pass another folder."
        )
    started = (folder / storage.REPORT).exists() or any(
        (folder / PARTS).glob("part-*.parquet")
    )
    if path.exists() and started:
        if not resume:
            raise ValueError(
                f"{folder} already has an evaluation. Pass `resume=True` to "
                "resume or read it, or pass another folder."
            )
        found = json.loads(path.read_text())
        differing = [
            f"{name}: {found.get(name)!r} then, {value!r} now"
            for name, value in settings.items()
            if found.get(name, value if name in _LATER else None) != value
        ]
        if differing:
            raise ValueError(
                f"The evaluation in {folder} cannot be resumed because the "
                f"settings differ: {'; '.join(differing)}. Pass another folder."
            )
        return found["window"]
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    files.write_json(path, {**settings, "window": window})
    return window


def _path(folder, number):
    return folder / PARTS / f"part-{number:05d}.parquet"


def write(folder: pathlib.Path, number: int, part: dict, pixels) -> None:
    """Writes the results of one window.

    Args:
        folder: Path of the evaluation.
        number: Int. Number of the window.
        part: Dict of arrays with one row per image, and a dict `"totals"`.
        pixels: The images. Their checksums are stored.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = {
        name: values if values.ndim == 1 else pa.array(list(values))
        for name, values in part.items()
        if name != "totals"
    }
    part["checksum"] = _checksums(pixels)
    table = pa.table({**columns, "checksum": part["checksum"]})
    totals = json.dumps(storage.plain(part["totals"], "totals"))
    table = table.replace_schema_metadata({"totals": totals})
    with files.written_whole(_path(folder, number)) as temporary:
        parquet.write_table(table, temporary)


def read(folder: pathlib.Path, number: int) -> dict | None:
    """Reads the results of one window, or returns `None` if there are none."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = _path(folder, number)
    if not path.exists():
        return None
    try:
        table = parquet.read_table(path)
        totals = json.loads(table.schema.metadata[b"totals"])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        warnings.warn(
            f"{path} cannot be read. Its images are evaluated again",
            stacklevel=2,
        )
        return None
    part = {
        name: np.array(table[name].to_pylist()) for name in table.column_names
    }
    return {**part, "totals": totals}


def check_same_images(part: dict, labels, numbers, pixels, path) -> None:
    """Raises a `ValueError` if images or their order differ."""
    same = (
        np.array_equal(part["image"], numbers)
        and np.array_equal(part["label"], labels)
        and np.array_equal(part["checksum"], _checksums(pixels))
    )
    if not same:
        raise ValueError(_OTHER_IMAGES.format(path))


def check_finished(folder, report, stream, value_range) -> None:
    """Raises a `ValueError` if a finished evaluation used other images.

    Args:
        folder: Path of the evaluation.
        report: The `Report` in the folder.
        stream: Iterable of pixels, labels and ids.
        value_range: Pair. Lowest and highest pixel value.
    """
    labels, numbers, sums = [], [], []
    for pixels, given, ids in stream:
        pixels = np.asarray(pixels, "float32").clip(*value_range)
        one_hot = given.ndim == 2 and given.shape[1] > 1
        labels.append(given.argmax(axis=1) if one_hot else given.ravel())
        numbers.append(ids)
        sums.append(_checksums(pixels))
    same = (
        np.array_equal(np.concatenate(numbers), report.image_ids)
        and np.array_equal(np.concatenate(labels), report.labels)
        and json.loads((folder / SETTINGS).read_text()).get("digest")
        == _digest(np.concatenate(sums))
    )
    if not same:
        raise ValueError(_OTHER_IMAGES.format(folder))


def _digest(sums) -> int:
    return zlib.crc32(np.asarray(sums, "int64").tobytes())


def join(found: list[dict]) -> dict:
    """Joins the results of all windows."""
    names = [name for name in found[0] if name not in ("totals", "checksum")]
    return {
        **{
            name: np.concatenate([each[name] for each in found])
            for name in names
        },
        "totals": {
            name: sum(each["totals"][name] for each in found)
            for name in found[0]["totals"]
        },
    }


def is_finished(folder: pathlib.Path) -> bool:
    """Whether the report is complete and the parts were removed."""
    return not (folder / PARTS).exists()


def finish(folder: pathlib.Path, found: list[dict]) -> None:
    """Removes the parts after the report was saved."""
    settings = json.loads((folder / SETTINGS).read_text())
    sums = np.concatenate([part["checksum"] for part in found])
    settings["digest"] = _digest(sums)
    files.write_json(folder / SETTINGS, settings)
    shutil.rmtree(folder / PARTS)
