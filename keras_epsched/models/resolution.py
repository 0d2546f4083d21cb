"""KerasHub backbones at another image size than their own."""

import keras
from keras import ops

# KerasHub would fail on others in the middle of the network.
_SQUARE = (
    "CLIPVisionEncoder",
    "DINOV2Backbone",
    "MetaCLIP2VisionEncoder",
    "MiTBackbone",
    "SigLIPVisionEncoder",
)
_TOKENS = 3  # Class and distillation token: at most two, and none.


def at_size(
    backbone: keras.Model,
    image_size: tuple[int, int] | None,
    dtype: str | keras.DTypePolicy | None = None,
) -> keras.Model:
    """Returns a KerasHub backbone for images of another size.

    The backbone is built anew from its configuration, and gets the weights of
    the old one. Position embeddings are interpolated (bicubic, antialiased
    when they shrink); those of class and distillation tokens are kept. A
    network whose input size is free, or right already, comes back as it is.

    Args:
        backbone: A `keras_hub.models.Backbone`.
        image_size: `(height, width)`. `None` keeps the size.
        dtype: Dtype policy. `None` keeps it.

    Returns:
        The backbone, or one with the same weights.

    Raises:
        ValueError: The architecture does not take that size.

    Example:
    ```python
    backbone = keras_hub.models.Backbone.from_preset(
        "vit_base_patch16_224_imagenet"
    )
    backbone = at_size(backbone, (384, 384))
    ```
    """
    height, width, channels = backbone.inputs[0].shape[1:]
    new_size = image_size or (height, width)
    if image_size is not None:
        _check(backbone, new_size)
    fits = height in (None, new_size[0]) and width in (None, new_size[1])
    if fits and dtype in (None, backbone.dtype_policy.name):
        return backbone
    config = backbone.get_config()
    if not fits and "image_shape" not in config:
        raise ValueError(
            f"{type(backbone).__name__} takes images of {height} x {width} "
            f"only. Received: image_size={new_size}"
        )
    if not fits:
        config["image_shape"] = (*new_size, channels)
    if dtype is not None:
        config["dtype"] = keras.dtype_policies.get(dtype)
    try:
        resized = type(backbone).from_config(config)
    except ValueError as error:
        raise ValueError(
            f"{type(backbone).__name__} takes no images of {new_size}: {error}"
        ) from error
    _transfer(backbone, resized, (height, width), new_size)
    return resized


def interpolated(
    embeddings: keras.KerasTensor,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
) -> keras.KerasTensor:
    """Interpolates position embeddings from one grid of patches to another.

    Args:
        embeddings: Tensor of shape `(..., tokens + patches, dim)`; tokens
            come first and are kept.
        old_grid: `(rows, columns)` of patches that they stand for.
        new_grid: `(rows, columns)` wanted.

    Returns:
        Tensor of shape `(..., tokens + rows * columns, dim)`.

    Raises:
        ValueError: The number of patches does not fit to `old_grid`.
    """
    *lead, positions, dim = embeddings.shape
    tokens = positions - old_grid[0] * old_grid[1]
    if not 0 <= tokens < _TOKENS:
        raise ValueError(
            f"Expected embeddings for {old_grid[0]} x {old_grid[1]} patches "
            f"and at most two tokens. Received: shape {embeddings.shape}"
        )
    flat = ops.cast(ops.reshape(embeddings, (positions, dim)), "float32")
    image = ops.reshape(flat[tokens:], (*old_grid, dim))
    if tuple(old_grid) != tuple(new_grid):
        image = ops.image.resize(
            image,
            new_grid,
            interpolation="bicubic",
            antialias=True,
            data_format="channels_last",
        )
    patches = ops.reshape(image, (-1, dim))
    flat = ops.concatenate([flat[:tokens], patches], axis=0)
    return ops.reshape(flat, (*lead, -1, dim))


def _check(backbone, image_size):
    """Refuses sizes that do not divide into patches and windows."""
    name = type(backbone).__name__
    if name in _SQUARE and image_size[0] != image_size[1]:
        raise ValueError(
            f"{name} takes square images only. "
            f"Received: image_size={tuple(image_size)}"
        )
    patch = getattr(backbone, "patch_size", None)
    if patch is None:
        return
    steps = patch if isinstance(patch, tuple | list) else (patch, patch)
    parts = f"patches of {steps[0]} x {steps[1]}"
    window = getattr(backbone, "window_size", None)
    if window is not None and hasattr(backbone, "depths"):
        # Each stage but the last halves the grid. KerasHub pads windows that
        # are not full, but rolls the padding back into the image.
        steps = [s * window * 2 ** (len(backbone.depths) - 1) for s in steps]
        parts += f", then windows of {window} x {window} at every stage"
    if any(size % step for size, step in zip(image_size, steps, strict=True)):
        raise ValueError(
            f"{name} divides the image into {parts}: "
            f"expected a height that is a multiple of {steps[0]} and a width "
            f"that is a multiple of {steps[1]}. Received: "
            f"image_size={tuple(image_size)}"
        )


def _transfer(old, new, old_size, new_size):
    """Gives a rebuilt backbone the weights of the one it was built from."""
    patch = getattr(old, "patch_size", None)
    patches = patch if isinstance(patch, tuple | list) else (patch, patch)
    for source, target in zip(old.weights, new.weights, strict=True):
        if source.shape == target.shape:
            target.assign(source.value)
        elif "int" in target.dtype:
            # Position ids.
            ids = ops.arange(target.shape[-1], dtype=target.dtype)
            target.assign(ops.reshape(ids, target.shape))
        elif patch is not None and "position_embedding" in target.path:
            grids = [
                tuple(s // p for s, p in zip(size, patches, strict=True))
                for size in (old_size, new_size)
            ]
            target.assign(interpolated(source.value, *grids))
        else:
            raise ValueError(
                f"{type(old).__name__} has weights for images of {old_size} "
                f"({source.path}, shape {source.shape}), so it cannot be used "
                f"at another size. Received: image_size={new_size}"
            )
    if hasattr(old, "position_embedding_shape") and old_size != new_size:
        # DINOv2 keeps the pretrained embeddings and interpolates by itself.
        stored = {}
        old.embeddings.save_own_variables(stored)
        new.embeddings.load_own_variables(stored)
