"""The sample of images that the self-checks of an evaluation use."""

import heapq
from dataclasses import dataclass, field

import numpy as np
from keras import ops

from keras_epsched.attacks import noise

SAMPLE_SIZE = 256


def sampling_priority(seed: int, numbers: np.ndarray) -> np.ndarray:
    """Returns a random number for each image, the same in every evaluation.

    The images with the smallest numbers are drawn first.

    Args:
        seed: Int. Seed of the evaluation.
        numbers: Integer array of shape `(count,)`, the ids of the images.

    Returns:
        An integer array of shape `(count,)`.
    """
    return ops.convert_to_numpy(noise.make_key(seed, numbers, 2**31))


@dataclass(repr=False)
class CheckSample:
    """A random sample of the images that are correct without an attack."""

    drawn: list = field(default_factory=list)

    def add(self, priorities, pixels, labels, numbers, broken_by):
        """Adds images to the sample if they are drawn."""
        rows = zip(priorities, pixels, labels, numbers, broken_by, strict=True)
        for priority, image, label, number, breakers in rows:
            # The image drawn last is the first in the heap, which drops it
            # first.
            key = -int(priority), int(number)
            if len(self.drawn) == SAMPLE_SIZE and key <= self.drawn[0][0]:
                continue
            # Copies: views would keep whole windows in memory.
            item = key, (image.copy(), label, breakers.copy())
            if len(self.drawn) < SAMPLE_SIZE:
                heapq.heappush(self.drawn, item)
            else:
                heapq.heapreplace(self.drawn, item)

    def __len__(self):
        return len(self.drawn)

    def arrays(self):
        """Pixels, labels, numbers and breakers, in the order of drawing."""
        items = sorted(self.drawn, key=lambda item: item[0], reverse=True)
        return (
            np.stack([image for _, (image, _, _) in items]),
            np.array([label for _, (_, label, _) in items]),
            np.array([number for (_, number), _ in items]),
            np.stack([breakers for _, (_, _, breakers) in items]),
        )
