"""The engine of a sweep: which image is attacked next, where, and by what.

Images wait for the epsilons at which they have to be attacked, and batches are
filled from the front of the queue, whatever the radii: epsilon is a number per
image. So no slot is wasted on broken images, one compiled function serves all
of them (attack_runner.py), and memory is proportional to the batch.
"""

import contextlib
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from keras import ops

from keras_epsched import checks
from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack

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


@dataclass(repr=False, eq=False)
class Member:
    """One attack, with the images that wait for it."""

    attack: Attack
    queue: deque = field(default_factory=deque)
    runs: int = 0


class Sweep:
    """Sends images through attacks at all the epsilons of a grid.

    Args:
        runner: `AttackRunner` of the classifier.
        epsilons: Ascending array that begins with 0.
        attacks: Sequence of `Attack`. An image is given to one after the
            other, and to each variant of each, until it is broken.
        nested: Boolean. Whether a point that breaks an image counts at every
            larger epsilon.
        bisect: Boolean. Whether a nested sweep halves the places that are
            left, instead of going up one by one.
        seed: Int. Seed of the random numbers.
    """

    def __init__(
        self,
        runner,
        epsilons,
        attacks,
        nested,
        bisect,
        seed,
    ):
        self.runner = runner
        self.epsilons = epsilons
        self.nested = nested
        self.bisect = bisect
        self.batch_size = runner.batch_size
        self.seed = seed
        self.members = [Member(attack) for attack in attacks]
        # Draws of a randomised network that are averaged.
        self.eot = max(getattr(attack, "eot", 1) for attack in attacks)
        self.num_classes = None
        # Pairs of the number of an attack and its variant, in their order.
        self.stages = []
        # A context around each attack on a batch, of the attack and the
        # number of images: for who tells how far it is.
        self.watch = lambda attack, count: contextlib.nullcontext()

    def run(self, pixels, labels, numbers, keep, progress):
        """Sends a window of images through the sweep.

        Args:
            pixels: Float32 array `(count, ...)` within the value range.
            labels: Array of labels, in any usual form.
            numbers: Integer array of shape `(count,)`, which identifies the
                images: random numbers depend on it.
            keep: Int. Number of images whose adversarial is kept.
            progress: Function that is called with every finished `Image`.

        Returns:
            The list of `Image`, in the order given.
        """
        logits = self.predict(pixels)
        checks.check_logits(logits, self.runner.classifier)
        self.set_classes(logits.shape[1])
        checks.check_labels(labels, self.num_classes)
        labels = ops.convert_to_numpy(
            checks.class_labels(labels, self.num_classes)
        )
        count = len(self.epsilons)
        images = [
            Image(
                number=int(number),
                label=int(label),
                prediction=int(np.argmax(row)),
                pixels=image,
                ceiling=count,
                broken_at=np.full(count, -1, "int16"),
            )
            for number, label, row, image in zip(
                numbers, labels, logits, pixels, strict=True
            )
        ]
        for at in np.argsort(lots(self.seed, numbers))[:keep]:
            images[at].keep = True
        for image in images:
            if image.hit:
                place = self._middle(image) if self.bisect else 1
                self._send(image, place, 0)
            else:
                self._finish(image, progress)
            for member in self.members:
                while len(member.queue) >= self.batch_size:
                    self._attack(member, progress)
        while any(member.queue for member in self.members):
            fullest = max(self.members, key=lambda each: len(each.queue))
            self._attack(fullest, progress)
        return images

    def predict(self, pixels):
        """Logits of images, averaged over the draws of a random network."""
        return self.runner.predict(pixels, self.eot)

    def attack_once(
        self, attack, pixels, labels, numbers, epsilons, draw, variant=0
    ):
        """Attacks images afresh, apart from the sweep; for its checks."""
        results = []
        for at in range(0, len(pixels), self.batch_size):
            part = slice(at, at + self.batch_size)
            result = self.runner.search(
                attack,
                pixels[part],
                labels[part],
                epsilons[part],
                (self.seed, numbers[part], draw, -1),
                variants=np.full(len(pixels[part]), variant),
            )
            results.append(result.broken)
        return np.concatenate(results)

    def set_classes(self, num_classes):
        """Makes the list of all runs, which needs the number of classes."""
        self.num_classes = num_classes
        self.stages = [
            (number, variant)
            for number, member in enumerate(self.members)
            for variant in range(member.attack.num_variants(num_classes))
        ]

    def _middle(self, image):
        return (image.floor + image.ceiling) // 2

    # === The attacks ===

    def _attack(self, member, progress):
        """Attacks the front of a queue."""
        count = min(self.batch_size, len(member.queue))
        tasks = [member.queue.popleft() for _ in range(count)]
        starts = [self._start(*task) for task in tasks]
        with self.watch(member.attack, count):
            result = self.runner.search(
                member.attack,
                np.stack([image.pixels for image, _, _ in tasks]),
                np.array([image.label for image, _, _ in tasks]),
                np.array([self.epsilons[place] for _, place, _ in tasks]),
                (
                    self.seed,
                    np.array([image.number for image, _, _ in tasks]),
                    np.array([place for _, place, _ in tasks]),
                    np.array([stage for _, _, stage in tasks]),
                ),
                np.stack(
                    [
                        image.pixels if start is None else start
                        for (image, _, _), start in zip(
                            tasks, starts, strict=True
                        )
                    ]
                ),
                np.array([start is not None for start in starts]),
                np.array([self.stages[stage][1] for _, _, stage in tasks]),
            )
        member.runs += count
        for slot, task in enumerate(tasks):
            row = [None if each is None else each[slot] for each in result]
            self._settle(*task, *row, progress)

    def _start(self, image, place, stage):
        """The best point of another epsilon, moved to the sphere of this."""
        if not self.nested or image.warm is None:
            return None
        if stage and stage != image.breaker:
            return None
        at, best = image.warm
        growth = np.float32(self.epsilons[place] / self.epsilons[at])
        return image.pixels + growth * (best - image.pixels)

    # === The way of an image ===

    def _settle(
        self,
        image,
        place,
        stage,
        adversarial,
        broken,
        best,
        zero_gradient,
        distance,
        progress,
    ):
        """Notes what an attack found, and sends the image on."""
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
            self._finish(image, progress)
        else:
            self._send(image, *following, progress)

    def _reaches(self, image, place, stage):
        return bool(image.distances[stage] <= self.epsilons[place])

    def _send(self, image, place, stage, progress=None):
        """Queues an image where the answer is not yet known."""
        while stage in image.distances:
            broken = self._reaches(image, place, stage)
            if broken:
                self._note(image, place, stage)
            following = self._next(image, place, stage, broken)
            if following is None:
                self._finish(image, progress)
                return
            place, stage = following
        number, _ = self.stages[stage]
        self.members[number].queue.append((image, place, stage))

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

    def _finish(self, image, progress):
        image.pixels = image.pixels if image.example else None
        image.warm = None
        progress(image)

    # === The cost ===

    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of one image that attacks have made."""
        forward = backward = 0
        for member in self.members:
            if not member.runs:
                continue
            ahead, back = member.attack.passes(self.num_classes)
            forward += member.runs * ahead
            backward += member.runs * back
        return forward, backward

    def naive_passes(self, images) -> tuple[int, int]:
        """Passes if all correct images were attacked afresh at each place.

        One attack after the other, until it is broken. In a nested sweep the
        attack that broke it first is taken to do it at every larger epsilon.
        """
        total = np.zeros(2, "int64")
        costs = [
            self.members[number].attack.passes(self.num_classes)
            for number, _ in self.stages
        ]
        upto = np.cumsum(costs, axis=0)
        for image in images:
            if image.hit:
                # Where it stands the last stage, number -1, was the last.
                total += upto[image.broken_at[1:]].sum(axis=0)
        return len(images) * self.eot + int(total[0]), int(total[1])

    def broken_by(self, image):
        """The number of the attack that broke it at each place, or -1."""
        numbers = np.array([*(number for number, _ in self.stages), -1])
        return numbers[image.broken_at]


def lots(seed, numbers):
    """A random number of each image, the same in every evaluation."""
    return ops.convert_to_numpy(noise.make_key(seed, numbers, 2**31))
