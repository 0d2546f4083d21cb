"""Files that are there whole, or not at all."""

import contextlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary path to write to, which then takes the place of `path`.

    A reader sees the old file or the new one, never half of one, also after a
    power failure. If the block raises an error, `path` stays as it was, and
    nothing is left beside it.

    Args:
        path: Path of the file. Its folder is created if need be.

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
    # The rename is atomic only within one file system, hence the same folder.
    # Processes may share both the folder and, on a cluster, their number.
    mark = secrets.token_hex(4)
    temporary = path.with_name(f".{path.stem}.{mark}.tmp{path.suffix}")
    try:
        yield temporary
        # Without it a machine that fails could keep the name, not the content.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # A second error must not hide the first.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file whole.

    Args:
        path: Path of the file.
        content: Bytes, or text, which is written as UTF-8.
    """
    if isinstance(content, str):
        content = content.encode()
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike, value) -> None:
    """Writes a value as JSON that people can read.

    Args:
        path: Path of the file.
        value: Nesting of dicts, lists, strings, numbers and `None`.
    """
    write(path, json.dumps(value, indent=2) + "\n")
