"""Runs a launcher; what is the user's to mend is said without a traceback."""

import contextlib
import sys

import run_folders
from absl import app

_KINDS = (ValueError, ImportError, OSError, run_folders.RunUnderWay)


_OUT_OF_MEMORY = (
    "The device is out of memory. Take a smaller --batch_size, with "
    "--accumulate to average as many gradients as before, and a smaller "
    "--monitor_images where they are attacked; --dtype=mixed_bfloat16 (or "
    "mixed_float16) for half the activations; a smaller --image_size; or "
    "--adaptation=lora or last, which keep less."
)


def run(main) -> None:
    """Parses the flags and calls `main`; for the end of each launcher.

    What `main` returns is the exit status.
    """

    def checked(arguments):
        if len(arguments) > 1:
            raise app.UsageError(
                "expected flags alone, as --epsilon=4/255. Received: "
                f"{' '.join(arguments[1:])}"
            )
        return main(arguments)

    app.run(checked)


def _is_out_of_memory(error):
    """Whether a device was: each backend has its own error for that."""
    kinds = ("ResourceExhaustedError", "OutOfMemoryError")
    if type(error).__name__ in kinds or isinstance(error, MemoryError):
        return True
    return "RESOURCE_EXHAUSTED" in str(error)


@contextlib.contextmanager
def checking():
    """Around what only checks flags, data and models.

    An error there leaves the launcher as it would, with exit status 1, but
    what is printed is its message alone: it says what to do, and where it was
    raised is of no interest.
    """
    try:
        yield
    except _KINDS as error:
        error.is_refusal = True
        raise


def _show(kind, error, traceback):
    if getattr(error, "is_refusal", False):
        print(f"\nerror: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
    if _is_out_of_memory(error):
        print(f"\nerror: {_OUT_OF_MEMORY}", file=sys.stderr)


sys.excepthook = _show
