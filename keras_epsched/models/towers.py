"""Pools the features of KerasHub backbones without an image classifier."""

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
    """Returns the image encoder of a backbone.

    Args:
        backbone: A `keras_hub.models.Backbone`.

    Returns:
        The image encoder of a model of images and text (CLIP, SigLIP,
        MetaCLIP 2), of a segmenter or of a detector. Any other backbone is
        returned unchanged.
    """
    for name in ("vision_encoder", "image_encoder"):
        encoder = getattr(backbone, name, None)
        if isinstance(encoder, keras.Model):
            return encoder
    return backbone


def pooled(tower: keras.Model, backbone: keras.Model) -> keras.Model:
    """Returns a model from images to features for a linear head.

    A transformer with a class token returns that token, with the backbone's
    normalisation and before any projection into a space shared with text.
    SigLIP returns its attention pooling. Swin returns the mean of its tokens.
    Feature maps stay unchanged: the head averages them.

    Args:
        tower: The image encoder. Its size may differ from that in `backbone`.
        backbone: The backbone that the encoder comes from.

    Returns:
        A functional `keras.Model` with one input.

    Raises:
        ValueError: If the features have a shape that cannot be pooled.
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
        x = x[list(x)[-1]]  # The last of one feature map for each stage.
    rank = len(x.shape) if isinstance(x, keras.KerasTensor) else None
    if rank == 3 and name in _CLASS_TOKEN:
        x = x[:, 0]
        # MetaCLIP 2 has this layer after the pooling, CLIP in the encoder.
        norm = getattr(backbone, "vision_post_layer_norm", None)
        x = x if norm is None else norm(x)
    elif rank == 3 and name == "SwinTransformerBackbone":
        x = keras.layers.GlobalAveragePooling1D(dtype="float32")(x)
    elif rank not in (2, 4):
        raise ValueError(
            f"The features of {name} cannot be pooled automatically. Build a "
            "`keras.Model` from it that returns features of shape (batch, "
            "channels), and pass that model with `num_classes`, `scale` and "
            f"`offset`. Received: output {x}"
        )
    return keras.Model(images, x, name=tower.name)
