"""The grid of a study: a TOML file, and the cells that it makes."""

import dataclasses
import itertools
import os
import pathlib
import re
import tomllib


@dataclasses.dataclass
class Cell:
    """One fine-tuning of a study.

    Args:
        name: String, of the values that tell it from the others.
        flags: Dict from the names of flags to values, as text.
        folder: `pathlib.Path`, its run folder.
        state: String. `"waiting"`, `"running"`, `"done"` or `"failed"`.
        failures: List of strings, what went wrong, each time.
    """

    name: str
    flags: dict
    folder: pathlib.Path | None = None
    state: str = "waiting"
    failures: list = dataclasses.field(default_factory=list)

    def arguments(self):
        """Its flags as on a command line."""
        return [f"--{name}={value}" for name, value in self.flags.items()]


def read(path, given):
    """Reads a grid.

    Args:
        path: Path of a TOML file, see study.py.
        given: Dict of flags, as text, that hold in all cells.

    Returns:
        List of `Cell`s.

    Raises:
        ValueError: If the file is not such a grid.
    """
    try:
        tables = tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    unknown = set(tables) - {"flags", "grid", "where"}
    grid = tables.get("grid")
    if unknown or not isinstance(grid, dict) or not grid:
        raise ValueError(
            f"{path}: expected the tables [grid], [flags] and [[where]]. "
            f"Received: {sorted(tables)}"
        )
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(
                f"{path}: expected a list of values for each axis. Received: "
                f"{name} = {values!r}"
            )
        if name in given:
            raise ValueError(f"--{name} is an axis of {path}: change it there")
    cells = {}
    for values in itertools.product(*grid.values()):
        axes = dict(zip(grid, values, strict=True))
        chosen = {**tables.get("flags", {}), **axes}
        for rule in tables.get("where", []):
            chosen.update(_flags_of(rule, chosen, path))
        name = _name(axes)
        if name in cells:
            raise ValueError(f"{path}: two cells have the name {name!r}")
        texts = {key: as_text(value) for key, value in chosen.items()}
        cells[name] = Cell(name, {**texts, **given})
    return list(cells.values())


def _flags_of(rule, chosen, path):
    """The flags of a rule, where a cell matches it."""
    if not isinstance(rule, dict) or set(rule) != {"match", "flags"}:
        raise ValueError(
            f"{path}: expected `match` and `flags` in each [[where]]. "
            f"Received: {rule!r}"
        )
    unknown = set(rule["match"]) - set(chosen)
    if unknown:
        raise ValueError(
            f"{path}: [[where]] matches {sorted(unknown)}, which no cell has"
        )
    matches = all(chosen[key] == each for key, each in rule["match"].items())
    return rule["flags"] if matches else {}


def as_text(value):
    """A value of a flag as on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    return os.path.expandvars(str(value))


def _name(axes):
    """The values in short; a path by its last part."""
    parts = []
    for name, value in axes.items():
        text = as_text(value)
        if name in ("backbone", "dataset", "weights"):
            text = pathlib.PurePath(text).name
        # Numbers alone would not say what they are.
        if not re.search("[a-zA-Z]", text) or isinstance(value, bool):
            text = f"{name}-{text}"
        parts.append(re.sub(r"[^\w.-]+", "-", text))
    return "_".join(parts)
