"""How each field of a report is converted, saved and merged."""

import dataclasses
from collections.abc import Callable
from typing import Any

# ALWAYS: every `report.json` has the field. LATER: older files lack it.
ALWAYS, LATER = "always", "later"

# The value in a merged report. SAME: all reports must have the same value.
# SUM: the sum. ROWS: the rows of all images, in the order of their ids. FIRST:
# the value of the first report.
SAME, SUM, ROWS, FIRST = "same", "sum", "rows", "first"


# The default of a field that is computed from other fields or from the time.
DERIVED: Any = None


def role(
    convert: Callable | None, saved: str | None = None, merge: str | None = None
) -> dict:
    """Returns the metadata of a field of a report.

    Args:
        convert: Function that converts the given value, or `None` to keep it
            unchanged. A value of `None` is not converted if it is the
            default.
        saved: String. `ALWAYS` or `LATER` for a field that `report.json`
            stores under its name, `None` for any other field.
        merge: String. `SAME`, `SUM`, `ROWS` or `FIRST`, or `None` for a field
            with a rule of its own.

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
        **roles: Values of the arguments of `role`.

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
    """Converts the values of all fields of a new report.

    Args:
        record: A report.
    """
    for each in dataclasses.fields(record):
        value, convert = getattr(record, each.name), each.metadata["convert"]
        absent = value is None and each.default is None
        if convert is not None and not absent:
            setattr(record, each.name, convert(value))
