"""Run folders: one run each, what it was begun with, and how it resumes."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator

import filelock
import keras
import numpy as np

import keras_epsched
from keras_epsched import files
from keras_epsched.configs.config import Kind, Settings
from keras_epsched.configs.values import ConfigError, Role, entries

CONFIG = "config.json"
_LOCK = "lock"
_PACKAGES = ("tensorflow", "jax", "torch", "keras-hub", "tensorflow-datasets")


class RunUnderWay(RuntimeError):
    """Another run holds the folder; it may end soon."""


@contextlib.contextmanager
def opened(
    config: Kind,
    name: str,
    command: str | None = None,
    may_differ: tuple[str, ...] = (),
) -> Iterator[tuple[pathlib.Path, Kind]]:
    """Opens a run folder, and keeps other runs out of it.

    With `resume` it is the folder that `output` names, whose run was begun by
    the same values, but those of time and place; else a new one.

    Args:
        config: `Settings`.
        name: String. First part of the name of a folder that has none.
        command: String or `None`. What was called, for config.json.
        may_differ: Names of further values that may differ.

    Yields:
        The folder, and the config: that of a run which resumes has its
        defaults from when it was begun.

    Raises:
        ConfigError: If the folder holds another run, or something else.
        RunUnderWay: If a run is under way in it.
    """
    check_output(config)
    folder = pathlib.Path(
        config.output or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    resumes = is_begun(folder)
    if resumes:
        config = resumed(config, folder, may_differ)
    else:
        # A named folder may exist; one named by the time must be new.
        folder.mkdir(parents=True, exist_ok=bool(config.output))
    with locked(folder):
        if not resumes:
            # Claims the folder.
            write_config(folder, config, command)
        yield folder, config


def check_output(config: Settings) -> None:
    """Checks the run folder, without making it.

    Raises:
        ConfigError: If it is not said which run resumes, or nothing can be
            written to the folder.
    """
    if config.resume and config.output is None:
        raise ConfigError("`resume` needs the `output` of the run")
    folder = pathlib.Path(config.output or "runs").absolute()
    nearest = next(
        each for each in (folder, *folder.parents) if os.path.lexists(each)
    )
    try:
        # It has no name, and is gone when it is closed.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(
            f"nothing can be written to the run folder {folder}: {nearest}: "
            f"{error.strerror}. Choose another `output`"
        ) from error


def check_begun(config: Kind) -> Kind:
    """Returns the config with which the run goes on, or begins.

    Raises:
        ConfigError: If the run folder holds another run.
    """
    if config.output is not None and is_begun(pathlib.Path(config.output)):
        return resumed(config, pathlib.Path(config.output))
    return config


def resumed(
    config: Kind, folder: pathlib.Path, may_differ: tuple[str, ...] = ()
) -> Kind:
    """Returns the config with which the run in a folder resumes.

    See `as_begun`.

    Raises:
        ConfigError: If the run is not to be resumed, or was begun by other
            values.
    """
    if not config.resume:
        raise ConfigError(
            f"the run folder {folder} already holds a run or other files: "
            "pass `resume` to resume the run, choose another `output`, or move "
            "the folder away"
        )
    return as_begun(config, folder / CONFIG, may_differ)


def is_begun(folder: pathlib.Path) -> bool:
    """Whether a folder holds more than what a run leaves that fails at once."""
    if not folder.exists():
        return False
    found = {path.name for path in folder.iterdir()}
    harmless = {CONFIG, _LOCK}
    return any(name not in harmless and ".tmp" not in name for name in found)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a folder, as long as this process lives.

    Raises:
        RunUnderWay: If another run is in it.
    """
    # The system gives it back when this process ends, however it ends.
    lock = filelock.FileLock(folder / _LOCK, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunUnderWay(
            f"another run is under way in {folder}: wait until it has ended, "
            "or choose another `output`"
        ) from None
    try:
        yield
    finally:
        lock.release()


def as_begun(
    config: Kind, path: pathlib.Path, may_differ: tuple[str, ...] = ()
) -> Kind:
    """Returns a config for a run that was begun before.

    Values that were not given, and whose default has changed since, are as in
    the run.

    Args:
        config: `Settings`.
        path: Path of the config.json of the run.
        may_differ: Names of values that may differ, besides those of the role
            `PLACE`.

    Raises:
        ConfigError: If the run was begun by other values.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        values, versions = stored["flags"], stored["versions"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"`resume` compares the values with those in {path}, which cannot "
            f"be read: {error!r}"
        ) from error
    config = with_earlier_defaults(config, values)
    differ = [
        f"{name}: stored {then!r}, received {now!r}"
        for name, then, now in differences(config, values)
        if name not in may_differ
    ]
    if differ:
        raise ConfigError(
            "`resume` continues a run with its own values. Give these as "
            f"{path} has them, or start a run in another `output`:\n  "
            + "\n  ".join(differ)
        )
    changed = [
        f"{name} {versions.get(name)} then, {version} now"
        for name, version in _versions().items()
        if versions.get(name) != version
    ]
    if changed:
        warnings.warn(
            "The run was begun with other versions, and may not go on "
            f"exactly: {'; '.join(changed)}",
            stacklevel=2,
        )
    return config


def with_earlier_defaults(config: Kind, stored: dict) -> Kind:
    """Returns a config with the defaults that a stored run was begun with."""
    earlier = {
        name: stored.get(name, entry.before)
        for name, entry in entries(config).items()
        if name not in config.given
        and stored.get(name, entry.before) in entry.about.earlier_defaults
    }
    return config.replace(**earlier) if earlier else config


def differences(config: Settings, stored: dict) -> list[tuple]:
    """Compares a config with the values of a stored run.

    Args:
        config: `Settings`.
        stored: Dict, the values of a config.json, which may be older than
            some of them.

    Returns:
        Tuples of name, value then and value now, of what must be the same.
    """
    found = []
    for name, entry in sorted(entries(config).items()):
        if entry.about.role is Role.PLACE:
            continue
        then, now = stored.get(name, entry.before), getattr(config, name)
        with contextlib.suppress(ConfigError):
            then = entry.parse(then)
        if then != now:
            found.append((name, then, now))
    return found


def write_config(
    folder: pathlib.Path,
    config: Settings,
    command: str | None = None,
    **more,
) -> None:
    """Writes config.json: all that is needed to repeat the run.

    Args:
        folder: Path of the run folder.
        config: `Settings`.
        command: String or `None`. What was called.
        **more: What else the run states, as the splits of its data.
    """
    path = folder / CONFIG
    now = {
        "command": command or repr(config),
        "flags": config.as_dict(),
        "versions": _versions(),
        "git_revision": _git_revision(),
    }
    written = {**now, **more}
    if config.resume and path.exists():
        # How it was begun stays, and how it went on is added.
        stored = json.loads(path.read_text(encoding="utf-8"))
        begun = {name: stored[name] for name in now}
        resumed = stored.get("resumed", [])
        if now not in (begun, *resumed):
            resumed = [*resumed, now]
        written = {**begun, **more, "resumed": resumed}
    files.write_json(path, written)


def _versions():
    versions = {
        "keras_epsched": keras_epsched.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _git_revision():
    """The revision of the sources that run, where they are in a repository."""
    here = pathlib.Path(__file__)

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments],
            cwd=here.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        # An installed package may lie in somebody else's repository.
        git("ls-files", "--error-unmatch", os.fspath(here))
        return git("rev-parse", "HEAD")
    return None
