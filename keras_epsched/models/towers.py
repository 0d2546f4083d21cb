"""Pooled features of KerasHub backbones that have no image classifier."""

import keras

_CLASS_TOKEN = (
    "CLIPVisionEncoder",
    "DINOV2Backbone",
    "DINOV3Backbone",
    "DeiTBackbone",
    "MetaCLIP2VisionEncoder",
    "ViTBackbone",
)


def image_tower(backbone: keras.Model) -> keras.Model:
    """Returns the part of a backbone that sees the image.

    Args:
        backbone: A `keras_hub.models.Backbone`.

    Returns:
        The image encoder of a model of images and text (CLIP, SigLIP,
        MetaCLIP 2) or of a segmenter or detector; others as they are.
    """
    for name in ("vision_encoder", "image_encoder"):
        encoder = getattr(backbone, name, None)
        if isinstance(encoder, keras.Model):
            return encoder
    return backbone


def pooled(tower: keras.Model, backbone: keras.Model) -> keras.Model:
    """Returns a model from images to features that a linear head can take.

    Of transformers with a class token it is that token, normalised as the
    backbone does it and before any projection into a space shared with text;
    of SigLIP its attention pooling; of Swin the mean of the tokens. Feature
    maps stay as they are: the head averages them.

    Args:
        tower: The image encoder, maybe at another size than in `backbone`.
        backbone: The backbone that it comes from.

    Returns:
        A functional `keras.Model` with one input.

    Raises:
        ValueError: It is not known how to pool what the tower gives.
    """
    name = type(tower).__name__
    images = keras.Input(tower.inputs[0].shape[1:], name="images")
    if len(tower.inputs) != 1 or len(images.shape) != 4:
        raise ValueError(
            "Expected a backbone with one input, images. "
            f"Received: {name} with inputs {tower.inputs}"
        )
    if name == "DINOV2Backbone":
        from keras_epsched.models import dinov2

        tower = dinov2.restorable(tower)
    named = isinstance(tower.input, dict)
    x = tower({key: images for key in tower.input} if named else images)
    if name == "HGNetV2Backbone":
        x = x[list(x)[-1]]  # One feature map a stage.
    rank = len(x.shape) if isinstance(x, keras.KerasTensor) else None
    if rank == 3 and name in _CLASS_TOKEN:
        x = x[:, 0]
        # MetaCLIP 2 has this layer behind the pooling, CLIP inside.
        norm = getattr(backbone, "vision_post_layer_norm", None)
        x = x if norm is None else norm(x)
    elif rank == 3 and name == "SwinTransformerBackbone":
        x = keras.layers.GlobalAveragePooling1D(dtype="float32")(x)
    elif rank not in (2, 4):
        raise ValueError(
            f"It is not known how to pool the features of {name}. Build a "
            "`keras.Model` on it that gives features of shape (batch, "
            "channels), and pass that with `num_classes`, `scale` and "
            f"`offset`. Received: output {x}"
        )
    return keras.Model(images, x, name=tower.name)
