"""A config as flags, and flags as a config."""

import re
import shlex
import sys

import flag_types
from absl import flags

from keras_epsched.configs.values import as_text, entries
from keras_epsched.runs import (
    Comparison,
    Config,
    ConfigError,
    Settings,
    estimate,
)

FLAGS = flags.FLAGS


def define(
    kind: type[Settings],
    required: tuple[str, ...] = (),
    repeated: tuple[str, ...] = (),
) -> None:
    """Defines a flag for each value of a class of configs.

    Args:
        kind: Class of configs.
        required: Names of values without which nothing can run.
        repeated: Names of lists whose flag is repeated, an item each.
    """
    # For --help, which shows the flags of the program alone.
    program = sys.argv[0]
    for name, entry in entries(kind).items():
        text = as_flags(entry.about.help, kind)
        if entry.kind is tuple and name not in repeated:
            text = f"{text} Separated by commas."
        if entry.choices:
            text = f"<{'|'.join(entry.choices)}>: {text}"
        if entry.kind is bool:
            flags.DEFINE_boolean(name, entry.default, text, module_name=program)
        elif name in repeated:
            flags.DEFINE_multi_string(
                name,
                None,
                f"{text} Repeat it for more.",
                module_name=program,
            )
        else:
            flags.DEFINE(
                flag_types.ValueParser(entry),
                name,
                entry.default,
                text,
                serializer=flag_types.ValueSerializer(),
                module_name=program,
            )
        if name in required:
            flags.mark_flag_as_required(name)


def config(kind: type[Settings]) -> Settings:
    """Makes the config of the command line."""
    given = {
        name: FLAGS[name].value for name in entries(kind) if FLAGS[name].present
    }
    return kind(**given)


def define_estimate() -> None:
    """Defines the flags that ask what a run will take, instead of the run."""
    program = sys.argv[0]
    flags.DEFINE_boolean(
        "estimate",
        False,
        "Print what the run will take, from a few of its steps, and end.",
        module_name=program,
    )
    flags.DEFINE_float(
        "memory_gb",
        None,
        "With --estimate: a memory, to say which batch sizes fit into it; "
        "default: that of --card.",
        module_name=program,
    )
    flags.DEFINE_string(
        "card",
        None,
        "With --estimate: a graphics card that is not here, as T4. Times are "
        "then rough estimates.",
        module_name=program,
    )


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
    return f"--{name}={as_text(value)}"


def as_flags(text: str, kind: type[Settings] | None = None) -> str:
    """Returns a message about a config in the words of the command line.

    Args:
        text: String that names values in backticks, or as `name=value`.
        kind: Class of configs. By default all flags that there are.
    """
    known = list(FLAGS if kind is None else entries(kind))
    names = "|".join(map(re.escape, known))
    # Arguments within a call, as PGD(norm='l2'), are Python's.
    named = rf"\w+\([^()]*\)|`({names})`|(?<![\w.\-])({names})=(?=\S)"

    def typed(match):
        quoted, given = match.groups()
        if quoted:
            return f"--{quoted}"
        return f"--{given}=" if given else match[0]

    return re.sub(named, typed, text)
