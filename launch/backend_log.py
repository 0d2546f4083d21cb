"""Imports Keras without the lines that its backend logs while it starts.

TensorFlow and XLA write to the file of standard error before Python can set a
level. They are shown if the user sets TF_CPP_MIN_LOG_LEVEL=0. Every launcher
imports this module first.
"""

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_SHOWN = os.environ.get(_LEVEL) == "0"
# Errors only, once the backend has read it.
os.environ.setdefault(_LEVEL, "2")


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hides what is written to standard error, unless an error follows."""
    if _SHOWN:
        yield
        return
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(before, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


def start() -> None:
    """Lets the backend find its devices.

    If there is an NVIDIA card that the backend does not use, it says so.
    """
    with hidden():
        devices = keras.distribution.list_devices()
        keras.ops.ones(1)
    if pathlib.Path("/dev/nvidia0").exists() and not any(
        each.startswith(("gpu", "cuda")) for each in devices
    ):
        print(
            f"warning: {keras.backend.backend()} does not use the graphics "
            f"card. {_LEVEL}=0 shows why.",
            file=sys.stderr,
        )


with hidden():
    import keras
