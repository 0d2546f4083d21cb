"""Makes networks from KerasHub tasks and backbones.

KerasHub is imported inside the functions that need it, because the import
takes seconds.
"""

import contextlib
import os
import pathlib
import sys

import keras

from keras_epsched.models import (
    checkpoints,
    names,
    presets,
    resolution,
    towers,
)
from keras_epsched.models.networks import Network


def load(
    name: str,
    num_classes: int | None,
    *,
    image_size: tuple[int, int] | None,
    weights: str | os.PathLike | None,
    dropout: float,
    seed: int | None,
    dtype: str | keras.DTypePolicy | None,
) -> Network:
    """Loads a KerasHub preset: an image classifier, or an image encoder.

    Args:
        name: A preset name or handle (`"hf://..."`), the name of a bundled
            preset, or a folder with a KerasHub preset or with a Hugging Face
            or timm checkpoint in safetensors.
        num_classes: Number of classes of a new head. `None` keeps the
            preset's head.
        image_size: `(height, width)`. Defaults to the preset's.
        weights: `"pretrained"`. Any other value gives random weights.
        dropout: Dropout rate before the head.
        seed: Seed of a new head's initial weights.
        dtype: Dtype policy of the backbone.

    Returns:
        The network. A file of weights is not loaded yet.

    Raises:
        ValueError: If the name is unknown, there is no head to keep, or a
            file is corrupt.
        ConnectionError: If the weights cannot be downloaded.
        ImportError: If KerasHub or safetensors is needed and not installed.
    """
    keras_hub = names.keras_hub(name)
    preset, remote = _located(name)
    pretrained = weights == "pretrained"
    config = {}
    if not remote and pretrained:
        config = checkpoints.check_folder(preset)
    foreign = bool(config) and "registered_name" not in config
    if num_classes is None and pretrained:
        _require_head_weights(name, preset)
    arguments = {"dtype": dtype, "load_weights": pretrained}
    scale = offset = None
    with _explained(name, preset, remote):
        try:
            model = _task(preset, num_classes, dropout, arguments)
        except ValueError as error:
            if "Unable to find a subclass" not in str(error):
                raise
            if num_classes is None:
                raise _no_head(name) from error
            model = keras_hub.models.Backbone.from_preset(preset, **arguments)
        converter = _converter(model, preset)
    if converter is not None:
        scale, offset = normalisation(converter)
    elif foreign:
        # KerasHub reads this file only for some architectures.
        scale, offset = checkpoints.normalisation(preset) or (None, None)
    network = from_model(model, num_classes, image_size, dtype)
    if not network.needs_head and num_classes is not None:
        # KerasHub silently ignores arguments that a classifier does not have.
        if dropout and "dropout" not in model.get_config():
            raise ValueError(
                f"{type(model).__name__} has no dropout in its head. "
                f"Received: dropout={dropout}. Use dropout=0."
            )
        if seed is not None:
            _initialise_head(network.holders[0], seed)
    network.scale, network.offset = scale, offset
    network.is_preset = True
    if network.image_size is None and converter is not None:
        network.image_size = converter.image_size
    return network


def is_backbone(model: object) -> bool:
    """Returns whether a model is a KerasHub backbone. Imports nothing."""
    hub = sys.modules.get("keras_hub")
    return hub is not None and isinstance(model, hub.models.Backbone)


def is_task(model: object) -> bool:
    """Returns whether a model is a KerasHub classifier. Imports nothing."""
    hub = sys.modules.get("keras_hub")
    return hub is not None and isinstance(model, hub.models.ImageClassifier)


def from_model(
    model: keras.Model,
    num_classes: int | None,
    image_size: tuple[int, int] | None,
    dtype: str | keras.DTypePolicy | None = None,
) -> Network:
    """Returns the network of a KerasHub task or backbone.

    Args:
        model: A `keras_hub.models.ImageClassifier` or `Backbone`.
        num_classes: Number of classes of a new head.
        image_size: `(height, width)`. `None` keeps the model's.
        dtype: Dtype policy of an image encoder.

    Returns:
        The network, without normalisation. A task keeps its head.

    Raises:
        ValueError: If the size does not fit, or a head is missing.
    """
    if is_backbone(model):
        if num_classes is None:
            raise _no_head(type(model).__name__)
        tower = towers.image_tower(model)
        tower = resolution.at_size(tower, image_size, dtype)
        features = towers.pooled(tower, model)
        own = features.input_shape[1:3]
        holders: tuple = (model, tower, features)
    else:
        features = tower = task_at_size(model, image_size)
        own = tower.input_shape[1:3]
        holders = (tower, tower.backbone)
    return Network(
        features,
        needs_head=is_backbone(model),
        image_size=image_size or (None if None in own else own),
        holders=holders,
    )


