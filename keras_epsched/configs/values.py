"""The values of a config: what each is for, and how it is written as text."""

import csv
import dataclasses
import enum
import json
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping


class ConfigError(ValueError):
    """A value of a config is not as it must be.

    The message names values as Python does, `` `epochs` `` or `epochs=3`; the
    launchers turn that into their flags.
    """


class Role(enum.Enum):
    """What a value decides, and so who asks for it."""

    # What is trained: a column of results, a part of recipes and model cards.
    SCIENCE = "science"
    # How the outcome is measured: a column of results.
    MEASUREMENT = "measurement"
    # How a run is computed and watched. It stays the same when a run resumes.
    MACHINE = "machine"
    # Where a run is and how often it is kept. It may differ when one resumes.
    PLACE = "place"


class Group(enum.Enum):
    """The heading under which `--help` lists a value."""

    DATA = "Data"
    MODEL = "Model"
    TARGET = "Target"
    ATTACK = "Epsilon schedule and training attack"
    ADAPTATION = "What is trained"
    TRAINING = "Training"
    MONITORS = "Monitoring"
    EVALUATION = "Evaluation"
    RUN = "Run and run folder"


class Card(enum.Enum):
    """Whether a model card states a value."""

    ALWAYS = "always"
    CHANGED = "changed"
    NEVER = "never"


# Marks that a field has no such value; `None` may be one.
_NOTHING = object()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """What is known of one value of a config.

    Args:
        help: String. What it is; other values are named in backticks.
        role: `Role`.
        group: `Group` of `--help`. By default the launcher decides.
        flag: String or `None`. The launcher's flag, where it is not called as
            the value.
        card: `Card`. By default a card states what differs from the default,
            of the values of the role `SCIENCE`.
        column: Boolean. Whether results have a column for it. By default those
            of the roles `SCIENCE` and `MEASUREMENT` have.
        of_attack: Boolean. It means nothing in a training without attack.
        at_least: Float or `None`. Lowest number.
        at_most: Float or `None`. Highest number.
        check: Function that raises a `ValueError` for what is none, or `None`.
        before: What runs did that are older than the value. Defaults to the
            first default that it had.
        earlier_defaults: Tuple of the defaults that it had before, the first
            one first. Runs that were begun then keep theirs when they resume.
    """

    help: str
    role: Role = Role.SCIENCE
    group: Group | None = None
    flag: str | None = None
    card: Card | None = None
    column: bool | None = None
    of_attack: bool = False
    at_least: float | None = None
    at_most: float | None = None
    check: Callable | None = None
    before: object = _NOTHING
    earlier_defaults: tuple = ()

    @property
    def on_card(self) -> Card:
        """Whether a model card states it."""
        if self.card is not None:
            return self.card
        return Card.CHANGED if self.role is Role.SCIENCE else Card.NEVER

    @property
    def has_column(self) -> bool:
        """Whether results have a column for it."""
        if self.column is not None:
            return self.column
        return self.role in (Role.SCIENCE, Role.MEASUREMENT)


def value(default, help: str, role: Role = Role.SCIENCE, **more) -> typing.Any:
    """Returns the field of a config.

    Args:
        default: Its default.
        help: String. What it is.
        role: `Role`.
        **more: Other arguments of `Value`.
    """
    about = Value(help=help, role=role, **more)
    return dataclasses.field(default=default, metadata={"about": about})


