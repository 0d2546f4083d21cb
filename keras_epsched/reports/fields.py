"""What becomes of each field of a report, said where the field is declared."""

import dataclasses
from collections.abc import Callable
from typing import Any

# Whether `report.json` holds the field: every file does, or files of older
# versions do not.
ALWAYS, LATER = "always", "later"

# What the merged report holds: the value that all reports must have, the sum,
# the rows of all images in the order of their ids, or what the first one says.
SAME, SUM, ROWS, FIRST = "same", "sum", "rows", "first"


# The default of a field that follows from other fields, or from the moment.
DERIVED: Any = None


def role(
    convert: Callable | None, saved: str | None = None, merge: str | None = None
) -> dict:
    """Returns the metadata of a field of a report.

    Args:
        convert: Function that turns what was given into what is kept, or
            `None` to keep it as it is. `None` is not converted where it is
            the default.
        saved: String. `ALWAYS` or `LATER` for a field that `report.json`
            holds under its name; `None` for any other.
        merge: String. `SAME`, `SUM`, `ROWS` or `FIRST`; `None` for a field
            that follows another rule.

    Example:
    ```python
    seed: int = dataclasses.field(default=0, metadata=role(int, ALWAYS, SAME))
    ```
    """
    return {"convert": convert, "saved": saved, "merge": merge}


def names(record, **roles) -> list[str]:
    """Returns the names of the fields that have certain roles.

    Args:
        record: The class of a report, or a report.
        **roles: What was given to `role`.

    Returns:
        Strings, in the order of declaration.

    Example:
    ```python
    names(Report, merge=SUM)      # ["forward_passes", ...]
    ```
    """
    return [
        each.name
        for each in dataclasses.fields(record)
        if all(each.metadata[role] == value for role, value in roles.items())
    ]


def convert_all(record) -> None:
    """Converts the values of all fields, once, after they were given.

    Args:
        record: A report.
    """
    for each in dataclasses.fields(record):
        value, convert = getattr(record, each.name), each.metadata["convert"]
        absent = value is None and each.default is None
        if convert is not None and not absent:
            setattr(record, each.name, convert(value))
