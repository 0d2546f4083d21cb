"""Loads bundled presets when KerasHub is not installed.

The folder of each preset has a `network.json`: the graph of its backbone,
written with layers of Keras only. The weights of the preset fit this graph.
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
    """Writes the `network.json` of a preset, which `load` needs.

    Args:
        backbone: A KerasHub backbone that consists of Keras layers.
        folder: Folder of the preset.
    """
    plain = keras.Model(backbone.input, backbone.output, name=backbone.name)
    graph = _without_defaults(json.loads(plain.to_json()))
    path = pathlib.Path(folder) / _GRAPH
    files.write(path, json.dumps(graph) + "\n")


def _without_defaults(node):
    """Removes the arguments that have their default values.

    An older version of Keras may not know all arguments. Without them it can
    read the file that a newer version wrote.
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
    """Returns the Keras class that an entry describes, or `None`."""
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
        num_classes: Number of classes of a new head. `None` keeps the
            preset's head.
        image_size: `(height, width)`. Defaults to the preset's.
        weights: `"pretrained"`. Any other value gives random weights.
        dtype: Dtype policy of the backbone.

    Returns:
        The network, with the same layers and weights that KerasHub builds.

    Raises:
        ValueError: If a file is corrupt.
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
    """Copies the weights of the head from the file of a KerasHub task."""
    import h5py

    with h5py.File(path) as file:
        stored = file["layers/dense/vars"]
        dense.set_weights([stored["0"][()], stored["1"][()]])


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))
