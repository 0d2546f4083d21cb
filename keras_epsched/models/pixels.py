"""The shape and the normalisation of the pixels that a classifier takes."""

import math
from collections.abc import Sequence

import keras

from keras_epsched.models import heads


def input_shape(
    network: keras.Model, image_size: tuple[int, int] | None
) -> tuple[int | None, int | None, int]:
    """Returns `(height, width, channels)` of the pixels that a network takes.

    Args:
        network: `keras.Model` with one input, images.
        image_size: `(height, width)`. `None` keeps the network's.

    Raises:
        ValueError: If the network has no such input, or does not take that
            size.
    """
    graph = heads.is_graph(network)
    if graph:
        shape = network.inputs[0].shape if len(network.inputs) == 1 else ()
    else:
        shape = (network.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError(
            f"The model {network.name!r} is not built, so its input shape is "
            "unknown. Call it once on a batch of images: `model(images)`."
        )
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            "Expected a model with one input of shape (batch, height, width, "
            f"channels). Received: {network.name!r}, input shape {shape}"
        )
    if graph and "float" not in network.inputs[0].dtype:
        raise ValueError(
            "Expected a model with float inputs. Attacks need the gradient of "
            "the input, which integers do not have. "
            f"Received: input dtype {network.inputs[0].dtype}"
        )
    if image_size is None:
        return shape[1:]
    height, width = image_size
    if graph and (
        shape[1] not in (None, height) or shape[2] not in (None, width)
    ):
        raise ValueError(
            f"The network takes only images of {shape[1]} x {shape[2]} pixels. "
            "Resize the images, or build the network for the other size. If "
            "you pass a name instead of a model, `classifier` does that, and "
            "interpolates position embeddings. "
            f"Received: image_size={(height, width)}"
        )
    return height, width, shape[-1]


def normalised(
    pixels: keras.KerasTensor,
    scale: float | Sequence[float] | None,
    offset: float | Sequence[float] | None,
    value_range: tuple[float, float],
) -> keras.KerasTensor:
    """Applies the normalisation in float32.

    Args:
        pixels: Symbolic tensor.
        scale: Factor for pixels in 0..255, or one for each channel. `None`
            returns the pixels unchanged.
        offset: Number to add after `scale`, or one for each channel.
        value_range: `(low, high)` of the pixels. The network sees the same
            numbers as for pixels in 0..255.

    Raises:
        ValueError: If a number is not finite, `scale` is 0, the number of
            values is not that of the channels, or the range is empty.
    """
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
    # 255 * (v - low) / (high - low) is the pixel on 0..255. In the default
    # range the factor is exactly 1, so scale and offset stay unchanged.
    factor = 255.0 / (high - low)
    offset = [
        o - low * factor * s for s, o in zip(scales, offsets, strict=True)
    ]
    scale = [factor * s for s in scales]
    return keras.layers.Rescaling(
        scale, offset, dtype="float32", name="normalization"
    )(pixels)


def _per_channel(argument, value, channels):
    """Returns one Python float for each channel."""
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
