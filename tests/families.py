"""Every family of KerasHub backbones, built small and random."""

import keras
import numpy as np
import pytest

SIZE = 32


def _vit(shape):
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=shape,
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )


def _deit(shape):
    import keras_hub

    return keras_hub.models.DeiTBackbone(
        image_shape=shape,
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
    )


def _swin(shape):
    import keras_hub

    return keras_hub.models.SwinTransformerBackbone(
        image_shape=shape,
        patch_size=2,
        embed_dim=8,
        depths=(2, 1),
        num_heads=(1, 2),
        window_size=4,
        drop_path=0.0,
    )


_ENCODER = dict(
    patch_size=8, hidden_dim=8, num_layers=1, num_heads=2, intermediate_dim=16
)
_TEXT = dict(
    vocabulary_size=9,
    embedding_dim=8,
    hidden_dim=8,
    num_layers=1,
    num_heads=2,
    intermediate_dim=16,
)


def _image_and_text(prefix, **joint):
    def build(shape):
        import keras_hub

        models = keras_hub.models
        vision = getattr(models, f"{prefix}VisionEncoder")
        text = getattr(models, f"{prefix}TextEncoder")
        vision = vision(image_shape=shape, **_ENCODER)
        if prefix == "CLIP":
            # KerasHub leaves them to the checkpoint; zeros until then.
            ids = vision.embedding.position_ids
            ids.assign(np.arange(ids.shape[-1])[None])
        extra = {"projection_dim": 8} if prefix == "SigLIP" else {}
        return getattr(models, f"{prefix}Backbone")(
            vision_encoder=vision, text_encoder=text(**_TEXT, **extra), **joint
        )

    return build


def _dinov2(shape):
    import keras_hub

    return keras_hub.models.DINOV2Backbone(
        image_shape=shape, position_embedding_shape=(48, 48), **_ENCODER
    )


def _dinov3(shape):
    import keras_hub

    return keras_hub.models.DINOV3Backbone(image_shape=shape, **_ENCODER)


def _resnet(shape):
    import keras_hub

    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )


def _densenet(shape):
    import keras_hub

    return keras_hub.models.DenseNetBackbone(
        stackwise_num_repeats=[1, 1], growth_rate=4, image_shape=shape
    )


def _vgg(shape):
    import keras_hub

    return keras_hub.models.VGGBackbone(
        stackwise_num_repeats=[1, 1],
        stackwise_num_filters=[4, 8],
        image_shape=(None, None, 3),
    )


def _xception(shape):
    import keras_hub

    return keras_hub.models.XceptionBackbone(
        stackwise_conv_filters=[[4, 8], [8, 8]],
        stackwise_pooling=[True, False],
        image_shape=(None, None, 3),
    )


def _mit(shape):
    import keras_hub

    return keras_hub.models.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[4, 8],
        max_drop_path_rate=0.0,
        image_shape=shape,
    )


def _cspnet(shape):
    import keras_hub

    return keras_hub.models.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1],
        stackwise_strides=[2, 2],
        stackwise_num_filters=[8, 16],
        block_type="dark_block",
        stage_type="dark",
        image_shape=(None, None, 3),
    )


def _mobilenet(shape):
    import keras_hub

    return keras_hub.models.MobileNetBackbone(
        stackwise_expansion=[[40]],
        stackwise_num_blocks=[1],
        stackwise_num_filters=[[16]],
        stackwise_kernel_size=[[3]],
        stackwise_num_strides=[[1]],
        stackwise_se_ratio=[[None]],
        stackwise_activation=[["relu6"]],
        stackwise_padding=[[1]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=False,
        squeeze_and_excite=None,
        last_layer_filter=32,
        image_shape=(None, None, 3),
    )


def _efficientnet(shape):
    import keras_hub

    return keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"],
    )


def _hgnetv2(shape):
    import keras_hub

    return keras_hub.models.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 16],
        stem_channels=[3, 4, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[(8, 4, 16, 1, 1, 3), (16, 4, 16, 1, 1, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
    )


# Name of the family to a function from the image shape to a backbone.
BACKBONES = {
    "vit": _vit,
    "deit": _deit,
    "swin": _swin,
    "clip": _image_and_text("CLIP", projection_dim=8),
    "metaclip2": _image_and_text("MetaCLIP2", projection_dim=8),
    "siglip": _image_and_text("SigLIP"),
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "resnet": _resnet,
    "densenet": _densenet,
    "vgg": _vgg,
    "xception": _xception,
    "mit": _mit,
    "cspnet": _cspnet,
    "mobilenet": _mobilenet,
    "efficientnet": _efficientnet,
    "hgnetv2": _hgnetv2,
}


def build(family, size=(SIZE, SIZE)):
    """A small random backbone, the same one at each call."""
    keras.utils.set_random_seed(1)
    try:
        return BACKBONES[family]((*size, 3))
    except AttributeError as error:
        if "keras_hub.models" not in str(error):
            raise
        pytest.skip(f"an older KerasHub: {error}")


def save_task(task, folder):
    """Saves a task that has no preprocessor, which KerasHub 0.26 fails at.

    It fails after all else is written.
    """
    try:
        task.save_to_preset(folder)
    except AttributeError as error:
        if "'pop'" not in str(error):
            raise
