"""Splits a classifier into its parts: the stem, the blocks and the head."""

import collections
import re

import keras

from keras_epsched.models import heads

HEAD = "head"
STEM = "stem"

# The names of blocks in the families of KerasHub and keras.applications.
# Names such as "block35_1_conv" (InceptionResNetV2) are excluded, because only
# some layers of such a block have the name.
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

    Use it to see which blocks `adapt` with `mode="last"` would train.

    A block is what the family of networks names a block, such as a residual
    block or a transformer layer. Layers between two blocks, such as a
    normalisation layer, belong to the block before them.

    If the layer names contain no blocks, the network is split at each layer
    that all paths from the input to the output pass through. A block is then
    one layer with the normalisation after it, or several branches with the
    layer that merges them.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.

    Returns:
        A `dict` from the name of each part to its trainable variables, in
        order from the input to the `"head"`.

    Raises:
        ValueError: If the classifier does not end in a `Dense` layer.

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
    """Returns the trainable variables of the head.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.

    Raises:
        ValueError: If the classifier does not end in a `Dense` layer.
    """
    return _head(classifier).trainable_variables


def parts_of(classifier: keras.Model) -> dict[int, str]:
    """Returns the part of each layer with weights, by the layer's id.

    Raises:
        ValueError: If the classifier does not end in a `Dense` layer.
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
    """Returns the layers with own weights, from the input to the output."""
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
    """Returns the segment of each layer, by the layer's id.

    A segment ends at a node that all paths pass through, and has its name.
    """
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
            # All paths pass through this node, so a segment ends here.
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
    # A segment of only normalisation layers belongs to the block before it.
    if all(isinstance(layer, _NORMALISATIONS) for layer in layers):
        return {}
    return {id(layer): name for layer in layers}


def block_name(layer: keras.layers.Layer) -> str | None:
    """Returns the block that a layer's path names, or `None`."""
    match = _BLOCK.search(layer.path)
    if match is None:
        return None
    # "conv_dw_1" and "conv_pw_1" are two halves of one separable block.
    return layer.path[: match.end()].replace("conv_pw_", "conv_dw_")


def _head(model):
    """Returns the `Dense` layer at the end of a graph."""
    if heads.is_graph(model):
        layer, x = heads.producer(model.outputs[0])
        while isinstance(layer, keras.layers.Activation | keras.layers.Softmax):
            layer, x = heads.producer(x)
        if isinstance(layer, keras.layers.Dense):
            return layer
        if isinstance(layer, keras.Model):
            return _head(heads.plain(layer))
    raise ValueError(
        f"The model {model.name!r} does not end in a `Dense` layer, so its "
        "head and its backbone cannot be separated. Make the model with "
        "`keras_epsched.models.classifier(model, num_classes)`, which adds a "
        "`Dense` head."
    )


def check_blocks(classifier: keras.Model, argument: str) -> None:
    """Refuses a network of several layers that cannot be split into blocks.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.
        argument: String. The argument that needs blocks, for the error
            message.

    Raises:
        ValueError: If all layers are in one block, or there is no head.
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
            f"`{argument}` needs blocks, but the layer names of "
            f"{classifier.name!r} do not show them: all its {len(layers)} "
            f"layers are in {parts[id(layers[0])]!r}. Name the layers after "
            "their blocks, for example 'block_1_conv'."
        )
