"""Errors that are the user's to mend, said without a traceback."""

import contextlib
import sys

import run_folders

_KINDS = (ValueError, ImportError, OSError, run_folders.RunUnderWay)


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


sys.excepthook = _show
