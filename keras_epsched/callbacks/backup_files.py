"""The files of a training's backups."""

import contextlib
import json
import os
import pathlib
import re
import warnings
import zipfile
import zlib

import numpy as np

from keras_epsched import files

_META = "meta"
# What NumPy makes of a file that is empty, cut, changed, or no backup at all.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


class BackupFiles:
    """The last two backups of a training, in a folder.

    Each is a file of NumPy with arrays and JSON. It is written to a temporary
    file, then renamed, and its checksums are verified when it is read.

    Args:
        folder: Path. The folder of the backups.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)

    def write(self, epoch: int, batch: int, arrays: dict, meta: dict) -> None:
        """Writes a backup whole, or leaves those before it as they are.

        Args:
            epoch: Int. The epoch to go on with.
            batch: Int. The batch of that epoch to go on with.
            arrays: `dict` of arrays.
            meta: `dict` of JSON values.

        Raises:
            OSError: If it cannot be written.
        """
        path = self.folder / f"backup-{epoch:06}-{batch:09}.npz"
        text = np.frombuffer(json.dumps(meta).encode(), "uint8")
        content: dict = {_META: text, **arrays}
        try:
            with files.written_whole(path) as temporary:
                np.savez(temporary, **content)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the backup could not be written: {error.strerror}. What was "
                "backed up before is kept: mend this, and resume",
                str(path),
            ) from error
        for old in self._paths()[:-2]:
            _delete(old)

    def latest(self) -> dict | None:
        """Reads the last backup that is not corrupt.

        Returns:
            What `meta` was, with the arrays as `"arrays"`; or `None` if there
            is no backup.

        Raises:
            ValueError: If there are backups, but all of them are corrupt.
        """
        faults = []
        for path in reversed(self._paths()):
            try:
                found = _read(path)
            except _UNREADABLE as error:
                faults.append(f"{path}: {error}")
                continue
            if faults:
                warnings.warn(
                    "a backup is corrupt, and the one before is taken: "
                    f"{faults[0]}",
                    stacklevel=3,
                )
            return found
        if faults:
            raise ValueError(
                "no backup can be read; move them away to start anew:\n  "
                + "\n  ".join(faults)
            )
        return None

    def clear(self) -> None:
        """Deletes all backups, and the folder where nothing else is in it."""
        # With what a kill has left half written, by older versions too.
        for pattern in ("backup-*.npz*", ".backup-*.npz"):
            for path in self.folder.glob(pattern):
                _delete(path)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _paths(self):
        # Names of a fixed width, in order; and none of temporary files.
        return sorted(
            path
            for path in self.folder.glob("backup-*.npz")
            if re.fullmatch(r"backup-\d{6}-\d{9}\.npz", path.name)
        )


def _read(path):
    """Reads a backup whole, so that every checksum is verified."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(arrays.pop(_META).tobytes())
    return {**meta, "arrays": arrays}


def _delete(path):
    """Deletes a backup, emptied: the bin of Google Drive counts what it has."""
    path.write_bytes(b"")
    path.unlink()
