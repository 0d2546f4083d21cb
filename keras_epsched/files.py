"""Atomic writing: a file is complete or absent, never half-written."""

import contextlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path, and moves the file to `path` at the end.

    A reader sees either the old file or the complete new file, even after a
    power failure. If the block raises an error, `path` does not change and
    the temporary file is removed.

    Args:
        path: Path of the file. Its folder is created if it does not exist.

    Yields:
        `pathlib.Path` in the same folder, with the same suffix.

    Example:
    ```python
    with written_whole("results.parquet") as temporary:
        frame.to_parquet(temporary)
    ```
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A rename is atomic only within one file system, so the temporary file is
    # in the same folder. Its name is random because process ids are not unique
    # on a cluster.
    mark = secrets.token_hex(4)
    temporary = path.with_name(f".{path.stem}.{mark}.tmp{path.suffix}")
    try:
        yield temporary
        # Without it a power failure could keep the name but not the content.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # An error here must not hide an earlier error.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file atomically.

    Args:
        path: Path of the file. Its folder is created if it does not exist.
        content: Bytes or a string. A string is written as UTF-8.
    """
    if isinstance(content, str):
        content = content.encode()
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike, value) -> None:
    """Writes a value as indented JSON, atomically.

    Args:
        path: Path of the file. Its folder is created if it does not exist.
        value: Nested dicts, lists, strings, numbers and `None`.
    """
    write(path, json.dumps(value, indent=2) + "\n")
