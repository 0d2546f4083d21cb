"""Which weights of a classifier are trained: all, the head, a part, LoRA."""

import math
import re

import keras

from keras_epsched.models.parts import (
    HEAD,
    blocks,
    check_blocks,
    parts_of,
    weighted_layers,
)

MODES = ("full", "head", "last", "lora")
# Projections of attention, as the families of KerasHub name them.
_LORA_TARGETS = r"(query|value|qkv)(_dense|_proj)?$"


def adapt(
    classifier: keras.Model,
    mode: str = "full",
    *,
    last: int = 1,
    rank: int = 8,
    targets: str = _LORA_TARGETS,
) -> keras.Model:
    """Chooses the weights of a classifier that are trained.

    Call it before the trainer is made and compiled. Each mode starts from a
    classifier that is trainable as a whole, so that one may follow another (a
    linear probe, then fine-tuning); only LoRA cannot be undone.

    Frozen BatchNorm layers keep their statistics as well, as always in Keras.
    Files do not say what is frozen: KerasHub does not store it for its inner
    layers, and LoRA is merged into the weights. To train a model that was
    loaded, call `adapt` again.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer, as
            `keras_epsched.models.classifier` makes it. It is changed.
        mode: String. One of:
            - `"full"`: everything;
            - `"head"`: the last `Dense` layer only, a linear probe;
            - `"last"`: the head and the last blocks, see `blocks`;
            - `"lora"`: the head, and a low-rank update of the attention
              projections (Hu et al., ICLR 2022, arXiv 2106.09685).
        last: Int. Number of blocks for `"last"`.
        rank: Int. Rank of the updates of `"lora"`.
        targets: String. Regular expression for the names of the layers that
            get such an update; searched for in each name.

    Returns:
        The classifier.

    Raises:
        ValueError: If the mode is unknown, there are fewer blocks or none
            are found, no layer is a target of LoRA, or the classifier has
            LoRA already.

    Example:
    ```python
    net = keras_epsched.models.classifier("vit_base_patch16_224_imagenet", 120)
    keras_epsched.models.adapt(net, "lora", rank=8)
    print(keras_epsched.models.trainable_parameters(net))
    ```
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {MODES}. Received: {mode!r}")
    layers = weighted_layers(classifier)
    if any(getattr(layer, "lora_enabled", False) for layer in layers):
        raise ValueError(
            "the classifier has LoRA already, which cannot be undone: load it "
            "afresh"
        )
    # Everything can be trained of models without a head, too.
    parts = {} if mode == "full" else parts_of(classifier)
    names = [*dict.fromkeys(parts.values())]
    if mode == "last":
        check_blocks(classifier, "last")
    if mode == "last" and not 1 <= last <= len(names) - 1:
        raise ValueError(
            f"`last` must be between 1 and {len(names) - 1}, the number of "
            f"blocks: {names[:-1]}. Received: last={last}"
        )
    if mode == "lora":
        chosen = _lora_layers(layers, parts, targets)
    # Keras does not hand a True on to layers inside a task of KerasHub.
    for layer in classifier._flatten_layers():
        layer.trainable = True
    kept = names[-1 - last :] if mode == "last" else [HEAD]
    # Inner layers after the outer ones, whose setting reaches all inside.
    for layer in sorted(layers, key=lambda layer: layer.path.count("/")):
        layer.trainable = mode == "full" or parts[id(layer)] in kept
    if mode == "lora":
        for layer in chosen:
            layer.trainable = True
            layer.enable_lora(rank)
            if getattr(layer, "bias", None) is not None:
                layer.bias.trainable = False
    # What is compiled already would go on without LoRA, or with old modes.
    for name in ("train_function", "test_function", "predict_function"):
        setattr(classifier, name, None)
    return classifier


def parameter_groups(
    classifier: keras.Model,
    *,
    head_multiplier: float = 1.0,
    layer_decay: float = 1.0,
    weight_decay: float | None = None,
    head_weight_decay: float | None = None,
) -> list[dict]:
    """Groups of weights for `keras_epsched.training.GroupOptimizer`.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.
        head_multiplier: Float. Learning rate of the head, in multiples of
            that of the optimizer.
        layer_decay: Float in (0, 1]. Factor from each block to the one before
            (Bao et al., BEiT, ICLR 2022, arXiv 2106.08254): the last block
            has it once, the stem most often.
        weight_decay: Float or `None`. Of the backbone; by default that of the
            optimizer.
        head_weight_decay: Float or `None`. Of the head; by default that of
            the backbone.

    Returns:
        A list of `dict`s, one for each block.

    Raises:
        ValueError: If a number is out of range, there is no head, or
            `layer_decay` is asked of a network whose blocks are not found.

    Example:
    ```python
    groups = keras_epsched.models.parameter_groups(net, layer_decay=0.75)
    optimizer = keras_epsched.training.GroupOptimizer(
        keras.optimizers.AdamW(1e-3, weight_decay=0.05), groups
    )
    ```
    """
    if not head_multiplier > 0:
        raise ValueError(
            "`head_multiplier` must be positive. Received: "
            f"head_multiplier={head_multiplier}"
        )
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"`layer_decay` must lie in (0, 1]. Received: {layer_decay}"
        )
    if layer_decay != 1:
        check_blocks(classifier, "layer_decay")
    if head_weight_decay is None:
        head_weight_decay = weight_decay
    found = blocks(classifier)
    groups = []
    for depth, variables in enumerate(reversed(found.values())):
        groups.append(
            {
                "variables": [variable.path for variable in variables],
                "multiplier": layer_decay**depth if depth else head_multiplier,
                "weight_decay": weight_decay if depth else head_weight_decay,
            }
        )
    return groups


def trainable_parameters(classifier: keras.Model) -> str:
    """Says how many parameters are trained, of how many.

    Args:
        classifier: Built `keras.Model`.

    Returns:
        A line of text.

    Example:
    ```python
    print(keras_epsched.models.trainable_parameters(net))
    # 12,010 of 2,341,098 parameters are trained (0.513 %)
    ```
    """
    trained, total = (
        sum(math.prod(variable.shape) for variable in variables)
        for variables in (classifier.trainable_weights, classifier.weights)
    )
    return (
        f"{trained:,} of {total:,} parameters are trained "
        f"({100 * trained / max(total, 1):.3g} %)"
    )


def _lora_layers(layers, parts, targets):
    """The layers that get a low-rank update; never none of them."""
    able = [
        layer
        for layer in layers
        if hasattr(layer, "enable_lora") and parts[id(layer)] != HEAD
    ]
    chosen = [layer for layer in able if re.search(targets, layer.name)]
    if not chosen:
        names = [*dict.fromkeys(layer.name for layer in able)]
        raise ValueError(
            f"no layer is called {targets!r}, so LoRA would freeze the whole "
            "backbone and train the head alone (convolutional networks have "
            "no such projections). Pass `targets`, or another mode. Layers "
            f"that can have LoRA: {names[:20]}"
        )
    return chosen
