"""The parts of a classifier: its stem, its blocks and its head."""

import collections
import re

import keras

from keras_epsched.models import heads

HEAD = "head"
STEM = "stem"

# How the families of KerasHub and keras.applications name their blocks. In
# "block35_1_conv" (InceptionResNetV2) only some layers of a block are named.
_BLOCK = re.compile(
    r"stage_?\d+[/_]blocks?_?\d+|(conv|stack)\d+_block\d+"
    r"|block_?((stem|reduce)_)?\d+(?!\d)[a-z]?(?!_\d)"
    r"|layers?_\d+|expanded_conv_\d+|conv_[dp]w_\d+"
)
_NORMALISATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def blocks(classifier: keras.Model) -> dict[str, list[keras.Variable]]:
    """Splits a classifier into stem, blocks and head.

    A block is what its family calls one (a residual block, a layer of a
    transformer); layers between two blocks, such as a last normalisation,
    belong to the block before. In networks that name none, a block is what
    lies between two layers through which all paths lead: a layer together with
    the normalisation behind it, or branches with the layer that merges them.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.

    Returns:
        A `dict` of the trainable variables of each, in order from the input
        to the `"head"`.

    Raises:
        ValueError: If there is no head.

    Example:
    ```python
    print([*keras_epsched.models.blocks(net)])
    ```
    """
    parts = parts_of(classifier)
    found = {name: [] for name in parts.values()}
    for layer in weighted_layers(classifier):
        if id(layer) in parts:
            found[parts[id(layer)]] += layer._trainable_variables
    return found


def head_variables(classifier: keras.Model) -> list[keras.Variable]:
    """The trained variables of the `Dense` layer that ends a classifier.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.

    Raises:
        ValueError: If there is no head.
    """
    return _head(classifier).trainable_variables


def parts_of(classifier: keras.Model) -> dict[int, str]:
    """The part that each layer with weights belongs to, by the layer's id.

    Raises:
        ValueError: If there is no head.
    """
    head = _head(classifier)
    layers = [each for each in weighted_layers(classifier) if each is not head]
    names = {id(layer): block_name(layer) for layer in layers}
    if not any(names.values()):
        names = _segments(classifier)
    parts, current = {}, STEM
    for layer in layers:
        current = names.get(id(layer)) or current
        parts[id(layer)] = current
    return {**parts, id(head): HEAD}


def weighted_layers(classifier: keras.Model) -> list[keras.layers.Layer]:
    """Layers with weights of their own, from the input to the output."""
    found = {}

    def walk(layer):
        for inner in layer._layers:
            if id(inner) in found:
                continue
            found[id(inner)] = inner
            walk(inner)

    walk(classifier)
    return [
        layer
        for layer in found.values()
        if layer._trainable_variables or layer._non_trainable_variables
    ]


def _segments(model, prefix=""):
    """The name of the layer where the branches around each layer merge."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth]]
    readers = collections.Counter(
        id(tensor) for node in nodes for tensor in node.input_tensors
    )
    found, members, unread = {}, [], set()
    for node in nodes:
        members.append(node.operation)
        readers.subtract(id(tensor) for tensor in node.input_tensors)
        unread = {tensor for tensor in unread if readers[tensor]}
        if not unread:
            # All paths lead through this one.
            found |= _segment(members, prefix)
            members = []
        unread |= {id(x) for x in node.outputs if readers[id(x)]}
    return found


def _segment(members, prefix):
    name = f"{prefix}{members[-1].name}"
    if len(members) == 1:
        model = heads.plain(members[0])
        if heads.is_graph(model):
            return _segments(model, f"{name}/")
    layers = [
        layer
        for member in members
        if isinstance(member, keras.layers.Layer)
        for layer in member._flatten_layers()
        if layer._trainable_variables
    ]
    # Normalisation alone belongs to the block before.
    if all(isinstance(layer, _NORMALISATIONS) for layer in layers):
        return {}
    return {id(layer): name for layer in layers}


def block_name(layer: keras.layers.Layer) -> str | None:
    """The block that a layer's path says it is in, if any."""
    match = _BLOCK.search(layer.path)
    if match is None:
        return None
    # The two halves of a depthwise separable block.
    return layer.path[: match.end()].replace("conv_pw_", "conv_dw_")


def _head(model):
    """The `Dense` layer that ends a graph."""
    if heads.is_graph(model):
        layer, x = heads.producer(model.outputs[0])
        while isinstance(layer, keras.layers.Activation | keras.layers.Softmax):
            layer, x = heads.producer(x)
        if isinstance(layer, keras.layers.Dense):
            return layer
        if isinstance(layer, keras.Model):
            return _head(heads.plain(layer))
    raise ValueError(
        f"the model {model.name!r} does not end in a `Dense` layer, so its "
        "head cannot be told from its backbone: make it with "
        "`keras_epsched.models.classifier`"
    )


def check_blocks(classifier: keras.Model, argument: str) -> None:
    """Refuses a network that is one block, though it has many layers.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.
        argument: String. What needs the blocks, for the error.

    Raises:
        ValueError: If it is, or has no head.
    """
    parts = parts_of(classifier)
    layers = [
        layer
        for layer in weighted_layers(classifier)
        if layer._trainable_variables
        and parts[id(layer)] != HEAD
        and not isinstance(layer, _NORMALISATIONS)
    ]
    if len(layers) > 1 and len({parts[id(layer)] for layer in layers}) == 1:
        raise ValueError(
            f"`{argument}` needs blocks, and those of {classifier.name!r} "
            f"cannot be told apart: all its {len(layers)} layers are in "
            f"{parts[id(layers[0])]!r}. Give its layers names with the block, "
            "as 'block_1_conv'"
        )
