"""Runs a launcher: its flags, its errors and warnings as sentences."""

import json
import re
import sys
import textwrap
import warnings
from collections.abc import Callable

import backend_log
import run_flags
import usage
from absl import app, flags, logging

from keras_epsched.runs import ConfigError, RunUnderWay

_OUT_OF_MEMORY = (
    "The device is out of memory. Pass a smaller --batch_size, with "
    "--accumulate to average as many gradients as before; a smaller "
    "--monitor_images, if monitors attack images; --dtype=mixed_bfloat16 (or "
    "mixed_float16), which halves the activations; a smaller --image_size; or "
    "--adaptation=lora or last, which keep less."
)
_HELP = {"-h", "-help", "--h", "--help", "--helpshort", "--helpfull"}
_WIDTH = 100
# Warnings that were shown, to be repeated at the end.
_warned: list[str] = []


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags and calls `main`; for the end of each launcher.

    Args:
        main: Function without arguments. What it returns is the exit status.
    """
    sys.excepthook = _show
    warnings.showwarning = _show_warning
    app.run(checked(main), flags_parser=parsed)


def parsed(arguments: list[str]) -> list[str]:
    """Parses the flags; prints --help, or what is wrong with them."""
    if _HELP.intersection(arguments):
        print(usage.text(sys.modules["__main__"].__doc__ or ""))
        sys.exit(0)
    try:
        others = flags.FLAGS(arguments)[1:]
        if others:
            raise flags.Error(
                "expected flags, as --epsilon=4/255. Received: "
                f"{' '.join(others)}"
            )
    except flags.Error as error:
        print(f"error: {flag_error(error)}", file=sys.stderr)
        sys.exit(1)
    # Before functions that the backend has absl call first.
    backend_log.start()
    return arguments[:1]


def flag_error(error: flags.Error) -> str:
    """Returns what is wrong with the flags, in one sentence."""
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        return f"there is no flag --{name}.{usage.near(name)} See --help."
    # absl says before it which flag had which value; our messages do as well.
    text = re.sub(r"^flag --.*?: (?=--)", "", str(error), flags=re.DOTALL)
    return run_flags.as_flags(text)


def checked(
    main: Callable[[], int | None],
) -> Callable[[list[str]], int | None]:
    """Returns `main` as absl calls it, which hands it the arguments."""

    def called(_):
        # tfds warns of its own deprecations at every load.
        logging.set_verbosity(logging.ERROR)
        return in_flags(main)

    return called


def in_flags(main: Callable[[], int | None]) -> int | None:
    """Calls a function whose errors on a config then name flags."""
    try:
        return main()
    except (ConfigError, RunUnderWay) as error:
        error.args = (run_flags.as_flags(str(error)),)
        raise


def finish(text: str, folder, following: str = "") -> None:
    """Prints the end of a run.

    Args:
        text: String. The result.
        folder: Path of the run folder, which the last line states for
            programs.
        following: String. The command that the user may type next.
    """
    text = run_flags.named(text)
    print(f"\n{text}")
    missing = [each for each in dict.fromkeys(_warned) if each not in text]
    if missing:
        print("\nWarnings of this run")
        for each in missing:
            print(_wrapped(f"- {each}"))
    if following:
        print(f"\nNext: {following}")
    print_folder(folder)


def print_folder(folder) -> None:
    """Prints the run folder for programs, as the last line."""
    print(json.dumps({"run_folder": str(folder)}), flush=True)


def _wrapped(text):
    return textwrap.fill(
        text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False
    )


def _show_warning(message, category, *_):
    """Shows a warning as a sentence, without the line of code it is from."""
    text = run_flags.named(str(message))
    _warned.append(text)
    print(_wrapped(f"warning: {text}"), file=sys.stderr, flush=True)


def _is_out_of_memory(error):
    """Whether a device was: each backend has its own error for that."""
    kinds = ("ResourceExhaustedError", "OutOfMemoryError")
    if type(error).__name__ in kinds or isinstance(error, MemoryError):
        return True
    return "RESOURCE_EXHAUSTED" in str(error)


def _show(kind, error, traceback):
    if getattr(error, "is_refusal", False) or isinstance(error, ConfigError):
        print(f"\nerror: {_in_words(error)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
    if _is_out_of_memory(error):
        print(f"\nerror: {_OUT_OF_MEMORY}", file=sys.stderr)


def _in_words(error):
    """The message of an error; of the system's, without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}"
    return str(error)
