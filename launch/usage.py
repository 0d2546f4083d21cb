"""What --help prints: what a launcher does, and its flags in groups."""

import difflib
import textwrap

from absl import flags

FLAGS = flags.FLAGS

# Flags of a launcher that has no groups.
_ALONE = "Flags"
_WIDTH = 80
# Groups of flags, in the order in which they were defined.
_groups: dict[str, list[str]] = {}


def add(name: str, group: str = _ALONE) -> None:
    """Lists a flag of the launcher in a group."""
    _groups.setdefault(group, []).append(name)


def own_flags() -> list[str]:
    """Returns the names of the flags of the launcher itself."""
    return [name for names in _groups.values() for name in names]


def near(name: str) -> str:
    """Returns a question about the flag that may be meant, or nothing."""
    found = difflib.get_close_matches(name.removeprefix("no"), own_flags(), 1)
    found = difflib.get_close_matches(name, own_flags(), 1) or found
    return f" Did you mean --{found[0]}?" if found else ""


def text(about: str) -> str:
    """Returns what --help prints.

    Args:
        about: String. What the launcher does, with examples.
    """
    lines = [
        about.strip(),
        "",
        "Flags, each with its default:",
    ]
    for group, names in _groups.items():
        lines += ["", group]
        for name in names:
            lines += _described(FLAGS[name])
    return "\n".join(lines)


def _described(flag):
    """The lines of one flag."""
    # What absl adds to the help of a flag that is repeated.
    help = (flag.help or "").partition(";     repeat this option")[0]
    if flag.boolean:
        typed = f"--[no]{flag.name}"
        if flag.default is not None:
            typed += f"  (default: {'yes' if flag.default else 'no'})"
    else:
        # As absl quotes it; an empty list has no text.
        default = (flag.default_as_str or "").strip("'")
        typed = f"--{flag.name}={default}"
    return [
        f"  {typed}",
        *textwrap.wrap(
            help,
            _WIDTH,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        ),
    ]
