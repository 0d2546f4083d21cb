"""Run folders: one run each, what it was begun with, and going on with it."""

import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

from absl import flags

FLAGS = flags.FLAGS

# What may differ when a run goes on: where it is, and how fast it is.
MAY_DIFFER = ("resume", "output", "download", "backup_minutes")
# What runs did before there was a flag, where its default is another.
_BEFORE = {"bisect": False}


class RunUnderWay(RuntimeError):
    """Another run holds the folder; it may end soon."""


def run_folder(name, may_differ=()):
    """Opens the run folder: a new one, or with --resume that of a run.

    A new one is claimed by a first config.json. Flags must be as there, but
    those of time and place, and of `may_differ`.
    """
    if FLAGS.resume and FLAGS.output is None:
        raise ValueError("--resume needs the --output of the run")
    folder = pathlib.Path(
        FLAGS.output or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    found = folder.exists() and {path.name for path in folder.iterdir()}
    # This alone is what a run leaves that failed at once.
    if found and found - {"config.json", "config.json.tmp", "lock"}:
        if not FLAGS.resume:
            raise ValueError(
                f"the run folder {folder} already holds a run or other files: "
                "pass --resume to continue it, choose another --output, or "
                "move it away"
            )
        check_flags_as_stored(
            folder / "config.json", (*MAY_DIFFER, *may_differ)
        )
        lock(folder)
        return folder
    # A named folder may exist; one named by the time must be new.
    folder.mkdir(parents=True, exist_ok=bool(FLAGS.output))
    lock(folder)
    write_config(folder)
    return folder


_locks = []


def lock(folder):
    """Refuses a folder in which another run is under way."""
    import filelock

    # The system gives it back when this process ends, however it ends.
    found = filelock.FileLock(folder / "lock", blocking=False)
    try:
        found.acquire()
    except filelock.Timeout:
        raise RunUnderWay(
            f"another run is under way in {folder}: wait until it has ended, "
            "or choose another --output"
        ) from None
    _locks.append(found)


def check_flags_as_stored(path, may_differ):
    """Refuses to go on with a run by other flags than its own."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        flags_then, versions = stored["flags"], stored["versions"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"--resume compares the flags with those in {path}, which cannot "
            f"be read: {error!r}"
        ) from error
    differ = [
        f"--{name}: stored {stored!r}, received {value!r}"
        for name, value in sorted(resolved_flags().items())
        if name not in may_differ
        and value != (stored := stored_flag(flags_then, name))
    ]
    if differ:
        raise ValueError(
            "--resume continues a run with its own flags. Give these as "
            f"{path} has them, or start a run in another --output:\n  "
            + "\n  ".join(differ)
        )
    changed = [
        f"{name} {versions.get(name)} then, {version} now"
        for name, version in _versions().items()
        if versions.get(name) != version
    ]
    if changed:
        print(
            "The run was begun with other versions, and may not go on "
            f"exactly: {'; '.join(changed)}",
            flush=True,
        )


def stored_flag(flags_then, name):
    """The value of a flag in a run, which may be older than the flag.

    Args:
        flags_then: Dict, the flags of its config.json.
        name: String.
    """
    # A flag that is newer than the run stands at its default.
    return flags_then.get(name, _BEFORE.get(name, FLAGS[name].default))


def resolved_flags():
    """Flags of the launchers with their values."""
    # Others define flags as well: absl, and TensorFlow once it is imported.
    launchers = {path.stem for path in pathlib.Path(__file__).parent.iterdir()}
    return {
        flag.name: flag.value
        for module, its_flags in FLAGS.flags_by_module_dict().items()
        if pathlib.PurePath(module).stem in launchers
        for flag in its_flags
    }


def _versions():
    import importlib.metadata

    import keras
    import numpy as np

    import keras_epsched

    versions = {
        "keras_epsched": keras_epsched.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
    for package in (
        "tensorflow",
        "jax",
        "torch",
        "keras-hub",
        "tensorflow-datasets",
    ):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def write_config(folder, **more):
    """Writes config.json: all that is needed to repeat the run."""
    path = folder / "config.json"
    now = {
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "flags": resolved_flags(),
        "versions": _versions(),
        "git_revision": _git_revision(),
    }
    config = {**now, **more}
    if FLAGS.resume and path.exists():
        # How it was begun stays, and how it went on is added.
        stored = json.loads(path.read_text(encoding="utf-8"))
        begun = {name: stored[name] for name in now}
        resumed = stored.get("resumed", [])
        if now not in (begun, *resumed):
            resumed = [*resumed, now]
        config = {**begun, **more, "resumed": resumed}
    write_json(path, config)
    return config


def write_json(path, value):
    """Writes a file by temporary name and rename."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    replace(temporary, path)


def replace(temporary, path):
    """Renames a file into place, once its content is on the disk."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _git_revision():
    here = pathlib.Path(__file__).parent
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.strip()
    return None
