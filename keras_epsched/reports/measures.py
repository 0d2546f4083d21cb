"""Accuracies and expected robustness, computed from the table of images."""

import numpy as np

from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports.density import density_weights, grid_place
from keras_epsched.reports.statistics import (
    bootstrap_interval,
    wilson_interval,
)


class Measures:
    """Accuracy, expected robustness and their intervals.

    This is the base class of `Report`, which holds the data.
    """

    epsilons: np.ndarray
    correct: np.ndarray
    broken_by: np.ndarray
    attack_members: list[str]
    norm: str
    target_epsilon: float
    forward_passes: int
    backward_passes: int
    naive_forward_passes: int
    naive_backward_passes: int

    @property
    def num_images(self) -> int:
        """Number of images evaluated."""
        return len(self.correct)

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy at each epsilon: fractions of shape `(num_epsilons,)`."""
        return self.correct.mean(axis=0)

    @property
    def clean_accuracy(self) -> float:
        """Accuracy without an attack, a fraction."""
        return float(self.accuracy[0])

    @property
    def critical_epsilon(self) -> np.ndarray:
        """Smallest epsilon of the grid that broke each image.

        An array of shape `(num_images,)`. It is 0 for an image that is
        misclassified without an attack, and infinity for an image that
        withstood every epsilon of the grid.
        """
        broken = ~self.correct
        first = self.epsilons[broken.argmax(axis=1)]
        return np.where(broken.any(axis=1), first, np.inf)

    @property
    def violations(self) -> int:
        """How often an image was correct although a smaller epsilon broke it.

        The perturbation that broke the image is allowed at the larger epsilon
        too. Each such case is therefore a failure of the attack. The number
        is always 0 with `protocol="nested"`.
        """
        broken_so_far = np.logical_or.accumulate(~self.correct, axis=1)
        return int((self.correct & broken_so_far).sum())

    @property
    def broken_counts(self) -> np.ndarray:
        """Number of images that each attack broke first, at each epsilon.

        An array of shape `(num_attacks, num_epsilons)`. An attack is run only
        on images that the attacks before it did not break. With
        `protocol="nested"` an image that was broken at a smaller epsilon
        counts for the attack that broke it there.
        """
        return np.stack(
            [
                (self.broken_by == number).sum(axis=0)
                for number in range(len(self.attack_members))
            ]
        )

    @property
    def saving_factor(self) -> float:
        """Passes of a naive evaluation divided by the passes that were made.

        NaN if one of the two is unknown.
        """
        passes = self.forward_passes + self.backward_passes
        naive = self.naive_forward_passes + self.naive_backward_passes
        return naive / passes if passes and naive else float("nan")

    def _place(self, epsilon: float, name: str = "epsilon") -> int:
        place = grid_place(self.epsilons, epsilon)
        if place is None:
            grid = ", ".join(
                format_epsilon(each, self.norm) for each in self.epsilons
            )
            raise ValueError(
                f"`{name}` must be a point of the grid that was evaluated: "
                f"{grid}. Received: {name}={epsilon}"
            )
        return place

    def accuracy_at(self, epsilon: float) -> float:
        """Accuracy at one epsilon of the grid, a fraction.

        Args:
            epsilon: Float, on the [0, 1] scale.

        Returns:
            A float.

        Raises:
            ValueError: If `epsilon` is not on the grid.
        """
        return float(self.accuracy[self._place(epsilon)])

    def accuracy_interval(
        self, epsilon: float, confidence: float = 0.95
    ) -> tuple[float, float]:
        """Wilson confidence interval of the accuracy at one epsilon.

        Args:
            epsilon: Float, on the [0, 1] scale.
            confidence: Float between 0 and 1. Defaults to `0.95`.

        Returns:
            A pair of floats `(low, high)`.

        Raises:
            ValueError: If `epsilon` is not on the grid.
        """
        successes = self.correct[:, self._place(epsilon)].sum()
        return wilson_interval(successes, self.num_images, confidence)

    def weights(
        self, density=None, target_epsilon: float | None = None
    ) -> np.ndarray:
        """Weight of each epsilon of the grid in `expected_robustness`.

        Args:
            density: As in `expected_robustness`.
            target_epsilon: As in `expected_robustness`.

        Returns:
            A float64 array of shape `(num_epsilons,)` with sum 1.
        """
        # A single epsilon or an array of weights may go beyond the target.
        spread = density is None or callable(getattr(density, "pdf", density))
        if target_epsilon is None and spread:
            target_epsilon = self.target_epsilon
        return density_weights(self.epsilons, density, target_epsilon)

    def expected_robustness(
        self, density=None, target_epsilon: float | None = None
    ) -> float:
        """Mean accuracy under a distribution of epsilon.

        Args:
            density: The distribution of epsilon: `None` for the uniform
                distribution, as in the paper; a number for a single epsilon;
                a density function; a frozen `scipy.stats` distribution; or an
                array with one weight for each epsilon of the grid.
            target_epsilon: Optional float, the upper end of the distribution.
                Defaults to the `target_epsilon` of the report.

        Returns:
            A float, a fraction.
        """
        weights = self.weights(density, target_epsilon)
        return float(self.accuracy @ weights)

    def expected_robustness_interval(
        self,
        density=None,
        target_epsilon: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Bootstrap confidence interval of expected robustness.

        The interval shows the uncertainty from the choice of test images. It
        does not show the uncertainty from the seed of the training run.

        Args:
            density: As in `expected_robustness`.
            target_epsilon: As in `expected_robustness`.
            confidence: Float between 0 and 1. Defaults to `0.95`.
            seed: Int, the seed of the resamples. Defaults to `0`.

        Returns:
            A pair of floats `(low, high)`.
        """
        weights = self.weights(density, target_epsilon)
        return bootstrap_interval(self.correct @ weights, confidence, seed)
