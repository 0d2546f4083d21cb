"""Writes and reads the backup files of a training."""

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
# The errors of NumPy for a file that is empty, cut short, changed, or not a
# backup.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


class BackupFiles:
    """The last two backups of a training, in a folder.

    Each backup is a NumPy file with arrays and JSON. It is written to a
    temporary file and then renamed. Its checksums are verified when it is
    read.

    Args:
        folder: Path. The folder of the backups.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)

    def write(self, epoch: int, batch: int, arrays: dict, meta: dict) -> None:
        """Writes a complete backup. If it fails, older backups are kept.

        Args:
            epoch: Int. The epoch to resume with.
            batch: Int. The batch of that epoch to resume with.
            arrays: `dict` of arrays.
            meta: `dict` of JSON values.

        Raises:
            OSError: If the backup cannot be written.
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
                f"The backup could not be written: {error.strerror}. The "
                "previous backups are kept. Solve the problem, then resume "
                "the training. File",
                str(path),
            ) from error
        for old in self._paths()[:-2]:
            _delete(old)

    def latest(self) -> dict | None:
        """Reads the last backup that is not corrupt.

        Returns:
            The `dict` `meta`, with the arrays under the key `"arrays"`; or
            `None` if there is no backup.

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
                    "The last backup is corrupt, so the training resumes from "
                    f"the backup before it. Corrupt: {faults[0]}",
                    stacklevel=3,
                )
            return found
        if faults:
            raise ValueError(
                "All backups are corrupt, so the training cannot resume. To "
                "start from the beginning, delete them or move them away to "
                "another folder:\n  " + "\n  ".join(faults)
            )
        return None

    def clear(self) -> None:
        """Deletes all backups, and the folder if it is then empty."""
        # Includes temporary files of killed processes and older versions.
        for pattern in ("backup-*.npz*", ".backup-*.npz"):
            for path in self.folder.glob(pattern):
                _delete(path)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _paths(self):
        # The names have a fixed width, so their order is that of the steps.
        # Temporary files have other names.
        return sorted(
            path
            for path in self.folder.glob("backup-*.npz")
            if re.fullmatch(r"backup-\d{6}-\d{9}\.npz", path.name)
        )


def _read(path):
    """Reads a complete backup, which verifies every checksum."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(arrays.pop(_META).tobytes())
    return {**meta, "arrays": arrays}


def _delete(path):
    """Empties and deletes a backup.

    A file in the bin of Google Drive counts against the quota, so it is
    emptied first.
    """
    path.write_bytes(b"")
    path.unlink()
