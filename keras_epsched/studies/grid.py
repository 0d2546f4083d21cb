"""The grid of a study: reads the TOML file and makes the cells."""

import dataclasses
import itertools
import os
import pathlib
import re
import tomllib
from collections.abc import Mapping

from keras_epsched.configs.values import as_text
from keras_epsched.runs import Config, ConfigError


@dataclasses.dataclass
class Cell:
    """One fine-tuning of a study.

    Args:
        name: String, made of the values that differ between cells.
        texts: Dict from the names of values to texts. Environment variables
            are not filled in.
        config: `Config` of the cell.
        folder: `pathlib.Path` of the run folder.
        state: String. `"waiting"`, `"running"`, `"done"` or `"failed"`.
        since: Float. Time when the cell was last submitted.
        failures: List of strings, the error of each failed attempt.
    """

    name: str
    texts: dict[str, str]
    config: Config
    folder: pathlib.Path = pathlib.Path()
    state: str = "waiting"
    since: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)


def expanded(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns texts with environment variables filled in."""
    return {name: os.path.expandvars(text) for name, text in texts.items()}


def read(path: str | os.PathLike, given: Mapping[str, str]) -> list[Cell]:
    """Reads the grid of a study.

    Args:
        path: Path of a TOML file, see `Study`.
        given: Mapping from names to texts: values for all cells.

    Returns:
        A list of `Cell`s.

    Raises:
        ValueError: If the file is not a grid, or has a value that no config
            takes.
    """
    try:
        tables = tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    grid, shared = tables.get("grid"), tables.get("flags", {})
    rules, left_out = tables.get("where", []), tables.get("leave_out", [])
    if (
        set(tables) - {"flags", "grid", "where", "leave_out"}
        or not (isinstance(grid, dict) and grid)
        or not isinstance(shared, dict)
        or not isinstance(rules, list)
        or not isinstance(left_out, list)
    ):
        raise ValueError(
            f"{path}: expected the tables [grid], [flags], [[where]] and "
            f"[[leave_out]]. Received: {sorted(tables)}"
        )
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(
                f"{path}: expected a list of values for each axis. Received: "
                f"{name} = {values!r}"
            )
        if name in given:
            raise ConfigError(
                f"`{name}` is an axis of {path}. Change it in that file"
            )
    for rule in rules:
        _check_rule(rule, grid, shared, path)
    for match in left_out:
        if not isinstance(match, dict) or not match:
            raise ValueError(
                f"{path}: expected values of cells in each [[leave_out]]. "
                f"Received: {match!r}"
            )
        _check_names(match, "leave_out", grid, shared, path)
    unused = list(left_out)
    shorter = {name: _shorter(values) for name, values in grid.items()}
    cells = {}
    for places in itertools.product(*(range(len(v)) for v in grid.values())):
        at = dict(zip(grid, places, strict=True))
        axes = {name: grid[name][place] for name, place in at.items()}
        chosen = {**shared, **axes}
        out = [match for match in left_out if _matches(match, chosen)]
        unused = [match for match in unused if match not in out]
        if out:
            continue
        for rule in rules:
            if _matches(rule["match"], chosen):
                chosen.update(rule["flags"])
        name = _name({key: shorter[key][i] for key, i in at.items()})
        if name in cells:
            raise ValueError(
                f"{path}: two cells have the name {name!r}. Each axis needs "
                "different values"
            )
        texts = {key: as_text(value) for key, value in chosen.items()}
        texts |= given
        cells[name] = Cell(name, texts, _config(texts, path))
    if unused:
        raise ValueError(
            f"{path}: a [[leave_out]] matches no cell. Expected values of "
            f"[grid] and [flags] as they stand there. Received: {unused[0]}"
        )
    if not cells:
        raise ValueError(
            f"{path}: [[leave_out]] leaves out all cells. Received: {left_out}"
        )
    return list(cells.values())


def _config(texts, path):
    values = expanded(texts)
    for name, text in values.items():
        if "$" in text:
            raise ValueError(
                f"{path}: an environment variable is not set: {name} = {text}"
            )
    try:
        return Config(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_rule(rule, grid, shared, path):
    """Raises an error if a [[where]] rule is malformed or has no effect."""
    if (
        not isinstance(rule, dict)
        or set(rule) != {"match", "flags"}
        or not all(isinstance(each, dict) for each in rule.values())
    ):
        raise ValueError(
            f"{path}: expected the tables `match` and `flags` in each "
            f"[[where]]. Received: {rule!r}"
        )
    _check_names(rule["match"], "where", grid, shared, path)
    axes = set(rule["flags"]) & set(grid)
    if axes:
        raise ValueError(
            f"{path}: [[where]] sets {sorted(axes)}, which is an axis. The "
            "names of the cells would then be wrong. Set other flags"
        )


def _check_names(match, table, grid, shared, path):
    """Raises an error if a rule matches a value that no cell has."""
    unknown = set(match) - {*grid, *shared}
    if unknown:
        raise ValueError(
            f"{path}: [[{table}]] matches {sorted(unknown)}, which no cell "
            "has. Add them to [grid] or [flags]"
        )


def _matches(match, chosen):
    return all(chosen[key] == value for key, value in match.items())


def short(text):
    """Returns the last part of a path, and other texts unchanged.

    A path starts with a slash, a dot or an environment variable, so ViT-B/16 is
    not one.
    """
    return pathlib.PurePath(text).name if text[:1] in ("/", "$", ".") else text


def _shorter(values):
    """Returns short texts of values, or full ones if short ones coincide."""
    texts = [as_text(value) for value in values]
    found = [short(text) for text in texts]
    return found if len(set(found)) == len(set(texts)) else texts


def _name(texts):
    """Returns the name of a cell, made of the short texts of its values."""
    parts = []
    for name, text in texts.items():
        # A number alone does not say which value it is.
        if not re.search("[a-zA-Z]", text) or text in ("true", "false"):
            text = f"{name}-{text}"
        parts.append(re.sub(r"[^\w.-]+", "-", text))
    return "_".join(parts)
