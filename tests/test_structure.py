"""The rooms of the package, and which of them may know which.

A room is a folder of the package; the modules beside the folders are one, the
top. The code is read, not run: imports inside functions count as well.
"""

import ast
import functools
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "keras_epsched"
_TOP = "top"

# What each room may import. A room may only name rooms above it, so there is
# no circle.
_MAY_IMPORT = {
    _TOP: set(),
    "backend": {_TOP},
    "datasets": {_TOP},
    "models": {_TOP},
    "reports": {_TOP},
    "attacks": {_TOP, "backend"},
    "training": {_TOP, "backend", "attacks", "models"},
    "evaluation": {_TOP, "backend", "attacks", "reports"},
    "callbacks": {_TOP, "backend", "attacks", "training"},
    "configs": {_TOP},
}
# These may import every room above.
for _room in ("runs", "studies"):
    _MAY_IMPORT[_room] = set(_MAY_IMPORT)
# Modules that import TensorFlow, JAX or torch though they are no backend.
_NAMES_A_BACKEND = {
    "callbacks/adversarial_images.py": "TensorBoard's image summaries",
    "datasets/image_data.py": "the type of what `load` returns",
    "datasets/image_files.py": "decodes images in a graph of tf.data",
    "datasets/image_folder.py": "paths as a tf.data.Dataset",
    "datasets/pipeline.py": "the tf.data pipelines",
    "datasets/sources.py": "what tfds reads, as a tf.data.Dataset",
    "datasets/worker_rows.py": "rows of a tf.data.Dataset",
}
_BACKENDS = {"tensorflow", "jax", "torch"}
_LARGEST_SHARE = 0.13
_CARRIED = {"value_range", "training_splits", "split_info"}


def files_of(folder):
    return sorted(folder.rglob("*.py"))


def room_of(path):
    first = path.relative_to(_PACKAGE).parts[0]
    return first if (_PACKAGE / first).is_dir() else _TOP


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def front_door():
    """Where the names come from that `keras_epsched` itself offers."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in parsed(_PACKAGE / "__init__.py").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def imports(tree):
    """Dotted names of all that a module imports, with their lines."""
    found, packages = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append((alias.name, node.lineno))
                if alias.name == "keras_epsched":
                    packages.add(alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            found += [
                (f"{node.module}.{alias.name}", node.lineno)
                for alias in node.names
            ]
    # `import keras_epsched as ke` knows the rooms that it reads from `ke`.
    found += [
        (f"keras_epsched.{node.attr}", node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in packages
    ]
    return found


def rooms_imported(path):
    """The rooms that a module imports, each with a line."""
    door, found = front_door(), {}
    for name, line in imports(parsed(path)):
        package, *parts = name.split(".")
        if package != "keras_epsched" or not parts:
            continue
        if parts[0] in door and not (_PACKAGE / parts[0]).exists():
            _, *parts = door[parts[0]].split(".")
        # A constant of the package itself, as its version, is of the top.
        is_room = (_PACKAGE / parts[0]).is_dir()
        found.setdefault(parts[0] if is_room else _TOP, line)
    return found


@functools.cache
def arrows():
    """The rooms that each room imports, each with a place."""
    found = {}
    for path in files_of(_PACKAGE):
        if path == _PACKAGE / "__init__.py":
            continue
        for other, line in rooms_imported(path).items():
            place = f"{path.relative_to(_ROOT)}:{line}"
            found.setdefault(room_of(path), {}).setdefault(other, place)
    return found


def existing_rooms():
    return sorted({room_of(path) for path in files_of(_PACKAGE)})


def test_the_arrows_allow_no_circle():
    above = set()
    for room, others in _MAY_IMPORT.items():
        assert others <= above, f"{room} may import a room below it"
        above.add(room)


def test_every_room_has_its_arrows():
    assert set(existing_rooms()) <= set(_MAY_IMPORT), (
        "say in `_MAY_IMPORT` what a new room may import"
    )


@pytest.mark.parametrize("room", _MAY_IMPORT)
def test_a_room_imports_what_it_may(room):
    imported = arrows().get(room, {})
    wrong = {
        other: place
        for other, place in imported.items()
        if other not in {room, *_MAY_IMPORT[room]}
    }
    assert not wrong, f"{room} must not import {wrong}"


def test_imports_are_found_wherever_they_are():
    code = """
import jax.numpy as jnp
import keras_epsched as ke
def f():
    from keras_epsched import files, models
    from keras_epsched.attacks.base import Attack
    return ke.evaluate
"""
    assert {name for name, _ in imports(ast.parse(code))} == {
        "jax.numpy",
        "keras_epsched",
        "keras_epsched.files",
        "keras_epsched.models",
        "keras_epsched.attacks.base.Attack",
        "keras_epsched.evaluate",
    }
    assert front_door()["evaluate"].startswith("keras_epsched.evaluation")
    path = _PACKAGE / "training" / "objectives" / "autolora.py"
    assert "models" in rooms_imported(path), "an import inside a function"


def test_only_backend_names_a_backend():
    naming = {
        str(path.relative_to(_PACKAGE))
        for path in files_of(_PACKAGE)
        if room_of(path) != "backend"
        and any(
            name.split(".")[0] in _BACKENDS for name, _ in imports(parsed(path))
        )
    }
    assert naming - set(_NAMES_A_BACKEND) == set()
    unneeded = set(_NAMES_A_BACKEND) - naming
    assert not unneeded, f"take off the list: {unneeded}"


def test_the_package_knows_no_flags():
    for path in files_of(_PACKAGE):
        tree = parsed(path)
        names = {name for name, _ in imports(tree)}
        wrong = {
            name
            for name in names
            if name.startswith(("absl.flags", "absl.app", "launch"))
            or name == "sys.argv"
        }
        wrong |= {
            f"{node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr) == ("sys", "argv")
        }
        assert not wrong, f"{path.relative_to(_ROOT)} knows {wrong}"


def lines_of(paths):
    return sum(
        len(path.read_text(encoding="utf-8").splitlines()) for path in paths
    )


@pytest.mark.parametrize("room", [*_MAY_IMPORT, "launch"])
def test_no_room_is_too_large(room):
    launch = files_of(_ROOT / "launch")
    package = files_of(_PACKAGE)
    inside = [each for each in package if room_of(each) == room]
    own = lines_of(launch if room == "launch" else inside)
    share = own / lines_of([*package, *launch])
    assert share <= _LARGEST_SHARE, f"{room}: {own} lines, {share:.1%}"


def carried_elsewhere(tree):
    """Lines that set or look up what `provenance` alone knows how to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"getattr", "setattr", "hasattr"} and any(
                isinstance(each, ast.Constant) and each.value in _CARRIED
                for each in node.args
            ):
                yield node.lineno
        elif isinstance(node, ast.Attribute):
            of_another = (
                not isinstance(node.value, ast.Name) or node.value.id != "self"
            )
            if (
                isinstance(node.ctx, ast.Store)
                and of_another
                and node.attr in _CARRIED
            ):
                yield node.lineno


def test_what_models_carry_goes_through_provenance():
    for path in [*files_of(_PACKAGE), *files_of(_ROOT / "launch")]:
        lines = [*carried_elsewhere(parsed(path))]
        assert not lines, (
            f"{path.relative_to(_ROOT)}, lines {lines}: use "
            "`keras_epsched.provenance`"
        )
    code = "m.value_range = 1\nself.value_range = 1\ngetattr(d, 'split_info')"
    assert [*carried_elsewhere(ast.parse(code))] == [1, 3]
