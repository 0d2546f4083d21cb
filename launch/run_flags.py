"""A config as flags, and flags as a config."""

import re
import shlex
import sys

import flag_types
import usage
from absl import flags

from keras_epsched.configs.config import typed
from keras_epsched.configs.values import Group, Role, entries
from keras_epsched.runs import (
    Comparison,
    Config,
    ConfigError,
    Settings,
    estimate,
)

FLAGS = flags.FLAGS

# The flag of each value of a config.
_flags: dict[str, str] = {}


def define(
    kind: type[Settings],
    group: str = "",
    required: tuple[str, ...] = (),
    repeated: tuple[str, ...] = (),
    unused: tuple[Group | str, ...] = (),
) -> None:
    """Defines a flag for each value of a class of configs.

    Args:
        kind: Class of configs.
        group: Group in --help of values that state none.
        required: Names of values without which nothing can run.
        repeated: Names of lists whose flag is repeated, an item each.
        unused: Groups, and names of values, that --help leaves out.
    """
    known = entries(kind)
    for value, entry in known.items():
        name = _flags[value] = entry.flag
        help = as_flags(entry.about.help, kind)
        if entry.choices:
            help = f"One of {', '.join(entry.choices)}. {help}"
        if entry.kind is bool:
            flags.DEFINE_boolean(name, entry.default, help)
        elif value in repeated:
            help = f"{help} Repeat the flag for each."
            flags.DEFINE_multi_string(name, None, help)
        else:
            if entry.kind is tuple:
                help = f"{help} Separated by commas."
            flags.DEFINE(
                flag_types.ValueParser(entry),
                name,
                entry.default,
                help,
                serializer=flag_types.ValueSerializer(),
            )
        if value in required:
            flags.register_validator(name, bool, f"--{name} is missing. {help}")
    # What belongs to this kind of run goes first in its group.
    own = sorted(known, key=lambda value: value in entries(Settings))
    for each in (*Group, None):
        for value in own:
            entry = known[value]
            if entry.about.group is each and not {each, value} & {*unused}:
                usage.add(entry.flag, each.value if each else group)


def config(kind: type[Settings]) -> Settings:
    """Makes the config of the command line."""
    given = {
        name: FLAGS[entry.flag].value
        for name, entry in entries(kind).items()
        if FLAGS[entry.flag].present
    }
    return kind(**given)


def define_estimate() -> None:
    """Defines the flags that ask what a run will take, instead of the run."""
    flags.DEFINE_boolean(
        "estimate",
        False,
        "Print the time and the memory that the run will need, measured on a "
        "few of its steps, and end.",
    )
    flags.DEFINE_float(
        "memory_gb",
        None,
        "With --estimate: also print which batch sizes fit into a memory of "
        "this size. Default: the memory of --card.",
    )
    flags.DEFINE_string(
        "card",
        None,
        "With --estimate: estimate for a graphics card that is not here, as "
        "T4. The times are then rough.",
    )
    for name in ("estimate", "memory_gb", "card"):
        usage.add(name, "Estimate")


def estimated(config: Config | Comparison) -> bool:
    """Prints the estimate of a run if it is asked for."""
    if not FLAGS.estimate:
        for name in ("memory_gb", "card"):
            if FLAGS[name].present:
                raise ConfigError(
                    f"--{name} needs --estimate. Received: "
                    f"{as_flag(name, FLAGS[name].value)}"
                )
        return False
    print(estimate(config, memory_gb=FLAGS.memory_gb, card=FLAGS.card))
    return True


def command() -> str:
    """Returns what was typed."""
    return shlex.join([sys.argv[0].rsplit("/", 1)[-1], *sys.argv[1:]])


def as_flag(name: str, value) -> str:
    """Returns a value as it is typed."""
    return shlex.quote(f"--{_flags.get(name, name)}={typed(name, value)}")


def as_command(
    launcher: str,
    config: Settings,
    *more: str,
    groups: tuple[Group, ...] = (Group.DATA, Group.TARGET),
) -> str:
    """Returns a command that repeats flags which were given.

    Args:
        launcher: String. File name of the launcher.
        config: `Settings`.
        *more: Further flags.
        groups: Groups of the flags to repeat: by default the data and the
            target.
    """
    shared = [
        as_flag(name, getattr(config, name))
        for name, entry in entries(config).items()
        if name in config.given
        and entry.about.group in groups
        and entry.about.role is not Role.PLACE
        # Another command has its own.
        and name not in ("schedule", "schedules")
    ]
    return " ".join([f"python launch/{launcher}", *shared, *more])


def named(text: str) -> str:
    """Returns a text with flags in place of values in backticks.

    Args:
        text: String that names values as `name`, or as `name=0.5`,
            `name="word"` or `name=True`.
    """

    def flag(match):
        name, *values = match.groups()
        if name not in _flags:
            return match[0]
        value = next(filter(None, values), None)
        return f"--{_flags[name]}" + (f"={value}" if value else "")

    return re.sub(r'`(\w+)(?:=True|=([\d./]+)|="(\w+)")?`', flag, text)


def as_flags(text: str, kind: type[Settings] | None = None) -> str:
    """Returns a message about a config in the words of the command line.

    Args:
        text: String that names values in backticks, or as `name=value`.
        kind: Class of configs. By default all flags that there are.
    """
    known = {**{name: name for name in FLAGS}, **_flags}
    if kind is not None:
        known = {name: entry.flag for name, entry in entries(kind).items()}
    names = "|".join(map(re.escape, known))
    # Arguments within a call, as PGD(norm='l2'), are Python's.
    named = rf"\w+\([^()]*\)|`({names})`|(?<![\w.\-])({names})=(?=\S)"

    def typed(match):
        quoted, given = match.groups()
        if quoted:
            return f"--{known[quoted]}"
        return f"--{known[given]}=" if given else match[0]

    return re.sub(named, typed, text)
