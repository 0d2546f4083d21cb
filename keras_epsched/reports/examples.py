"""A few adversarial images of an evaluation, to look at."""

import pathlib
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields

import numpy as np

from keras_epsched import files

_FILE = "examples.npz"
# What NumPy makes of a file that is empty, cut, changed, or something else.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False)
class Examples:
    """Images that were broken, each at the smallest epsilon that did it.

    Attributes:
        clean: Float32 array `(count, ...)` of pixels.
        adversarial: Float32 array of the same shape.
        epsilon: Float array of shape `(count,)`, on the [0, 1] scale.
        label: Int array of shape `(count,)`, the true classes.
        prediction: Int array of shape `(count,)`, of the adversarial images.
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
        """Writes `examples.npz`."""
        with files.written_whole(folder / _FILE) as temporary:
            np.savez_compressed(temporary, **asdict(self))

    @classmethod
    def load(cls, folder: pathlib.Path) -> "Examples | None":
        """Reads what `save` wrote, or returns `None` if it is not there."""
        path = folder / _FILE
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**arrays)
        except _UNREADABLE as error:
            raise ValueError(
                f"{path} is corrupt: {error!r}. The report is whole without "
                "it: move it away."
            ) from error
