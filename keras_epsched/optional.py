"""Imports packages that only some functions need."""

import importlib
from types import ModuleType


def package(name: str, purpose: str, instead: str = "") -> ModuleType:
    """Imports a package that may not be installed.

    Args:
        name: String. The module to import, such as `"keras_hub"`.
        purpose: String. Who needs the package: the subject of the first
            sentence of the error message.
        instead: String. What works without the package: the last sentence of
            the error message.

    Returns:
        The module.

    Raises:
        ImportError: If the package cannot be imported. The message says how
            to install it.

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
            f"({error}). Install it with `pip install {title}`. {instead}"
        )
        raise ImportError(message.strip(), name=name) from error


def available(*names: str) -> bool:
    """Returns whether all of these packages can be imported.

    Args:
        *names: Strings. Names of the modules.

    Returns:
        Boolean. If it is `True`, the packages have been imported.

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
