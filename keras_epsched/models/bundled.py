"""Bundled presets where KerasHub is not installed.

Beside each lies `network.json`, the graph of its backbone in layers of Keras
alone, which the preset's own weights fit.
"""

import importlib
import inspect
import json
import os
import pathlib

import keras

from keras_epsched import files
from keras_epsched.models import checkpoints, heads
from keras_epsched.models.networks import Network

_GRAPH = "network.json"


def save_graph(backbone: keras.Model, folder: str | os.PathLike) -> None:
    """Writes what `load` needs besides the preset.

    Args:
        backbone: A KerasHub backbone made of Keras layers.
        folder: Folder of the preset.
    """
    plain = keras.Model(backbone.input, backbone.output, name=backbone.name)
    graph = _without_defaults(json.loads(plain.to_json()))
    path = pathlib.Path(folder) / _GRAPH
    files.write(path, json.dumps(graph) + "\n")


def _without_defaults(node):
    """Leaves out arguments that are at their defaults.

    An older Keras may not have them: then it can read what a newer one wrote.
    """
    if isinstance(node, list):
        return [_without_defaults(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {name: _without_defaults(each) for name, each in node.items()}
    made = _class_of(node)
    if made is not None:
        parameters = inspect.signature(made.__init__).parameters
        node["config"] = {
            name: value
            for name, value in node["config"].items()
            if name not in parameters or parameters[name].default != value
        }
    return node


def _class_of(node):
    """The class of Keras that an entry stands for, if it is one."""
    module = str(node.get("module"))
    if not isinstance(node.get("config"), dict) or (
        module.split(".")[0] != "keras" or "src" in module
    ):
        return None
    return getattr(importlib.import_module(module), node["class_name"])


def load(
    folder: str | os.PathLike,
    num_classes: int | None,
    *,
    image_size: tuple[int, int] | None,
    weights: str | os.PathLike | None,
    dtype: str | keras.DTypePolicy | None,
) -> Network:
    """Loads a bundled preset without KerasHub.

    Args:
        folder: Folder of the preset.
        num_classes: Classes of a new head. `None` keeps the preset's head.
        image_size: `(height, width)`; defaults to the preset's.
        weights: `"pretrained"`, or anything else for random weights.
        dtype: Dtype policy of the backbone.

    Returns:
        The network: the same layers and weights as from KerasHub.

    Raises:
        ValueError: A file is corrupt.
    """
    folder = pathlib.Path(folder)
    checkpoints.check_folder(folder)
    graph = _read(folder / _GRAPH)
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    for layer in graph["config"]["layers"]:
        if layer["class_name"] != "InputLayer":
            layer["config"]["dtype"] = keras.saving.serialize_keras_object(
                policy
            )
    backbone = keras.models.model_from_json(json.dumps(graph))
    converter = _read(folder / "image_converter.json")["config"]
    pretrained = weights == "pretrained"
    if pretrained:
        backbone.load_weights(folder / "model.weights.h5")
    model = backbone
    if num_classes is None:
        task = _read(folder / "task.json")["config"]
        logits = heads.new_head(backbone.output, task["num_classes"], 0.0, None)
        model = keras.Model(backbone.input, logits, name=task["name"])
        if pretrained:
            _load_head(model.layers[-1], folder / "task.weights.h5")
    return Network(
        model,
        needs_head=num_classes is not None,
        image_size=image_size or tuple(converter["image_size"]),
        scale=converter["scale"],
        offset=converter["offset"],
        holders=(model, backbone),
        is_preset=True,
    )


def _load_head(dense, path):
    """Takes the weights of a `Dense` layer from a task of KerasHub."""
    import h5py

    with h5py.File(path) as file:
        stored = file["layers/dense/vars"]
        dense.set_weights([stored["0"][()], stored["1"][()]])


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))
