"""Presets that come with the package, and `.keras` files."""

import os
import pathlib
import zipfile

import keras

from keras_epsched import optional

_BUNDLED = pathlib.Path(__file__).resolve().parents[1] / "presets"


def bundled_presets() -> list[str]:
    """Returns the names of the presets that come with the package.

    They need no download. Use them for tests, tutorials and quick studies.

    Returns:
        List of names, sorted. `keras_epsched.models.classifier` accepts each.

    Example:
    ```python
    for name in keras_epsched.models.bundled_presets():
        net = keras_epsched.models.classifier(name)
    ```
    """
    return sorted(path.parent.name for path in _BUNDLED.glob("*/config.json"))


def bundled_folder(name: str) -> str:
    """Returns the folder of a bundled preset."""
    return str(_BUNDLED / name)


def load(path: str | os.PathLike) -> keras.Model:
    """Loads a classifier from a `.keras` file.

    Use it for a classifier or for a trainer that was saved with `save` or with
    `ModelCheckpoint`. If the file holds an `AdversarialTrainer`, the
    classifier inside it is returned. If the model has parts of KerasHub, this
    function imports KerasHub, which `keras.models.load_model` does not.

    Args:
        path: Path of a `.keras` file.

    Returns:
        The `keras.Model` that takes pixels and returns logits, uncompiled.

    Raises:
        ValueError: If the file does not exist, is corrupt, or is not a
            `.keras` file.
        ImportError: If the model has parts of KerasHub and KerasHub is not
            installed.

    Example:
    ```python
    net.save("net.keras")
    net = keras_epsched.models.load("net.keras")
    ```
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(
            "Expected the path of an existing `.keras` file. "
            f"Received: path={str(path)!r}, resolved to {path.resolve()}"
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            "Expected a file in the `.keras` format (a zip archive), as "
            "`model.save('name.keras')` writes it. The file is not a zip "
            f"archive. Received: path={str(path)!r}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            config = archive.read("config.json")
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise _corrupt(path, error) from error
    if damaged is not None:
        raise _corrupt(path, f"in {damaged}")
    # The imports register the classes that the file needs.
    if b'"keras_hub' in config:
        optional.package("keras_hub", f"The model in {str(path)!r}")
    if b'"keras_epsched>DINOV2' in config:
        from keras_epsched.models import dinov2  # noqa: F401
    model = keras.models.load_model(path, compile=False)
    inner = getattr(model, "model", None)
    return inner if isinstance(inner, keras.Model) else model


def _corrupt(path, error):
    return ValueError(
        f"The file {str(path)!r} is corrupt ({error}). Save or copy it again."
    )
