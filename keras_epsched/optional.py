"""Packages that only a part of the library needs, imported where it does."""

import importlib
from types import ModuleType


def package(name: str, purpose: str, instead: str = "") -> ModuleType:
    """Imports a package that may not be installed.

    Args:
        name: String. What is imported, as `"keras_hub"`.
        purpose: String. What needs it, the beginning of the error.
        instead: String. What there is without it, the end of the error.

    Returns:
        The module.

    Raises:
        ImportError: If it cannot be imported; says what to install.

    Example:
    ```python
    keras_hub = package("keras_hub", "The preset 'resnet_50_imagenet'")
    ```
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        title = name.replace("_", "-")
        message = (
            f"{purpose} needs the package {title}, which cannot be imported "
            f"({error}). Install it: `pip install {title}`. {instead}"
        )
        raise ImportError(message.strip(), name=name) from error


def available(*names: str) -> bool:
    """Says whether all of these packages can be imported.

    Args:
        *names: Strings.

    Returns:
        Boolean. They are imported where it is `True`.

    Example:
    ```python
    available("tensorflow", "tensorflow_datasets")
    ```
    """
    try:
        for name in names:
            importlib.import_module(name)
    except ImportError:
        return False
    return True
