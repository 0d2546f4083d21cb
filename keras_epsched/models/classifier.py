"""One function that makes a pixel-space classifier of almost anything."""

import math
import os
from collections.abc import Sequence

import keras

from keras_epsched.models import heads, presets

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

    1. A preset: a KerasHub name (`"vit_base_patch16_224_imagenet"`), a handle
       (`"hf://user/model"`), a bundled name (see
       `keras_epsched.models.bundled_presets`) or a preset folder. Names go
       before folders. The normalisation is that of the preset's image
       converter; images are *not* resized.
    2. A `keras.Model`, or the path of a `.keras` file with one. Without
       `num_classes` it is a finished classifier that must give logits, and is
       taken as it is. With `num_classes` it gets a new head: a last `Dense`
       layer (and the activation behind it) is cut off, features of rank 4 are
       averaged over the image, and a new `Dense` layer follows. Layers are
       shared with the model that was passed, not copied. A KerasHub task
       brings the normalisation of its image converter. A subclassed model
       must be built; it casts pixels to its compute dtype at its door, and
       its softmax cannot be seen.

    The head is new, with random weights, whenever `num_classes` is given,
    also where it is the old number.

    Args:
        source: Preset name or folder, `keras.Model`, or `.keras` file.
        num_classes: Classes of the new head. `None` keeps the head.
        image_size: `(height, width)`. Defaults to that of the preset's image
            converter, or of the model's input. Another size needs a network
            whose input size is free.
        scale: Factor, or one a channel, that the network expects on pixels in
            0..255. Goes with `offset`. Defaults to the preset's; required for
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
        dtype: Dtype policy of a preset's backbone, such as
            `"mixed_bfloat16"`. Defaults to the global policy. A `keras.Model`
            keeps its own.
        name: Name of the result.

    Returns:
        A functional `keras.Model`, uncompiled.

    Raises:
        ValueError: The source is unknown or has no head, the output is not
            logits, the normalisation is unknown, or the size does not fit.
        ConnectionError: A preset could not be downloaded.

    Example:
    ```python
    net = keras_epsched.models.classifier("resnet_50_imagenet", 120)

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
    if (scale is None) != (offset is None):
        raise ValueError(
            "Expected `scale` and `offset` together, or neither. "
            f"Received: scale={scale}, offset={offset}"
        )
    if num_classes is not None and num_classes < 2:
        raise ValueError(
            "Expected `num_classes` of at least 2 (logits, one a class). "
            f"Received: num_classes={num_classes}"
        )
    is_preset = False
    if isinstance(source, keras.Model):
        model = source
    elif not isinstance(source, str | os.PathLike):
        raise ValueError(
            "Expected a preset name or folder, a `keras.Model` or the path of "
            f"a `.keras` file. Received: source={source!r}"
        )
    elif os.fspath(source).endswith(".keras"):
        model = presets.load(source)
    else:
        is_preset = True
        model = presets.load_task(
            os.fspath(source), num_classes, dropout, seed, dtype
        )
    if dtype is not None and not is_preset:
        raise ValueError(
            "A model that exists keeps its dtype policy. Build it under "
            "`keras.config.set_dtype_policy(...)` instead. "
            f"Received: dtype={dtype!r}"
        )
    # KerasHub keeps the normalisation outside of the network.
    preprocessor = getattr(model, "preprocessor", None)
    converter = getattr(preprocessor, "image_converter", None)
    if converter is not None:
        image_size = image_size or converter.image_size
        if scale is None:
            scale = 1.0 if converter.scale is None else converter.scale
            offset = 0.0 if converter.offset is None else converter.offset
    elif scale is None and (is_preset or num_classes is not None):
        raise ValueError(
            "The normalisation that the network expects cannot be read from "
            f"{model.name!r}: pass `scale` and `offset`. {_USUAL_VALUES}"
        )
    needs_head = num_classes is not None and not is_preset
    network = heads.plain(model)
    if needs_head:
        network = heads.without_head(network)
    else:
        _require_logits(network, is_preset)
        if dropout and not is_preset:
            raise ValueError(
                "A finished classifier gets no dropout: pass `num_classes` "
                f"for a new head, or dropout=0. Received: dropout={dropout}"
            )

    shape = _input_shape(network, image_size)
    inputs = keras.Input(shape, dtype="float32", name="pixels")
    x = _normalised(inputs, scale, offset, value_range)
    x = network(x)
    if needs_head:
        x = heads.new_head(x, num_classes, dropout, seed)
    if not isinstance(x, keras.KerasTensor) or len(x.shape) != 2:
        raise ValueError(
            "Expected a finished classifier with one output of shape (batch, "
            "num_classes). Pass `num_classes` to put a new head on features. "
            f"Received: output {x}"
        )
    if x.dtype != "float32":
        x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name=name or "classifier")


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


def _input_shape(network, image_size):
    """Returns `(height, width, channels)` of the pixels."""
    graph = heads.is_graph(network)
    if graph:
        shape = network.inputs[0].shape if len(network.inputs) == 1 else ()
    else:
        shape = (network.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError(
            f"The model {network.name!r} is not built, so its input shape is "
            "not known. Call it once on a batch of images."
        )
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            "Expected a model with one input of shape (batch, height, width, "
            f"channels). Received: {network.name!r}, input shape {shape}"
        )
    if graph and "float" not in network.inputs[0].dtype:
        raise ValueError(
            "Expected a model with float inputs: others have no gradient. "
            f"Received: input dtype {network.inputs[0].dtype}"
        )
    if image_size is None:
        return shape[1:]
    height, width = image_size
    if graph and (
        shape[1] not in (None, height) or shape[2] not in (None, width)
    ):
        raise ValueError(
            f"The network takes images of {shape[1]} x {shape[2]} only (a "
            "transformer's position embeddings have that size; other sizes "
            "are not supported yet). Resize the images, or build the model "
            f"for the other size. Received: image_size={(height, width)}"
        )
    return height, width, shape[-1]


def _normalised(pixels, scale, offset, value_range):
    """Applies the float32 normalisation, where there is one."""
    low, high = value_range
    if not (math.isfinite(high - low) and low < high):
        raise ValueError(
            "Expected `value_range` as (low, high) with low < high. "
            f"Received: value_range={value_range}"
        )
    if scale is None:
        return pixels
    scales = _per_channel("scale", scale, pixels.shape[-1])
    offsets = _per_channel("offset", offset, pixels.shape[-1])
    if 0.0 in scales:
        raise ValueError(f"`scale` must not be 0. Received: scale={scale}")
    # 255 * (v - low) / (high - low) is the pixel that the network knows; in
    # the default range the factor is exactly 1 and the numbers stay as given.
    factor = 255.0 / (high - low)
    offset = [
        o - low * factor * s for s, o in zip(scales, offsets, strict=True)
    ]
    scale = [factor * s for s in scales]
    return keras.layers.Rescaling(
        scale, offset, dtype="float32", name="normalization"
    )(pixels)


def _per_channel(argument, value, channels):
    """One number a channel, as Python floats."""
    try:
        values = [float(v) for v in value]
    except TypeError:
        values = [float(value)] * channels
    if len(values) != channels or not all(map(math.isfinite, values)):
        raise ValueError(
            f"Expected `{argument}` to be a finite number, or one for each of "
            f"the {channels} channels. Received: {argument}={value}"
        )
    return values
