"""Chooses the trained weights: all, the head, the last blocks, or LoRA."""

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
# The names of attention projections in the families of KerasHub.
_LORA_TARGETS = r"(query|value|qkv)(_dense|_proj)?$"


def adapt(
    classifier: keras.Model,
    mode: str = "full",
    *,
    last: int = 1,
    rank: int = 8,
    targets: str = _LORA_TARGETS,
) -> keras.Model:
    """Chooses which weights of a classifier are trained.

    Use it to train a linear probe, only the last blocks, or a low-rank update
    (LoRA) instead of all weights. Call it before you make and compile the
    trainer.

    Each call replaces the choice of the call before, so you can train a
    linear probe first and fine-tune all weights after it. LoRA is the
    exception: it cannot be undone.

    A frozen BatchNorm layer also keeps its moving statistics, as always in
    Keras. A saved file does not record which weights are frozen: KerasHub does
    not store it for inner layers, and LoRA updates are merged into the
    weights. Call `adapt` again before you train a model that was loaded from a
    file.

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer, as
            `keras_epsched.models.classifier` makes it. It is changed in
            place.
        mode: String. The weights to train:

            - `"full"`: all weights;
            - `"head"`: only the last `Dense` layer (a linear probe);
            - `"last"`: the head and the last blocks (`blocks` lists them);
            - `"lora"`: the head, and a low-rank update of the attention
              projections (Hu et al., ICLR 2022, arXiv 2106.09685).
        last: Int. Number of blocks that `"last"` trains, besides the head.
        rank: Int. Rank of the updates that `"lora"` trains.
        targets: String. Regular expression that selects the layers to update
            with LoRA. It is searched for in the name of each layer.

    Returns:
        The same classifier.

    Raises:
        ValueError: If the mode is unknown, the classifier has fewer than
            `last` blocks or its blocks cannot be found, no layer name matches
            `targets`, or the classifier has LoRA already.

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
            "The classifier has LoRA already, which cannot be undone. Load "
            "the classifier again and call `adapt` on the new one."
        )
    # "full" needs no parts, so it also takes a model without a head.
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
    # Keras does not pass True on to the layers inside a KerasHub task.
    for layer in classifier._flatten_layers():
        layer.trainable = True
    kept = names[-1 - last :] if mode == "last" else [HEAD]
    # Outer layers first: their setting changes all layers inside them.
    for layer in sorted(layers, key=lambda layer: layer.path.count("/")):
        layer.trainable = mode == "full" or parts[id(layer)] in kept
    if mode == "lora":
        for layer in chosen:
            layer.trainable = True
            layer.enable_lora(rank)
            if getattr(layer, "bias", None) is not None:
                layer.bias.trainable = False
    # A function that is compiled already would keep the old choice.
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
    """Groups the weights by block, each with its own learning rate.

    Use it with `keras_epsched.training.GroupOptimizer` to train a new head
    faster than the pretrained backbone, or early blocks slower than late ones
    (layer-wise learning-rate decay).

    Args:
        classifier: `keras.Model` whose graph ends in a `Dense` layer.
        head_multiplier: Float. The head's learning rate, divided by the
            learning rate of the optimizer.
        layer_decay: Float in (0, 1]. The learning rate of the last block is
            the optimizer's times `layer_decay`, and each block before it has
            `layer_decay` times the rate of its successor. The stem has the
            smallest (Bao et al., BEiT, ICLR 2022, arXiv 2106.08254).
        weight_decay: Float or `None`. Weight decay of the backbone. `None`
            uses that of the optimizer.
        head_weight_decay: Float or `None`. Weight decay of the head. `None`
            uses that of the backbone.

    Returns:
        A list of `dict`s, one for each block, from the head to the stem. The
        keys are `"variables"` (paths of the variables), `"multiplier"` and
        `"weight_decay"`.

    Raises:
        ValueError: If a number is out of range, the classifier has no head,
            or `layer_decay` is not 1 and the blocks cannot be found.

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
            "`layer_decay` must be above 0 and at most 1. "
            f"Received: layer_decay={layer_decay}"
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
    """Describes how many of a model's parameters are trained.

    Args:
        classifier: `keras.Model` that is built.

    Returns:
        One line of text, to be printed.

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
    """Returns the layers to update with LoRA; raises if there is none."""
    able = [
        layer
        for layer in layers
        if hasattr(layer, "enable_lora") and parts[id(layer)] != HEAD
    ]
    chosen = [layer for layer in able if re.search(targets, layer.name)]
    if not chosen:
        names = [*dict.fromkeys(layer.name for layer in able)]
        raise ValueError(
            f"The name of no layer matches targets={targets!r}, so LoRA would "
            "freeze the whole backbone and train the head alone. "
            "Convolutional networks have no attention projections, which are "
            'the default targets. Use mode="full" or mode="last", or pass '
            "`targets` that match some of these layers, which can have LoRA: "
            f"{names[:20]}"
        )
    return chosen
