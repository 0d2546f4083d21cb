"""Decides which image is attacked next, by which attack at which epsilon.

This module is pure logic. It knows no networks and no attacks, only the results
of attacks. Images wait in queues, one for each attack. A batch is taken from
the front of a queue and may mix epsilons, because each image has its own. No
place in a batch is therefore wasted on broken images.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# Distances are rounded, so an epsilon must be slightly larger than a distance
# to reach it.
_BEYOND = 1.0 + 1e-6


# TensorFlow prints the owner of a traced method. Its repr must show no images.
@dataclass(repr=False, eq=False)
class Image:
    """An image and what the attacks have found so far.

    A place is an index in the grid of epsilons. In a nested sweep the image
    withstands place `floor` and is broken at place `ceiling`.
    """

    number: int
    label: int
    prediction: int
    pixels: np.ndarray | None
    # The stage that broke the image at each place, or -1.
    broken_at: np.ndarray
    # Whether to store an adversarial image.
    keep: bool = False
    floor: int = 0
    ceiling: int = 0
    zero_gradient: bool = False
    warm: tuple | None = None
    # The last stage that broke it, other than the first stage.
    breaker: int | None = None
    distances: dict = field(default_factory=dict)
    # The smallest place that broke it, and the adversarial image. Only for
    # images with `keep`.
    example: tuple | None = None

    @property
    def hit(self) -> bool:
        """Whether it is classified correctly without an attack."""
        return self.prediction == self.label

    @property
    def correct(self) -> np.ndarray:
        """Booleans: whether it withstands each place."""
        return self.hit & (self.broken_at < 0)


class Task(NamedTuple):
    """An image to attack.

    Attributes:
        image: `Image`.
        place: Int. Place of the epsilon in the grid.
        stage: Int. Number of the stage: an attack, and one of its variants.
    """

    image: Image
    place: int
    stage: int


class Queues:
    """The images that wait for each attack of a sweep.

    Args:
        epsilons: Ascending array that begins with 0.
        stages: Pairs of the number of an attack and its variant. Each image
            is attacked in this order until it is broken.
        nested: Boolean. Whether an image that is broken at one epsilon counts
            as broken at every larger epsilon.
        bisect: Boolean. Whether a nested sweep uses bisection instead of
            trying the epsilons in ascending order.

    Example:
    ```python
    queues = Queues(np.array([0.0, 0.1, 0.2]), [(0, 0)], True, True)
    queues.enter(image)
    (task,) = queues.take(0, batch_size)
    queues.settle(task, broken=True, adversarial=found, best=found)
    ```
    """

    def __init__(
        self,
        epsilons: np.ndarray,
        stages: Sequence[tuple[int, int]],
        nested: bool,
        bisect: bool,
    ):
        self.epsilons = epsilons
        self.stages = stages
        self.nested = nested
        self.bisect = bisect
        count = 1 + max(number for number, _ in stages)
        self.waiting: list[deque[Task]] = [deque() for _ in range(count)]

    def enter(self, image: Image) -> bool:
        """Adds an image, and returns whether it is already finished."""
        if not image.hit:
            return self._finish(image)
        place = self._middle(image) if self.bisect else 1
        return self._send(image, place, 0)

    def take(self, number: int, count: int) -> list[Task]:
        """Takes tasks from the front of the queue of an attack.

        Args:
            number: Int. Number of the attack.
            count: Int. Largest number of tasks to take.
        """
        queue = self.waiting[number]
        return [queue.popleft() for _ in range(min(count, len(queue)))]

    def fullest(self) -> int | None:
        """Number of the attack with the longest queue, `None` if all empty."""
        lengths = [len(queue) for queue in self.waiting]
        return int(np.argmax(lengths)) if any(lengths) else None

    def start(self, task: Task) -> np.ndarray | None:
        """The best point of another epsilon, scaled to this epsilon."""
        image, place, stage = task
        if not self.nested or image.warm is None:
            return None
        if stage and stage != image.breaker:
            return None
        at, best = image.warm
        growth = np.float32(self.epsilons[place] / self.epsilons[at])
        return image.pixels + growth * (best - image.pixels)

    def settle(
        self,
        task: Task,
        adversarial: np.ndarray,
        broken: bool,
        best: np.ndarray,
        zero_gradient: bool = False,
        distance: float | None = None,
    ) -> bool:
        """Stores the result of an attack, and queues the image again.

        Args:
            task: `Task` that was taken.
            adversarial: Array. The image after the attack.
            broken: Boolean. Whether it is misclassified.
            best: Array. The point from which another epsilon starts.
            zero_gradient: Boolean. Whether the gradient vanished.
            distance: Float, the smallest epsilon that breaks the image, for
                an attack that looks for it. Otherwise `None`.

        Returns:
            Whether the image is finished.
        """
        image, place, stage = task
        image.zero_gradient |= bool(zero_gradient)
        if stage == 0:
            # A copy: a view would keep the whole batch in memory.
            image.warm = (place, np.array(best)) if self.nested else None
        if distance is not None:
            image.distances[stage] = distance * _BEYOND
            broken = self._reaches(image, place, stage)
            reached = int(
                np.searchsorted(self.epsilons, image.distances[stage])
            )
            if self.nested and reached < len(self.epsilons):
                self._note(image, reached, stage, adversarial)
        if broken:
            self._note(image, place, stage, adversarial)
            if stage and self.bisect:
                image.breaker = stage
                image.warm = (place, np.array(adversarial))
        following = self._next(image, place, stage, broken)
        if following is None:
            return self._finish(image)
        return self._send(image, *following)

    def _middle(self, image):
        return (image.floor + image.ceiling) // 2

    def _reaches(self, image, place, stage):
        return bool(image.distances[stage] <= self.epsilons[place])

    def _send(self, image, place, stage):
        """Queues an image at the next place without a known result.

        Returns whether the image is finished because all results are known.
        """
        while stage in image.distances:
            broken = self._reaches(image, place, stage)
            if broken:
                self._note(image, place, stage)
            following = self._next(image, place, stage, broken)
            if following is None:
                return self._finish(image)
            place, stage = following
        number, _ = self.stages[stage]
        self.waiting[number].append(Task(image, place, stage))
        return False

    def _note(self, image, place, stage, adversarial=None):
        """Stores that a stage broke the image at a place."""
        if not self.nested:
            image.broken_at[place] = stage
        elif place < image.ceiling:
            image.ceiling = place
            image.broken_at[place:] = stage
        else:
            return
        if image.keep and adversarial is not None:
            smaller = image.example is None or place < image.example[0]
            if smaller:
                image.example = place, np.array(adversarial)

    def _next(self, image, place, stage, broken):
        """The next place and stage, or `None` at the end."""
        later = self._later(image, stage)
        further = None if later is None else (place, later)
        if not self.nested:
            if further and not broken:
                return further
            return (place + 1, 0) if place + 1 < len(self.epsilons) else None
        if not self.bisect:
            if image.ceiling <= place:
                return None
            if further:
                return further
            return (place + 1, 0) if place + 1 < image.ceiling else None
        # The first stage finds a ceiling; the others try to lower it.
        if stage == 0:
            image.floor = image.floor if broken else place
            if image.floor + 1 < image.ceiling:
                return self._middle(image), 0
        elif not broken:
            return further
        if len(self.stages) > 1 and image.ceiling > 1:
            return image.ceiling - 1, image.breaker or 1
        return None

    def _later(self, image, stage):
        """The next stage at the same place, or `None`.

        A stage that has broken an image is the first to be tried at the place
        below, because it is likely to break the image again.
        """
        later = 1 if stage == image.breaker else stage + 1
        later += later == image.breaker
        return later if later < len(self.stages) else None

    def _finish(self, image):
        """Frees the memory that a finished image no longer needs."""
        image.pixels = image.pixels if image.example else None
        image.warm = None
        return True
