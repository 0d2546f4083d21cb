"""From a name, a folder or a file to a Keras model with its weights.

KerasHub is imported inside the functions that need it: it takes seconds.
"""

import difflib
import os
import pathlib
import zipfile

import keras

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
    with zipfile.ZipFile(path) as archive:
        if b'"keras_hub' in archive.read("config.json"):
            import keras_hub  # noqa: F401  (registers its classes)
    model = keras.models.load_model(path, compile=False)
    inner = getattr(model, "model", None)
    return inner if isinstance(inner, keras.Model) else model


def load_task(
    name: str,
    num_classes: int | None,
    dropout: float,
    seed: int | None,
    dtype: str | keras.DTypePolicy | None,
) -> keras.Model:
    """Loads a KerasHub image classifier with a float32 head giving logits.

    Args:
        name: A KerasHub preset name or handle (`"hf://..."`), the name of a
            bundled preset, or a local preset folder.
        num_classes: Classes of a new head. `None` keeps the preset's head.
        dropout: Dropout rate in front of the head.
        seed: Seed of a new head's initial weights.
        dtype: Dtype policy of the backbone.

    Returns:
        The `keras_hub.models.ImageClassifier`, with its preprocessor.

    Raises:
        ValueError: The name is unknown, or there is no head to keep.
        ConnectionError: The weights could not be downloaded.
    """
    import keras_hub

    preset, remote = _resolve(name)
    if num_classes is None:
        _require_head_weights(name, preset)
    arguments = {"head_dtype": "float32", "dtype": dtype, "compile": False}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if dropout:
        arguments["dropout"] = dropout
    from_preset = keras_hub.models.ImageClassifier.from_preset
    try:
        try:
            task = from_preset(preset, **arguments)
        except FileNotFoundError as error:
            if "image_converter.json" not in str(error):
                raise
            # A backbone on its own: the caller knows the normalisation.
            task = from_preset(preset, preprocessor=None, **arguments)
    except OSError as error:
        if not remote:
            raise
        raise ConnectionError(
            f"The weights of preset {name!r} could not be downloaded "
            f"({type(error).__name__}). Check the network, or download the "
            "preset elsewhere, save it with `task.save_to_preset(folder)` and "
            "pass the folder."
        ) from error
    except TypeError as error:
        if num_classes is not None or "num_classes" not in str(error):
            raise
        raise _no_head(name) from error
    # KerasHub drops arguments that a classifier does not know.
    if dropout and "dropout" not in task.get_config():
        raise ValueError(
            f"{type(task).__name__} has no dropout in its head. "
            f"Received: dropout={dropout}. Use dropout=0."
        )
    if num_classes is not None and seed is not None:
        _initialise_head(task, seed)
    return task


def _resolve(name):
    """Returns what KerasHub understands, and whether it needs a download."""
    import keras_hub

    bundled = bundled_presets()
    classifiers = keras_hub.models.ImageClassifier.presets
    if name in bundled:
        return str(_BUNDLED / name), False
    if name in classifiers or "://" in name:
        return name, True
    if name in keras_hub.models.Backbone.presets:
        raise ValueError(
            "KerasHub has no image classifier for this preset. Load its "
            "backbone with `keras_hub.models.Backbone.from_preset`, build a "
            "`keras.Model` on it that gives pooled features of shape "
            "(batch, channels), and pass that with `num_classes`, `scale` and "
            f"`offset`. Received: source={name!r}"
        )
    if os.path.isfile(os.path.join(name, "config.json")):
        return name, False
    if os.path.isdir(name):
        raise ValueError(
            "Expected a preset folder, as `save_to_preset` writes it, but the "
            f"folder has no config.json. Received: source={name!r}"
        )
    near = difflib.get_close_matches(name, [*bundled, *classifiers], n=5)
    raise ValueError(
        "Expected the name of a KerasHub image classification preset, a "
        "bundled preset, a preset folder or a `.keras` file. "
        f"Received: source={name!r}. "
        + (f"Near matches: {', '.join(near)}. " if near else "")
        + f"Bundled presets: {', '.join(bundled) or 'none'}. All others: "
        "`keras_hub.models.ImageClassifier.presets`."
    )


def _require_head_weights(name, preset):
    """Refuses a local preset whose head KerasHub would leave random."""
    folder = pathlib.Path(preset)
    if (folder / "task.json").is_file() and not (
        folder / "task.weights.h5"
    ).is_file():
        raise _no_head(name)


def _no_head(name):
    return ValueError(
        f"Preset {name!r} has no classification head with weights to keep. "
        "Pass `num_classes` to put a new head on it."
    )


def _initialise_head(task, seed):
    """Draws the kernels of the new head from `seed`.

    KerasHub's heads take no initialiser, so the draw is repeated.
    """
    backbone = {id(layer) for layer in task.backbone._flatten_layers()}
    for index, layer in enumerate(task._flatten_layers(include_self=False)):
        initializer = getattr(layer, "kernel_initializer", None)
        if id(layer) in backbone or not layer.built or initializer is None:
            continue
        config = initializer.get_config()
        if "seed" in config:
            config["seed"] = seed + index
            redraw = type(initializer).from_config(config)
            layer.kernel.assign(redraw(layer.kernel.shape, layer.kernel.dtype))
