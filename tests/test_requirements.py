"""What an installation asks for."""

import pathlib
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_TESTS = pathlib.Path(__file__).resolve().parent


def requirements():
    text = (_TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    return map(Requirement, tomllib.loads(text)["project"]["dependencies"])


def versions(path):
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, version = line.split("==")
            found[canonicalize_name(name)] = version
    return found


def test_the_lowest_versions_are_those_that_ci_tries():
    lowest = versions(_TESTS.parent / ".ci" / "lowest.txt")
    for each in requirements():
        (bound,) = (x for x in each.specifier if x.operator == ">=")
        version = Version(lowest[canonicalize_name(each.name)])
        assert version == Version(bound.version), each


def test_ci_tries_what_colab_has():
    image = versions(_TESTS / "colab_image.txt")
    tried = versions(_TESTS.parent / ".ci" / "colab.txt")
    both = image.keys() & tried.keys()
    differ = {name for name in both if image[name] != tried[name]}
    assert differ == {"tensorflow-metadata"}


def test_colab_keeps_what_it_has():
    """A TensorFlow that is replaced there often finds no GPU."""
    image = versions(_TESTS / "colab_image.txt")
    new, replaced = set(), set()
    for each in requirements():
        version = image.get(canonicalize_name(each.name))
        if version is None:
            new.add(each.name)
        elif version not in each.specifier:
            replaced.add(each.name)
    # tensorflow-datasets cannot be imported there without either; see
    # pyproject.toml.
    assert new == {"importlib_resources"}
    assert replaced == {"tensorflow-metadata"}
