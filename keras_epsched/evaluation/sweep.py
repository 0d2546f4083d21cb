"""A sweep over epsilons.

queues.py decides which image is attacked next. attack_runner.py runs the
attacks, with one compiled function for all epsilons. The memory needed is
proportional to the batch size.
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
    """Attacks images at all epsilons of a grid.

    Args:
        runner: `AttackRunner` of the classifier.
        epsilons: Ascending array that begins with 0.
        attacks: Sequence of `Attack`. Each image is attacked by all variants
            of one attack after the other, until it is broken.
        nested: Boolean. Whether an image that is broken at one epsilon counts
            as broken at every larger epsilon.
        bisect: Boolean. Whether a nested sweep uses bisection instead of
            trying the epsilons in ascending order.
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
        # How many images each attack has run on, counted for each epsilon.
        self.runs = [0] * len(self.attacks)
        # Number of outputs of a randomised network to average.
        self.eot = max(getattr(attack, "eot", 1) for attack in attacks)
        self.num_classes = 0
        # Pairs of the number of an attack and its variant, in their order.
        self.stages: list[tuple[int, int]] = []
        # Returns a context for each attack on a batch, from the attack and
        # the number of images. The progress display uses it.
        self.watch: Callable = lambda attack, count: contextlib.nullcontext()

    def run(self, pixels, labels, numbers, keep, progress) -> list[Image]:
        """Attacks a window of images.

        Args:
            pixels: Float32 array `(count, ...)` within the value range.
            labels: Array of labels: integers, one-hot or smoothed.
            numbers: Integer array of shape `(count,)`, the ids of the images.
                Random numbers depend on them.
            keep: Int. Number of images whose adversarial image is stored.
            progress: Function that is called with each finished `Image`.

        Returns:
            The list of `Image`, in the given order.
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
        """Logits of images, averaged if the network is randomised."""
        return self.runner.predict(pixels, self.eot)

    def set_classes(self, num_classes: int) -> None:
        """Sets the number of classes, from which the stages follow."""
        self.num_classes = num_classes
        self.stages = [
            (number, variant)
            for number, attack in enumerate(self.attacks)
            for variant in range(attack.num_variants(num_classes))
        ]

    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of all attacks, counted per image."""
        forward = backward = 0
        for attack, runs in zip(self.attacks, self.runs, strict=True):
            if runs:
                ahead, back = attack.passes(self.num_classes)
                forward += runs * ahead
                backward += runs * back
        return forward, backward

    def naive_passes(self, images: Sequence[Image]) -> tuple[int, int]:
        """Passes if each correct image were attacked at each place anew.

        One attack runs after the other until the image is broken. In a nested
        sweep the attack that broke an image first is assumed to break it at
        every larger epsilon as well.
        """
        total = np.zeros(2, "int64")
        costs = [
            self.attacks[number].passes(self.num_classes)
            for number, _ in self.stages
        ]
        upto = np.cumsum(costs, axis=0)
        for image in images:
            if image.hit:
                # An image that withstands a place has -1 there, which selects
                # the cost of all stages.
                total += upto[image.broken_at[1:]].sum(axis=0)
        return len(images) * self.eot + int(total[0]), int(total[1])

    def broken_by(self, image: Image) -> np.ndarray:
        """The number of the attack that broke the image, or -1, per place."""
        numbers = np.array([*(number for number, _ in self.stages), -1])
        return numbers[image.broken_at]

    def _images(self, pixels, labels, numbers, keep):
        """Predicts the images without an attack."""
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
        """Attacks one batch from the front of a queue."""
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
