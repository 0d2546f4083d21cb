"""Makes a pixel-space classifier from a name, a folder, a model or a file."""

import operator
import os
from collections.abc import Sequence

import keras

from keras_epsched import provenance
from keras_epsched.models import checkpoints, heads, pixels, sources

_USUAL_VALUES = (
    "Usual values, for pixels in 0..255: scale=1/127.5, offset=-1.0 "
    "(MobileNet, Inception, Xception, most ViT); scale=1/255, offset=0.0 (a "
    "model of pixels in 0..1); scale=[1/(255*s) for s in std], "
    "offset=[-m/s for m, s in zip(mean, std)] (ImageNet mean and std, as in "
    "torchvision and timm); scale=1.0, offset=0.0 (a model that normalises by "
    "itself, such as EfficientNet and ConvNeXt)."
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
    """Makes a classifier that takes pixels and returns logits.

    Use it to get a model for `AdversarialTrainer` and `evaluate` from a
    pretrained network. Attacks change the image before any normalisation, so
    this function puts the normalisation of the network inside the model.
    The result takes float32 pixels of shape `(batch, height, width,
    channels)` in `value_range` and returns float32 logits of shape `(batch,
    num_classes)`, for every dtype policy. It does *not* resize images.

    The source is one of:

    1. A name. `python -m keras_epsched.models.table` lists all names.
        - A backbone of the paper: `"ViT-B/16"`, `"Swin-B"`, `"ConvNeXt-B"`,
          `"ResNet-50"`, `"CLIP ViT-B/16"`, or its name in the paper or in
          timm.
        - A KerasHub preset with an image input, such as
          `"vit_base_patch16_224_imagenet"`, or a handle
          (`"hf://user/model"`). CLIP, SigLIP, MetaCLIP 2 and DINO get a linear
          head on the pooled features of the image.
        - A model of Keras: `"keras.applications.MobileNet"`, or only
          `"MobileNet"`.
        - A bundled preset (see `keras_epsched.models.bundled_presets`), which
          needs neither a download nor KerasHub.
    2. A folder with a KerasHub preset, or with a Hugging Face or timm
       checkpoint in safetensors. If a name and a folder are spelled alike,
       the name is used.
    3. A `keras.Model`, or the path of a `.keras` file.
        - Without `num_classes`, it must be a finished classifier that returns
          logits. It is used unchanged.
        - With `num_classes`, it gets a new head: its last `Dense` layer (and
          the activation after it) is removed, features of rank 4 are averaged
          over the image, and a new `Dense` layer is added. The result shares
          its layers with the model that you passed.
        - A KerasHub task brings the normalisation of its image converter. A
          KerasHub backbone is pooled as its preset would be.
        - A subclassed model must be built. It casts pixels to its compute
          dtype before the normalisation inside it, and a softmax at its end
          cannot be detected.

    The normalisation of a name is known: it comes from the preset's image
    converter, or from the family's `preprocess_input`. The normalisation of a
    folder comes from its image converter or its `preprocessor_config.json`.

    Whenever `num_classes` is given, the head is new and has random weights,
    even if the old head had the same number of classes.

    Pixels stay float32 until they are normalised, because float16 would round
    pixels above 128 to multiples of 1/8.

    Args:
        source: Name, folder, `keras.Model`, or path of a `.keras` file.
        num_classes: Int. Number of classes of the new head. `None` keeps the
            head of the source.
        image_size: `(height, width)` in pixels. Defaults to the size of the
            preset's image converter, or of the model's input. For another
            size, the position embeddings of a transformer are interpolated if
            its patches (and windows) fill the image. Other networks need a
            free input size.
        weights: `"pretrained"` uses the weights of the source and downloads
            them if needed (`"imagenet"` means the same). `None` gives random
            weights. Otherwise the path of a `.weights.h5` file (or `.h5` for
            keras.applications) that was saved from the backbone, or from a
            classifier that this function made.
        backbone_config: Dict. Further arguments of a keras.applications
            model, such as `{"alpha": 0.75}`.
        scale: Float, or one for each channel. The network expects pixels in
            0..255 multiplied by this. Pass it together with `offset`.
            Defaults to the source's; required for a new head on a
            `keras.Model`.
        offset: Float, or one for each channel. It is added after the
            multiplication by `scale`.
        value_range: `(low, high)` of the pixels that the result takes.
            `scale` and `offset` always refer to pixels in 0..255; the change
            of range is included in them, so the network sees the same
            numbers. A finished classifier without `scale` and `offset` gets
            the pixels unchanged: pass the range it was trained on.
        dropout: Float. Dropout rate before the new head. Not available for a
            finished Keras model.
        seed: Int. Seed of the new head's weights. `None` draws it from Keras'
            global seed.
        dtype: Dtype policy of a backbone that is built by name, such as
            `"mixed_bfloat16"`. Defaults to the global policy. A `keras.Model`
            keeps its own.
        name: String. Name of the result.

    Returns:
        A functional `keras.Model`, uncompiled.

    Raises:
        ValueError: If the source is unknown, is corrupt or has no head to
            keep; if the output is not logits; if the normalisation is
            unknown; or if the size or the weights do not fit.
        ConnectionError: If weights cannot be downloaded.
        ImportError: If KerasHub or safetensors is needed and not installed.

    Example:
    ```python
    # A ResNet-50 with a new head of 120 classes.
    net = keras_epsched.models.classifier("resnet_50_imagenet", 120)

    # Position embeddings interpolated from 14 x 14 patches to 24 x 24.
    net = keras_epsched.models.classifier(
        "CLIP ViT-B/16", 120, image_size=(384, 384)
    )

    # Weights from a file, without a download.
    net = keras_epsched.models.classifier(
        "keras.applications.MobileNet",
        12,
        image_size=(160, 160),
        weights="mobilenet_7_5_224_no_top.weights.h5",
        backbone_config={"alpha": 0.75},
    )

    # A ViT with its ImageNet head, in bfloat16.
    net = keras_epsched.models.classifier(
        "vit_base_patch16_224_imagenet", dtype="mixed_bfloat16"
    )

    # Any Keras model. `scale` and `offset` say how it normalises.
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
            # Also accepts NumPy integers, which Keras refuses.
            num_classes = operator.index(num_classes)
        except TypeError:
            num_classes = -1
        if num_classes < 2:
            raise ValueError(
                "Expected `num_classes` as an integer of at least 2: the "
                "classifier returns one logit for each class. "
                f"Received: num_classes={given!r}"
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
            f"The model {found.model.name!r} does not say which normalisation "
            f"it expects. Pass `scale` and `offset`. {_USUAL_VALUES}"
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
        # A network that needs a head comes with `num_classes`.
        x = heads.new_head(x, num_classes, dropout, seed)  # type: ignore[arg-type]
    if not isinstance(x, keras.KerasTensor) or len(x.shape) != 2:
        raise ValueError(
            "Expected a finished classifier with one output of shape (batch, "
            "num_classes). To add a new head to a model that returns "
            f"features, pass `num_classes`. Received: output {x}"
        )
    if x.dtype != "float32":
        x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    net = keras.Model(inputs, x, name=name or "classifier")
    # `evaluate` reads the range from the model.
    provenance.remember_value_range(net, value_range)
    if weights not in ("pretrained", "imagenet", None):
        holders = [*found.holders, network, net]
        checkpoints.load_weights(weights, holders, x.shape[-1])
    return net


def _require_logits(network, is_preset):
    """Removes the softmax of a preset's head; refuses any other softmax."""
    layer = heads.softmax_layer(network)
    if layer is None:
        return
    if is_preset and isinstance(layer, keras.layers.Dense):
        layer.activation = keras.activations.linear
        return
    raise ValueError(
        f"The model {network.name!r} ends in a softmax, so it returns "
        "probabilities. Attacks need logits. Do one of these: build the model "
        "without the softmax (`classifier_activation=None` in "
        "keras.applications); if its last layer is a Dense layer with a "
        "softmax, set `model.layers[-1].activation = "
        "keras.activations.linear`; or pass `num_classes` for a new head."
    )
