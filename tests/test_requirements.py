"""What an installation asks for."""

import pathlib
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_TESTS = pathlib.Path(__file__).resolve().parent


def requirements():
    text = (_TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    return map(Requirement, tomllib.loads(text)["project"]["dependencies"])


def test_colab_keeps_what_it_has():
    """A TensorFlow that is replaced there often finds no GPU."""
    image = {}
    for line in (_TESTS / "colab_image.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, version = line.split("==")
            image[canonicalize_name(name)] = version
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
