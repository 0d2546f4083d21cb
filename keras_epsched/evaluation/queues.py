"""Which image is attacked next, at which epsilon and by what.

Pure logic: it knows neither networks nor attacks, only what an attack found.
Images wait in queues, one for each attack. A batch is taken from the front of
a queue, whatever the epsilons, because epsilon is a number per image; so no
slot of a batch is wasted on broken images.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# A distance is rounded: an epsilon must lie a hair beyond it to reach it.
_BEYOND = 1.0 + 1e-6


# TensorFlow prints the owner of a traced method: no images in its repr.
@dataclass(repr=False, eq=False)
class Image:
    """An image on its way through the sweep.

    Places are positions in the grid of epsilons. In a nested sweep the image
    withstands `floor` and is broken at `ceiling`.
    """

    number: int
    label: int
    prediction: int
    pixels: np.ndarray | None
    # For each place, the stage that broke the image, or -1.
    broken_at: np.ndarray
    keep: bool = False
    floor: int = 0
    ceiling: int = 0
    zero_gradient: bool = False
    warm: tuple | None = None
    # The stage, but the first, that broke it last.
    breaker: int | None = None
    distances: dict = field(default_factory=dict)
    # The smallest epsilon that broke it, and how; of some images only.
    example: tuple | None = None

    @property
    def hit(self) -> bool:
        """Whether it is classified correctly without any attack."""
        return self.prediction == self.label

    @property
    def correct(self) -> np.ndarray:
        """Whether it withstands each place."""
        return self.hit & (self.broken_at < 0)


class Task(NamedTuple):
    """An image that is to be attacked.

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
        stages: Pairs of the number of an attack and its variant, in the order
            in which an image meets them until it is broken.
        nested: Boolean. Whether a point that breaks an image counts at every
            larger epsilon.
        bisect: Boolean. Whether a nested sweep halves the places that are
            left, instead of going up one by one.

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
        """Takes in an image, and returns whether it is done already."""
        if not image.hit:
            return self._finish(image)
        place = self._middle(image) if self.bisect else 1
        return self._send(image, place, 0)

    def take(self, number: int, count: int) -> list[Task]:
        """Takes tasks from the front of the queue of an attack.

        Args:
            number: Int. Number of the attack.
            count: Int. How many to take, if so many wait.
        """
        queue = self.waiting[number]
        return [queue.popleft() for _ in range(min(count, len(queue)))]

    def fullest(self) -> int | None:
        """Number of the attack with the most images, `None` if none wait."""
        lengths = [len(queue) for queue in self.waiting]
        return int(np.argmax(lengths)) if any(lengths) else None

    def start(self, task: Task) -> np.ndarray | None:
        """The best point of another epsilon, moved to the sphere of this."""
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
        """Notes what an attack found, and sends the image on.

        Args:
            task: `Task` that was taken.
            adversarial: Array. What the attack made of the image.
            broken: Boolean. Whether that breaks it.
            best: Array. Where another epsilon is to start from.
            zero_gradient: Boolean. Whether the gradient vanished.
            distance: Float, of an attack that looks for the smallest epsilon
                which breaks the image; or `None`.

        Returns:
            Whether the image is done.
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
        """Queues an image where the answer is not yet known.

        Returns whether it is done, because all answers are.
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
        """The attack of a stage breaks the image at a place."""
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
        """The place and stage that follow, or `None` at the end."""
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
        """The stage that follows at the same place, or `None`.

        Where a stage has lowered the ceiling of an image, it is the first to
        be tried at the place below: what broke an image is likely to again.
        """
        later = 1 if stage == image.breaker else stage + 1
        later += later == image.breaker
        return later if later < len(self.stages) else None

    def _finish(self, image):
        """Frees what a finished image needs no more."""
        image.pixels = image.pixels if image.example else None
        image.warm = None
        return True
