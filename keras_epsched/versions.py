"""The versions of the packages that decide a result."""

import importlib
import importlib.metadata

import keras
import numpy as np


def package_versions() -> dict[str, str]:
    """Returns the running versions, and the name of the backend of Keras.

    Example:
    >>> sorted(set(package_versions()) - {keras.config.backend()})
    ['backend', 'keras', 'keras_epsched', 'numpy']
    """
    backend = keras.config.backend()
    try:
        own = importlib.metadata.version("keras-epsched")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
    return {
        "keras_epsched": own,
        "keras": keras.__version__,
        backend: importlib.import_module(backend).__version__,
        "numpy": np.__version__,
        "backend": backend,
    }
