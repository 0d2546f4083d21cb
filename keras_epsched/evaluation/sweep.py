"""A sweep over epsilons: the queues of images, and the attacks on them.

queues.py decides which image is attacked next; attack_runner.py attacks, by one
compiled function for all epsilons. Memory is proportional to the batch.
"""

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from keras_epsched import checks
from keras_epsched.attacks.base import Attack
from keras_epsched.evaluation.attack_runner import AttackRunner
from keras_epsched.evaluation.check_sample import sampling_priority
from keras_epsched.evaluation.queues import Image, Queues


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
        runner: AttackRunner,
        epsilons: np.ndarray,
        attacks: Sequence[Attack],
        nested: bool,
        bisect: bool,
        seed: int,
    ):
        self.runner = runner
        self.epsilons = epsilons
        self.attacks = list(attacks)
        self.nested = nested
        self.bisect = bisect
        self.batch_size = runner.batch_size
        self.seed = seed
        # Images that each attack was run on, again for each epsilon.
        self.runs = [0] * len(self.attacks)
        # Draws of a randomised network that are averaged.
        self.eot = max(getattr(attack, "eot", 1) for attack in attacks)
        self.num_classes = 0
        # Pairs of the number of an attack and its variant, in their order.
        self.stages: list[tuple[int, int]] = []
        # A context around each attack on a batch, of the attack and the
        # number of images: for who tells how far it is.
        self.watch: Callable = lambda attack, count: contextlib.nullcontext()

    def run(self, pixels, labels, numbers, keep, progress) -> list[Image]:
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
        images = self._images(pixels, labels, numbers, keep)
        queues = Queues(self.epsilons, self.stages, self.nested, self.bisect)
        for image in images:
            if queues.enter(image):
                progress(image)
            for number, queue in enumerate(queues.waiting):
                while len(queue) >= self.batch_size:
                    self._attack(queues, number, progress)
        while (fullest := queues.fullest()) is not None:
            self._attack(queues, fullest, progress)
        return images

    def predict(self, pixels) -> np.ndarray:
        """Logits of images, averaged over the draws of a random network."""
        return self.runner.predict(pixels, self.eot)

    def set_classes(self, num_classes: int) -> None:
        """Makes the list of all stages, which needs the number of classes."""
        self.num_classes = num_classes
        self.stages = [
            (number, variant)
            for number, attack in enumerate(self.attacks)
            for variant in range(attack.num_variants(num_classes))
        ]

    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of one image that attacks have made."""
        forward = backward = 0
        for attack, runs in zip(self.attacks, self.runs, strict=True):
            if runs:
                ahead, back = attack.passes(self.num_classes)
                forward += runs * ahead
                backward += runs * back
        return forward, backward

    def naive_passes(self, images: Sequence[Image]) -> tuple[int, int]:
        """Passes if all correct images were attacked afresh at each place.

        One attack after the other, until it is broken. In a nested sweep the
        attack that broke it first is taken to do it at every larger epsilon.
        """
        total = np.zeros(2, "int64")
        costs = [
            self.attacks[number].passes(self.num_classes)
            for number, _ in self.stages
        ]
        upto = np.cumsum(costs, axis=0)
        for image in images:
            if image.hit:
                # Where it stands the last stage, number -1, was the last.
                total += upto[image.broken_at[1:]].sum(axis=0)
        return len(images) * self.eot + int(total[0]), int(total[1])

    def broken_by(self, image: Image) -> np.ndarray:
        """The number of the attack that broke it at each place, or -1."""
        numbers = np.array([*(number for number, _ in self.stages), -1])
        return numbers[image.broken_at]

    def _images(self, pixels, labels, numbers, keep):
        """Predicts the images as they are, before any attack."""
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
        for at in np.argsort(sampling_priority(self.seed, numbers))[:keep]:
            images[at].keep = True
        return images

    def _attack(self, queues, number, progress):
        """Attacks the front of a queue."""
        attack = self.attacks[number]
        tasks = queues.take(number, self.batch_size)
        starts = [queues.start(task) for task in tasks]
        with self.watch(attack, len(tasks)):
            result = self.runner.search(
                attack,
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
        self.runs[number] += len(tasks)
        for slot, task in enumerate(tasks):
            row = [None if each is None else each[slot] for each in result]
            if queues.settle(task, *row):
                progress(task.image)