def task_at_size(
    task: keras.Model, image_size: tuple[int, int] | None
) -> keras.Model:
    """Returns an image classifier at another size, with the same weights.

    Args:
        task: A `keras_hub.models.ImageClassifier`.
        image_size: `(height, width)`. `None` keeps the size.

    Returns:
        A new task, or the task itself if it takes that size already.

    Raises:
        ValueError: If the architecture does not take that size.
    """
    backbone = resolution.at_size(task.backbone, image_size)
    if backbone is task.backbone:
        return task
    config = {
        **task.get_config(),
        "backbone": backbone,
        "preprocessor": task.preprocessor,
        "head_dtype": "float32",
        "compile": False,
    }
    resized = type(task)(**config)
    heads = [
        [w for w in model.weights if id(w) not in set(map(id, body.weights))]
        for model, body in ((task, task.backbone), (resized, backbone))
    ]
    for source, target in zip(*heads, strict=True):
        target.assign(source.value)
    return resized


def normalisation(converter) -> tuple:
    """Returns a converter's scale and offset, on pixels in 0..255."""
    return (
        1.0 if converter.scale is None else converter.scale,
        0.0 if converter.offset is None else converter.offset,
    )


def _task(preset, num_classes, dropout, arguments):
    """Loads an image classifier with a float32 head that returns logits."""
    import keras_hub

    arguments = {**arguments, "head_dtype": "float32", "compile": False}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if dropout:
        arguments["dropout"] = dropout
    from_preset = keras_hub.models.ImageClassifier.from_preset
    try:
        return from_preset(preset, **arguments)
    except FileNotFoundError as error:
        if "image_converter.json" not in str(error):
            raise
        # The preset is only a backbone. The caller passes the normalisation.
        return from_preset(preset, preprocessor=None, **arguments)


def _converter(model, preset):
    """Returns the image converter of a preset, or `None`."""
    import keras_hub

    if not is_backbone(model):
        return getattr(model.preprocessor, "image_converter", None)
    with contextlib.suppress(FileNotFoundError, ValueError):
        return keras_hub.layers.ImageConverter.from_preset(preset)
    return None


def _located(name):
    """Returns the preset for KerasHub, and whether it is downloaded."""
    if name in presets.bundled_presets():
        return presets.bundled_folder(name), False
    if name in names.image_presets() or "://" in name:
        return name, True
    if os.path.isfile(os.path.join(name, "config.json")):
        return name, False
    if os.path.isdir(name):
        raise ValueError(
            "The folder has no config.json. Expected the folder of a KerasHub "
            "preset (as `save_to_preset` writes it), or of a Hugging Face or "
            f"timm checkpoint. Received: source={name!r}"
        )
    raise names.unknown(name)


@contextlib.contextmanager
def _explained(name, preset, remote):
    """Replaces KerasHub's errors by ones that say what to do."""
    try:
        yield
    except OSError as error:
        if not remote:
            raise
        raise ConnectionError(
            f"The weights of preset {name!r} could not be downloaded "
            f"({type(error).__name__}). Check the network. Or use a machine "
            "that has one: save the weights there with "
            f"`keras_hub.models.Backbone.from_preset({name!r})"
            ".save_to_preset(folder)`, add the normalisation with "
            f"`keras_hub.layers.ImageConverter.from_preset({name!r})"
            ".save_to_preset(folder)`, bring the folder here and pass its "
            "path instead of the name."
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, TypeError) and "num_classes" in str(error):
            raise _no_head(name) from error
        if remote or "Unable to find a subclass" in str(error):
            raise
        raise ValueError(
            f"The checkpoint in {preset!r} does not fit its configuration, or "
            "KerasHub cannot read it. If only the number of classes of its "
            "head differs, pass `num_classes` for a new head. "
            f"KerasHub says: {error}"
        ) from error


def _require_head_weights(name, preset):
    """Refuses a local preset without weights for its head.

    KerasHub would load it with a random head.
    """
    folder = pathlib.Path(preset)
    if (folder / "task.json").is_file() and not (
        folder / "task.weights.h5"
    ).is_file():
        raise _no_head(name)


def _no_head(name):
    return ValueError(
        f"{name!r} has no classification head with weights to keep. "
        "Pass `num_classes` to add a new head."
    )


def _initialise_head(task, seed):
    """Draws the kernels of the new head from `seed`.

    KerasHub's heads take no initialiser, so the kernels are drawn again.
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
