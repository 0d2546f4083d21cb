"""The files of an evaluation under way: one for each finished window.

An evaluation that is killed continues from them. Each is written whole, so that
a part that exists is complete.
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
# Settings that folders of older versions do not tell.
_LATER = ("precision", "device")
_OTHER_IMAGES = (
    "{} was evaluated on other images than those that the dataset yields now "
    "at their place: continue with the same dataset, in the same order (not "
    "shuffled, and without random augmentation)"
)


def _checksums(pixels) -> np.ndarray:
    """A number for each image, to recognise it by."""
    return np.array(
        [zlib.crc32(np.ascontiguousarray(image).data) for image in pixels],
        "int64",
    )


def begin(
    folder: pathlib.Path, settings: dict, window: int, resume: bool
) -> int:
    """Opens a folder for an evaluation.

    Args:
        folder: Path, created if need be.
        settings: Dict of everything that decides the result.
        window: Int. Images in a window.
        resume: Boolean. Continue what the folder holds.

    Returns:
        Images in a window: those of the evaluation that is continued.

    Raises:
        ValueError: If the folder holds an evaluation that is not to be, or
            cannot be, continued.
    """
    path = folder / SETTINGS
    settings = storage.plain(settings, "settings")
    if (folder / storage.REPORT).exists() and not path.exists():
        raise ValueError(
            f"{folder} already holds a report, of which it is not known how it "
            "was made: pass another folder"
        )
    started = (folder / storage.REPORT).exists() or any(
        (folder / PARTS).glob("part-*.parquet")
    )
    if path.exists() and started:
        if not resume:
            raise ValueError(
                f"{folder} already holds an evaluation: pass `resume=True` to "
                "continue (or read) it, or another folder"
            )
        found = json.loads(path.read_text())
        differing = [
            f"{name}: {found.get(name)!r} then, {value!r} now"
            for name, value in settings.items()
            if found.get(name, value if name in _LATER else None) != value
        ]
        if differing:
            raise ValueError(
                f"the evaluation in {folder} cannot be continued, for the "
                f"settings differ: {'; '.join(differing)}. Pass another folder."
            )
        return found["window"]
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    files.write_json(path, {**settings, "window": window})
    return window


def _path(folder, number):
    return folder / PARTS / f"part-{number:05d}.parquet"


def write(folder: pathlib.Path, number: int, part: dict, pixels) -> None:
    """Writes one window: columns, and a dict of its totals.

    Args:
        folder: Path of the evaluation.
        number: Int. Number of the window.
        part: Dict of arrays with one row an image, and `"totals"`.
        pixels: The images, which leave a checksum.
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
    """Reads one window, or returns `None` if it is not there."""
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
            f"{path} cannot be read: its images are evaluated again",
            stacklevel=2,
        )
        return None
    part = {
        name: np.array(table[name].to_pylist()) for name in table.column_names
    }
    return {**part, "totals": totals}


def check_same_images(part: dict, labels, numbers, pixels, path) -> None:
    """Refuses to continue with other images, or in another order."""
    same = (
        np.array_equal(part["image"], numbers)
        and np.array_equal(part["label"], labels)
        and np.array_equal(part["checksum"], _checksums(pixels))
    )
    if not same:
        raise ValueError(_OTHER_IMAGES.format(path))


def check_finished(folder, report, stream, value_range) -> None:
    """Refuses a finished evaluation of other images.

    Args:
        folder: Path of the evaluation.
        report: The `Report` it holds.
        stream: Iterable of pixels, labels and numbers.
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
    """All windows as one."""
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
    """Whether the parts were merged into a report."""
    return not (folder / PARTS).exists()


def finish(folder: pathlib.Path, found: list[dict]) -> None:
    """Removes the parts, which a saved report has made needless."""
    settings = json.loads((folder / SETTINGS).read_text())
    sums = np.concatenate([part["checksum"] for part in found])
    settings["digest"] = _digest(sums)
    files.write_json(folder / SETTINGS, settings)
    shutil.rmtree(folder / PARTS)
