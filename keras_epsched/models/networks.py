"""The network that every source of a classifier is turned into."""

import dataclasses
from collections.abc import Sequence

import keras


@dataclasses.dataclass
class Network:
    """A network without normalisation, and the normalisation it expects.

    Args:
        model: Takes normalised images and returns logits or features.
        needs_head: Whether it returns features and needs a new head.
        image_size: `(height, width)` of the images that it expects.
        scale: Factor for pixels in 0..255, or one for each channel.
        offset: Number to add after `scale`, or one for each channel.
        reversed_channels: Whether it expects BGR after the normalisation.
        holders: Models that share layers with `model`. A file of weights may
            have been saved from any of them.
        is_preset: Whether the model was just built, so that this package may
            change it.
    """

    model: keras.Model
    needs_head: bool
    image_size: tuple[int, int] | None = None
    scale: float | Sequence[float] | None = None
    offset: float | Sequence[float] | None = None
    reversed_channels: bool = False
    holders: tuple[keras.Model, ...] = ()
    is_preset: bool = False
