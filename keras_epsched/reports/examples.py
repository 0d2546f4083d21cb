"""A few adversarial images that a report keeps."""

import pathlib
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields

import numpy as np

from keras_epsched import files

_FILE = "examples.npz"
# The errors of NumPy for a file that is empty, cut off, changed, or of another
# format.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False)
class Examples:
    """Images that the attack broke, each at the smallest epsilon that did.

    Attributes:
        clean: Float32 array `(count, ...)` of pixels.
        adversarial: Float32 array of the same shape.
        epsilon: Float array of shape `(count,)`, on the [0, 1] scale.
        label: Int array of shape `(count,)`, the true classes.
        prediction: Int array of shape `(count,)`, the predicted classes of
            the adversarial images.
    """

    clean: np.ndarray
    adversarial: np.ndarray
    epsilon: np.ndarray
    label: np.ndarray
    prediction: np.ndarray

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]

    def save(self, folder: pathlib.Path) -> None:
        """Writes `examples.npz` to a folder.

        Args:
            folder: Path of the folder.
        """
        with files.written_whole(folder / _FILE) as temporary:
            np.savez_compressed(temporary, **asdict(self))

    @classmethod
    def load(cls, folder: pathlib.Path) -> "Examples | None":
        """Reads `examples.npz`, or returns `None` if there is none.

        Args:
            folder: Path of the folder given to `save`.

        Raises:
            ValueError: If the file cannot be read.
        """
        path = folder / _FILE
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**arrays)
        except _UNREADABLE as error:
            raise ValueError(
                f"{path} is corrupt: {error!r}. The report is complete "
                "without this file. Delete it, or move it away."
            ) from error
