"""Presets that come with the package, and files that it wrote."""

import os
import pathlib
import zipfile

import keras

from keras_epsched import optional

_BUNDLED = pathlib.Path(__file__).resolve().parents[1] / "presets"


def bundled_presets() -> list[str]:
    """Returns the names of the presets that come with the package.

    They need no network: use them for tests, tutorials and quick studies.

    Returns:
        The sorted names, each accepted by `keras_epsched.models.classifier`.

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

    Use it for what this toolkit saved: the classifier itself, or the trainer
    around it (as `ModelCheckpoint` saves it), of which it returns the
    classifier. The model comes back uncompiled. KerasHub is imported when the
    file has parts of it, which plain `keras.models.load_model` leaves to you.

    Args:
        path: A `.keras` file.

    Returns:
        The `keras.Model` that takes pixels and gives logits.

    Raises:
        ValueError: The file does not exist, or is no `.keras` file.
        ImportError: The model has parts of KerasHub, which is not installed.

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
            "`model.save('name.keras')` writes. "
            f"Received: path={str(path)!r}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            config = archive.read("config.json")
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise _corrupt(path, error) from error
    if damaged is not None:
        raise _corrupt(path, f"in {damaged}")
    # Importing registers their classes.
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
