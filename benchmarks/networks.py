"""The networks of the benchmarks, in Keras.

All take pixels in 0..255 and return logits. Weights are random, because they do
not change the time. The networks up to `vit_base` are in torch_loop.py too.
"""

CLASSES = 100

# Name: (image size, batch size) on a CPU.
SIZES = {
    "small": (32, 64),
    "mobilenet": (96, 16),
    "resnet_stage2": (96, 16),
    "vit_tiny": (96, 16),
    "resnet50": (224, 64),
    "vit_base": (224, 64),
    "clip_base": (224, 64),
    "swin_base": (224, 64),
    "convnext_base": (224, 64),
}


def make(name: str, image_size: int, classes: int = CLASSES):
    """Builds a network by its name."""
    import keras

    import keras_epsched as ke

    if name == "small":
        backbone = _small(image_size)
    elif name == "mobilenet":
        backbone = keras.applications.MobileNet(
            alpha=0.75,
            include_top=False,
            input_shape=(image_size, image_size, 3),
            weights=None,
        )
    elif name == "resnet50":
        backbone = keras.applications.ResNet50(
            include_top=False,
            input_shape=(image_size, image_size, 3),
            weights=None,
        )
    elif name == "convnext_base":
        # It normalises by itself.
        return ke.models.classifier(
            "keras.applications.ConvNeXtBase",
            classes,
            image_size=(image_size, image_size),
            weights=None,
        )
    elif name == "resnet_stage2":
        backbone = _resnet_stage2(image_size)
    elif name == "clip_base":
        backbone = _clip_base(image_size)
    elif name == "swin_base":
        backbone = _swin_base(image_size)
    else:
        backbone = _vit(image_size, *_VITS[name])
    return ke.models.classifier(backbone, classes, scale=1 / 127.5, offset=-1.0)


# Depth, width, heads.
_VITS = {"vit_tiny": (12, 192, 3), "vit_base": (12, 768, 12)}


def _small(image_size):
    """Four convolutions."""
    import keras

    layers = [keras.Input((image_size, image_size, 3))]
    for width, strides in ((32, 1), (64, 2), (64, 1), (128, 2)):
        layers += [
            keras.layers.Conv2D(width, 3, strides, "same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    return keras.Sequential(layers)


def _resnet_stage2(image_size):
    """ResNet-50 v2, cut after its second stage."""
    import keras_hub

    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64, 64],
        input_conv_kernel_sizes=[7, 1],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[3, 4],
        stackwise_num_strides=[1, 2],
        block_type="bottleneck_block",
        use_pre_activation=True,
        image_shape=(image_size, image_size, 3),
    )


def _vit(image_size, depth, width, heads):
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=(image_size, image_size, 3),
        patch_size=16,
        num_layers=depth,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=4 * width,
    )


def _clip_base(image_size):
    """The image tower of CLIP ViT-B/16."""
    import keras_hub

    return keras_hub.models.CLIPVisionEncoder(
        image_shape=(image_size, image_size, 3),
        patch_size=16,
        hidden_dim=768,
        num_layers=12,
        num_heads=12,
        intermediate_dim=3072,
    )


def _swin_base(image_size):
    import keras_hub

    return keras_hub.models.SwinTransformerBackbone(
        image_shape=(image_size, image_size, 3),
        embed_dim=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=7,
    )