@dataclasses.dataclass(frozen=True)
class Entry:
    """One value of a class of configs, with its type.

    Args:
        name: String.
        default: Its default.
        about: `Value`.
        kind: Type without `None`: `bool`, `int`, `float`, `str`, or `tuple`.
        item: Type of the items of a tuple, or `None`.
        optional: Boolean. Whether it may be `None`.
        choices: Tuple of strings, or `None`: the texts that it may be.
    """

    name: str
    default: typing.Any
    about: Value
    kind: type
    item: type | None
    optional: bool
    choices: tuple[str, ...] | None

    @property
    def flag(self) -> str:
        """The name of the launcher's flag."""
        return self.about.flag or self.name

    @property
    def before(self):
        """What runs did that are older than the value."""
        if self.about.before is _NOTHING:
            return (*self.about.earlier_defaults, self.default)[0]
        return self.about.before

    def parse(self, given):
        """Returns a value of the right type, from that or from a text.

        Raises:
            ConfigError: If it is none.
        """
        if given is None and self.optional:
            return None
        try:
            found = _PARSERS[self.kind](given, self)
            if self.choices and found not in self.choices:
                raise ValueError(f"one of {', '.join(self.choices)}")
            for number in (found,) if self.kind in (int, float) else ():
                self._check_bounds(number)
        except (TypeError, ValueError, csv.Error) as error:
            raise ConfigError(
                f"`{self.name}` must be {error}. Received: "
                f"{self.name}={given!r}"
            ) from None
        if self.about.check is not None:
            try:
                self.about.check(found)
            except ValueError as error:
                raise ConfigError(f"`{self.name}`: {error}") from error
        return found

    def _check_bounds(self, number):
        low, high = self.about.at_least, self.about.at_most
        # Also refuses what is not a number.
        if low is not None and not number >= low:
            raise ValueError(f"at least {low:g}")
        if high is not None and not number <= high:
            raise ValueError(f"at most {high:g}")


def entries(config) -> dict[str, Entry]:
    """The values of a config, or of a class of them, by name."""
    kind = config if isinstance(config, type) else type(config)
    hints = typing.get_type_hints(kind)
    return {
        field.name: _entry(field, hints[field.name])
        for field in dataclasses.fields(kind)
    }


def _entry(field, hint) -> Entry:
    # A `Literal` or `None` is a union of the older kind.
    unions = types.UnionType, typing.Union
    is_union = typing.get_origin(hint) in unions
    options = typing.get_args(hint) if is_union else (hint,)
    (hint,) = (each for each in options if each is not type(None))
    kind, item, choices = hint, None, None
    if typing.get_origin(hint) is typing.Literal:
        kind, choices = str, typing.get_args(hint)
    elif typing.get_origin(hint) is tuple:
        kind, item = tuple, typing.get_args(hint)[0]
    return Entry(
        name=field.name,
        default=field.default,
        about=field.metadata["about"],
        kind=kind,
        item=item,
        optional=type(None) in options,
        choices=choices,
    )


def as_text(value) -> str:
    """Returns a value as a launcher's flag or a table has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return str(value)


def _boolean(given, entry):
    if isinstance(given, bool):
        return given
    known = {"true": True, "t": True, "1": True}
    known |= {"false": False, "f": False, "0": False}
    if str(given).lower() not in known:
        raise ValueError("true or false")
    return known[str(given).lower()]


def _integer(given, entry):
    if isinstance(given, str):
        with _saying("a whole number"):
            return int(given)
    if isinstance(given, bool) or not isinstance(given, numbers.Integral):
        raise ValueError("a whole number")
    return int(given)


def _number(given, entry):
    if isinstance(given, str):
        return parse_number(given)
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        raise ValueError("a number")
    return float(given)


def parse_number(text: str) -> float:
    """Reads a number, or a fraction such as `4/255`.

    Raises:
        ValueError: If it is neither.
    """
    with _saying("a number or a fraction, as 0.3 or 4/255"):
        above, _, below = text.partition("/")
        return float(above) / (float(below) if below else 1.0)


class _saying:
    """Raises a `ValueError` that says what was expected."""

    def __init__(self, expected):
        self.expected = expected

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, (ValueError, ZeroDivisionError)):
            raise ValueError(self.expected) from error


def _text(given, entry):
    if isinstance(given, Mapping):
        return json.dumps(given)
    if not isinstance(given, (str, os.PathLike)):
        raise ValueError("a text")
    return os.fspath(given)


def _sequence(given, entry):
    if isinstance(given, str):
        # Quotes protect a comma, as in lists of other flags.
        rows = list(csv.reader([given], strict=True, skipinitialspace=True))
        given = [each.strip() for each in rows[0]] if rows else []
    elif isinstance(given, numbers.Real) and entry.item is float:
        # One number is a list of one, as one name is.
        given = [given]
    item = _PARSERS[entry.item]
    try:
        return tuple(item(each, entry) for each in given)
    except TypeError:
        raise ValueError("a list") from None


_PARSERS: dict[type, Callable] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _text,
    tuple: _sequence,
}
