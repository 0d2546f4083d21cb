"""What the sources of a classifier have in common."""

import dataclasses
from collections.abc import Sequence

import keras


@dataclasses.dataclass
class Network:
    """A network without normalisation, and what it expects of pixels.

    Args:
        model: Takes normalised images; gives logits, or features.
        needs_head: Whether it gives features that a new head follows.
        image_size: `(height, width)` of the images it was made for.
        scale: Factor on pixels in 0..255, or one a channel.
        offset: What is added after `scale`, likewise.
        reversed_channels: Whether it expects BGR, after normalisation.
        holders: Models, sharing layers with `model`, that a file of weights
            may have been saved from.
        is_preset: Whether it was just built, so that it may be changed.
    """

    model: keras.Model
    needs_head: bool
    image_size: tuple[int, int] | None = None
    scale: float | Sequence[float] | None = None
    offset: float | Sequence[float] | None = None
    reversed_channels: bool = False
    holders: tuple[keras.Model, ...] = ()
    is_preset: bool = False
