"""Runs a launcher; what is the user's to mend is said without a traceback."""

import json
import sys
from collections.abc import Callable

import run_flags
from absl import app, logging

from keras_epsched.runs import ConfigError, RunUnderWay

_OUT_OF_MEMORY = (
    "The device is out of memory. Take a smaller --batch_size, with "
    "--accumulate to average as many gradients as before, and a smaller "
    "--monitor_images where they are attacked; --dtype=mixed_bfloat16 (or "
    "mixed_float16) for half the activations; a smaller --image_size; or "
    "--adaptation=lora or last, which keep less."
)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags and calls `main`; for the end of each launcher.

    Args:
        main: Function without arguments. What it returns is the exit status.
    """
    sys.excepthook = _show
    app.run(checked(main))


def checked(
    main: Callable[[], int | None],
) -> Callable[[list[str]], int | None]:
    """Returns `main` as absl calls it, which takes flags alone."""

    def called(arguments):
        if len(arguments) > 1:
            raise app.UsageError(
                "expected flags alone, as --epsilon=4/255. Received: "
                f"{' '.join(arguments[1:])}"
            )
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


def print_folder(folder) -> None:
    """Prints the run folder for programs, as the last line."""
    print(json.dumps({"run_folder": str(folder)}), flush=True)


def _is_out_of_memory(error):
    """Whether a device was: each backend has its own error for that."""
    kinds = ("ResourceExhaustedError", "OutOfMemoryError")
    if type(error).__name__ in kinds or isinstance(error, MemoryError):
        return True
    return "RESOURCE_EXHAUSTED" in str(error)


def _show(kind, error, traceback):
    if getattr(error, "is_refusal", False) or isinstance(error, ConfigError):
        print(f"\nerror: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
    if _is_out_of_memory(error):
        print(f"\nerror: {_OUT_OF_MEMORY}", file=sys.stderr)
