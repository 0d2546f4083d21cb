"""Rebuilds KerasHub backbones for another image size."""

import keras
from keras import ops

# With other images, KerasHub fails with an obscure error inside the network.
_SQUARE = (
    "CLIPVisionEncoder",
    "DINOV2Backbone",
    "MetaCLIP2VisionEncoder",
    "MiTBackbone",
    "SigLIPVisionEncoder",
)
_TOKENS = 3  # 0, 1 or 2 tokens: the class token and the distillation token.


def at_size(
    backbone: keras.Model,
    image_size: tuple[int, int] | None,
    dtype: str | keras.DTypePolicy | None = None,
) -> keras.Model:
    """Returns a KerasHub backbone for images of another size.

    The backbone is built again from its configuration and gets the weights of
    the old one. Position embeddings are interpolated (bicubic, with
    antialiasing when the grid shrinks). Those of class and distillation
    tokens are kept. A backbone that takes the size already, or any size, is
    returned unchanged.

    Args:
        backbone: A `keras_hub.models.Backbone`.
        image_size: `(height, width)`. `None` keeps the size.
        dtype: Dtype policy. `None` keeps it.

    Returns:
        The backbone itself, or a new one with the same weights.

    Raises:
        ValueError: If the architecture does not take that size.

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
            f"{type(backbone).__name__} takes only images of {height} x "
            f"{width} pixels. Received: image_size={new_size}"
        )
    if not fits:
        config["image_shape"] = (*new_size, channels)
    if dtype is not None:
        config["dtype"] = keras.dtype_policies.get(dtype)
    try:
        resized = type(backbone).from_config(config)
    except ValueError as error:
        raise ValueError(
            f"{type(backbone).__name__} cannot be built for "
            f"image_size={new_size}: {error}"
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
        embeddings: Tensor of shape `(..., tokens + patches, dim)`. The tokens
            come first and are kept.
        old_grid: `(rows, columns)` of the patches in `embeddings`.
        new_grid: `(rows, columns)` of the patches in the result.

    Returns:
        Tensor of shape `(..., tokens + rows * columns, dim)`.

    Raises:
        ValueError: If the number of patches does not fit `old_grid`.
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
    """Refuses sizes that patches and windows do not divide evenly."""
    name = type(backbone).__name__
    if name in _SQUARE and image_size[0] != image_size[1]:
        raise ValueError(
            f"{name} takes only square images. "
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
        # are not full, but its cyclic shift moves the padding into the image.
        steps = [s * window * 2 ** (len(backbone.depths) - 1) for s in steps]
        parts += f", then windows of {window} x {window} at every stage"
    if any(size % step for size, step in zip(image_size, steps, strict=True)):
        raise ValueError(
            f"{name} divides the image into {parts}, so the height must be a "
            f"multiple of {steps[0]} and the width a multiple of {steps[1]}. "
            f"Received: image_size={tuple(image_size)}"
        )


def _transfer(old, new, old_size, new_size):
    """Copies the weights of the old backbone to the rebuilt one."""
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
                f"{type(old).__name__} takes only images of size {old_size}, "
                f"because its weight {source.path} (shape {source.shape}) "
                f"depends on the size. Received: image_size={new_size}"
            )
    if hasattr(old, "position_embedding_shape") and old_size != new_size:
        # DINOv2 keeps the pretrained embeddings, and interpolates them when
        # it loads.
        stored = {}
        old.embeddings.save_own_variables(stored)
        new.embeddings.load_own_variables(stored)
