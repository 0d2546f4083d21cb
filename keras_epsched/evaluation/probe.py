"""The images that the self-checks of an evaluation look at."""

import heapq
from dataclasses import dataclass, field

import numpy as np

PROBE_SIZE = 256


@dataclass(repr=False)
class Probe:
    """The images with the smallest lots of all that are correct."""

    lots: list = field(default_factory=list)

    def add(self, lots, pixels, labels, numbers, broken_by):
        """Considers images for the probe."""
        rows = zip(lots, pixels, labels, numbers, broken_by, strict=True)
        for lot, image, label, number, breakers in rows:
            # The largest lot leads the heap, and leaves it first.
            key = -int(lot), int(number)
            if len(self.lots) == PROBE_SIZE and key <= self.lots[0][0]:
                continue
            # Copies: views would keep whole windows in memory.
            item = key, (image.copy(), label, breakers.copy())
            if len(self.lots) < PROBE_SIZE:
                heapq.heappush(self.lots, item)
            else:
                heapq.heapreplace(self.lots, item)

    def __len__(self):
        return len(self.lots)

    def arrays(self):
        """Pixels, labels, numbers and breakers, in the order of the lots."""
        items = sorted(self.lots, key=lambda item: item[0], reverse=True)
        return (
            np.stack([image for _, (image, _, _) in items]),
            np.array([label for _, (_, label, _) in items]),
            np.array([number for (_, number), _ in items]),
            np.stack([breakers for _, (_, _, breakers) in items]),
        )
