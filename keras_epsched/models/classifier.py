"""One function that makes a pixel-space classifier of almost anything."""

import operator
import os
from collections.abc import Sequence

import keras

from keras_epsched import provenance
from keras_epsched.models import checkpoints, heads, pixels, sources

_USUAL_VALUES = (
    "Usual values, for pixels in 0..255: scale=1/127.5, offset=-1.0 "
    "(MobileNet, Inception, Xception, most ViT); scale=1/255, offset=0.0; "
    "scale=[1/(255*s) for s in std], offset=[-m/s for m, s in zip(mean, std)] "
    "(ImageNet mean and std, as torchvision and timm); scale=1.0, offset=0.0 "
    "where the model normalises by itself (EfficientNet, ConvNeXt)."
)


def classifier(
    source: str | os.PathLike | keras.Model,
    num_classes: int | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    weights: str | os.PathLike | None = "pretrained",
    backbone_config: dict | None = None,
    scale: float | Sequence[float] | None = None,
    offset: float | Sequence[float] | None = None,
    value_range: tuple[float, float] = (0, 255),
    dropout: float = 0.0,
    seed: int | None = None,
    dtype: str | keras.DTypePolicy | None = None,
    name: str | None = None,
) -> keras.Model:
    """Makes a classifier from pixels to logits of a pretrained network.

    Attacks, training and evaluation work on the image as the user has it, so
    the normalisation of the network becomes part of the model: the result
    takes float32 pixels of shape `(batch, height, width, channels)` in
    `value_range` and gives float32 logits of shape `(batch, num_classes)`,
    whatever the dtype policy. Pixels stay float32 until they are normalised:
    float16 would round those above 128 to eighths.

    A source is one of:

    1. A name. Of the paper's backbones: `"ViT-B/16"`, `"Swin-B"`,
       `"ConvNeXt-B"`, `"ResNet-50"`, `"CLIP ViT-B/16"`, or as the paper or
       timm call them. Of KerasHub: any preset with images
       (`"vit_base_patch16_224_imagenet"`), or a handle
       (`"hf://user/model"`). Of Keras: `"keras.applications.MobileNet"`, or
       just `"MobileNet"`. Or a bundled preset (see
       `keras_epsched.models.bundled_presets`), which needs no KerasHub. CLIP,
       SigLIP, MetaCLIP 2 and DINO get a linear head on the pooled features of
       the image.
       `python -m keras_epsched.models.table` lists them all.
    2. A folder: a KerasHub preset, or a Hugging Face or timm checkpoint in
       safetensors. Names go before folders.
    3. A `keras.Model`, or the path of a `.keras` file with one. Without
       `num_classes` it is a finished classifier that must give logits, and is
       taken as it is. With `num_classes` it gets a new head: a last `Dense`
       layer (and the activation behind it) is cut off, features of rank 4 are
       averaged over the image, and a new `Dense` layer follows. Layers are
       shared with the model that was passed, not copied. A KerasHub task
       brings the normalisation of its image converter; a KerasHub backbone is
       pooled as its preset would be. A subclassed model must be built; it
       casts pixels to its compute dtype at its door, and its softmax cannot be
       seen.

    The normalisation of 1 is known: it is that of the preset's image
    converter, or of the family's `preprocess_input`; for 2 it is also read
    from `preprocessor_config.json`. Images are *not* resized.

    The head is new, with random weights, whenever `num_classes` is given,
    also where it is the old number.

    Args:
        source: Name, folder, `keras.Model`, or `.keras` file.
        num_classes: Classes of the new head. `None` keeps the head.
        image_size: `(height, width)`. Defaults to that of the preset's image
            converter, or of the model's input. A transformer's position
            embeddings are interpolated to another size, if its patches (and
            windows) fill the image; else the network's input size must be
            free.
        weights: `"pretrained"`: those that come with the source, downloaded
            where needed (`"imagenet"` is the same). `None`: random. Or the
            path of a `.weights.h5` file (`.h5` for keras.applications), saved
            from the backbone or from a classifier that this function made.
        backbone_config: Further arguments of a keras.applications model, such
            as `{"alpha": 0.75}`.
        scale: Factor, or one a channel, that the network expects on pixels in
            0..255. Goes with `offset`. Defaults to the source's; required for
            a new head on a `keras.Model`.
        offset: What is added after `scale`, likewise.
        value_range: `(low, high)` of the pixels that the result takes.
            `scale` and `offset` still refer to 0..255, and the change of
            range is folded into them: the network sees the same numbers. A
            finished classifier without `scale` and `offset` gets the pixels
            unchanged, so `value_range` is then what it was trained on.
        dropout: Dropout rate in front of the head. Not for finished Keras
            models.
        seed: Seed of the new head's weights. `None` draws it from Keras'
            global seed.
        dtype: Dtype policy of a backbone built by name, such as
            `"mixed_bfloat16"`. Defaults to the global policy. A `keras.Model`
            keeps its own.
        name: Name of the result.

    Returns:
        A functional `keras.Model`, uncompiled.

    Raises:
        ValueError: The source is unknown, corrupt or has no head, the output
            is not logits, the normalisation is unknown, or the size or the
            weights do not fit.
        ConnectionError: Weights could not be downloaded.
        ImportError: KerasHub or safetensors is needed, and not installed.

    Example:
    ```python
    net = keras_epsched.models.classifier("resnet_50_imagenet", 120)

    # Position embeddings interpolated from 14 x 14 patches to 24 x 24.
    net = keras_epsched.models.classifier(
        "CLIP ViT-B/16", 120, image_size=(384, 384)
    )

    # Weights from a file: nothing is downloaded.
    net = keras_epsched.models.classifier(
        "keras.applications.MobileNet",
        12,
        image_size=(160, 160),
        weights="mobilenet_7_5_224_no_top.weights.h5",
        backbone_config={"alpha": 0.75},
    )

    # ViT with its ImageNet head, in bfloat16.
    net = keras_epsched.models.classifier(
        "vit_base_patch16_224_imagenet", dtype="mixed_bfloat16"
    )

    # Any Keras model: say how it normalises.
    net = keras_epsched.models.classifier(
        keras.applications.MobileNet(include_top=False),
        num_classes=12,
        image_size=(160, 160),
        scale=1 / 127.5,
        offset=-1.0,
    )
    ```
    """
    given = num_classes
    if (scale is None) != (offset is None):
        raise ValueError(
            "Expected `scale` and `offset` together, or neither. "
            f"Received: scale={scale}, offset={offset}"
        )
    if num_classes is not None:
        try:
            # NumPy's integers as well, which Keras does not take.
            num_classes = operator.index(num_classes)
        except TypeError:
            num_classes = -1
        if num_classes < 2:
            raise ValueError(
                "Expected `num_classes` as an integer of at least 2 (logits, "
                f"one a class). Received: num_classes={given!r}"
            )
    if seed is not None:
        seed = operator.index(seed)
    if image_size is not None:
        height, width = image_size
        image_size = operator.index(height), operator.index(width)
    found = sources.find(
        source,
        num_classes,
        image_size=image_size,
        weights="pretrained" if weights == "imagenet" else weights,
        backbone_config=backbone_config,
        dropout=dropout,
        seed=seed,
        dtype=dtype,
    )
    if scale is None:
        scale, offset = found.scale, found.offset
    if scale is None and (found.is_preset or num_classes is not None):
        raise ValueError(
            "The normalisation that the network expects cannot be read from "
            f"{found.model.name!r}: pass `scale` and `offset`. {_USUAL_VALUES}"
        )
    network = heads.plain(found.model)
    if not found.needs_head:
        _require_logits(network, found.is_preset)

    shape = pixels.input_shape(network, image_size or found.image_size)
    inputs = keras.Input(shape, dtype="float32", name="pixels")
    x = pixels.normalised(inputs, scale, offset, value_range)
    if found.reversed_channels:
        x = keras.ops.flip(x, axis=-1)
    x = network(x)
    if found.needs_head:
        # It is one of `num_classes`, which are there then.
        x = heads.new_head(x, num_classes, dropout, seed)  # type: ignore[arg-type]
    if not isinstance(x, keras.KerasTensor) or len(x.shape) != 2:
        raise ValueError(
            "Expected a finished classifier with one output of shape (batch, "
            "num_classes). Pass `num_classes` to put a new head on features. "
            f"Received: output {x}"
        )
    if x.dtype != "float32":
        x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    net = keras.Model(inputs, x, name=name or "classifier")
    # For `evaluate`.
    provenance.remember_value_range(net, value_range)
    if weights not in ("pretrained", "imagenet", None):
        holders = [*found.holders, network, net]
        checkpoints.load_weights(weights, holders, x.shape[-1])
    return net


def _require_logits(network, is_preset):
    """Refuses a softmax at the end, but takes it off a preset's head."""
    layer = heads.softmax_layer(network)
    if layer is None:
        return
    if is_preset and isinstance(layer, keras.layers.Dense):
        layer.activation = keras.activations.linear
        return
    raise ValueError(
        f"The model {network.name!r} ends in a softmax: it gives "
        "probabilities, and logits are needed. Build it without "
        "(`classifier_activation=None` in keras.applications), set "
        "`model.layers[-1].activation = keras.activations.linear` on its "
        "last Dense layer, or pass `num_classes` for a new head."
    )
