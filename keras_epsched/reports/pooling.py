"""What one recipe gives: the reports of several training seeds together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_epsched.reports.matching import match
from keras_epsched.reports.report import Report
from keras_epsched.reports.statistics import (
    BATCH_ELEMENTS,
    check_confidence,
    standard_error,
)
from keras_epsched.reports.table import percents, result_table

# As many as `bootstrap_interval` draws.
_NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Pooled:
    """What `pool` found. `print` it for the table.

    Accuracies and robustness are fractions, and means over the reports.

    Attributes:
        names: Strings, the names of the models.
        num_images: Int, the images that all were evaluated on.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        distribution: String, the distribution of epsilon in words.
        confidence: Float, the confidence of the intervals.
        epsilons: Floats, the grid.
        notes: Strings, what else sets the reports apart.
        expected_robustness: Float.
        expected_robustness_error: Float, its standard error over the
            reports, NaN for a single one.
        expected_robustness_interval: Pair of floats, over reports and images.
        accuracy: Floats, the accuracy at each epsilon.
        accuracy_error: Floats, its standard error over the reports.
        accuracy_interval: Pairs of floats, over reports and images.
    """

    names: tuple[str, ...]
    num_images: int
    norm: str
    distribution: str
    confidence: float
    epsilons: tuple[float, ...]
    notes: tuple[str, ...]
    expected_robustness: float
    expected_robustness_error: float
    expected_robustness_interval: tuple[float, float]
    accuracy: tuple[float, ...]
    accuracy_error: tuple[float, ...]
    accuracy_interval: tuple[tuple[float, float], ...]

    def __str__(self):
        level = f"{100 * self.confidence:g} % interval"
        columns = {
            "mean accuracy %": percents(self.accuracy),
            "standard error": percents(self.accuracy_error),
            level: map(" to ".join, map(percents, self.accuracy_interval)),
        }
        interval = " to ".join(percents(self.expected_robustness_interval))
        summary = {
            "models": ", ".join(dict.fromkeys(self.names)),
            "reports": f"{len(self.names)}, of the same "
            f"{self.num_images:,} images",
            "expected robustness": f"{100 * self.expected_robustness:.2f} %, "
            f"standard error {100 * self.expected_robustness_error:.2f} "
            f"({level} {interval}), {self.distribution}",
        }
        return result_table(self, summary, columns)


def pool(
    reports: Sequence[Report],
    density=None,
    target_epsilon: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Pooled:
    """Averages the reports of one recipe trained with several seeds.

    Use it to say what a recipe gives, rather than one model that it gave.

    The intervals are over training seeds and images: each resample draws
    reports with replacement, and images with replacement, the same for all
    of its reports as they share them (the pigeonhole bootstrap). They speak
    of a new run of the recipe, judged on new images. With few seeds they are
    too narrow, as S reports show (S - 1) / S of the variance between seeds:
    half for two, none for one, where the interval is that of the images
    alone. Where seeds differed far more than samples of images do, 95 %
    intervals held the truth in 76 % of simulations with 2 seeds, 81 % with 3,
    89 % with 5 and 92 % with 10. And no interval knows of a rare bad run that
    the few seeds do not contain. The standard error is over the seeds alone.

    Reference:
    - [Owen, 2007](https://doi.org/10.1214/07-AOAS122), the bootstrap

    Args:
        reports: `Report`s of the same images, in any order, with the same
            norm, grid and protocol.
        density: As in `compare`.
        target_epsilon: As in `compare`.
        confidence: Float between 0 and 1. Defaults to `0.95`.
        seed: Int, the seed of the resamples. Defaults to `0`.

    Returns:
        A `Pooled`.

    Raises:
        ValueError: If there are no reports, or they are not of the same
            images attacked alike.

    Example:
    ```python
    folders = [f"runs/scheduled-seed{seed}" for seed in range(5)]
    print(pool([Report.load(folder) for folder in folders]))
    ```
    """
    check_confidence(confidence)
    correct, weights, common = match(reports, density, target_epsilon)
    # One column for each epsilon, and expected robustness as the last.
    columns = np.column_stack([np.eye(weights.size), weights])
    curves = correct.mean(axis=1) @ columns
    means = curves.mean(axis=0).tolist()
    errors = standard_error(curves).tolist()
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    resamples = _resampled_curves(correct, seed) @ columns
    intervals = np.quantile(resamples, tails, axis=0).T.tolist()
    return Pooled(
        **common,
        confidence=confidence,
        expected_robustness=means[-1],
        expected_robustness_error=errors[-1],
        expected_robustness_interval=tuple(intervals[-1]),
        accuracy=tuple(means[:-1]),
        accuracy_error=tuple(errors[:-1]),
        accuracy_interval=tuple(map(tuple, intervals[:-1])),
    )


def _resampled_curves(correct: np.ndarray, seed: int) -> np.ndarray:
    """Mean accuracies `(resamples, epsilons)` over drawn reports and images."""
    num_reports, num_images, num_epsilons = correct.shape
    generator = np.random.default_rng(seed)
    # Images with equal outcomes are interchangeable: drawing how often each
    # kind of image occurs is the same, and there are far fewer kinds.
    kinds, counts = np.unique(
        correct.transpose(1, 0, 2).reshape(num_images, -1),
        axis=0,
        return_counts=True,
    )
    kinds = kinds.astype("float64")
    batch = max(1, BATCH_ELEMENTS // sum(kinds.shape))
    curves = []
    for start in range(0, _NUM_RESAMPLES, batch):
        size = min(batch, _NUM_RESAMPLES - start)
        images = generator.multinomial(num_images, counts / num_images, size)
        drawn = generator.multinomial(
            num_reports, np.full(num_reports, 1 / num_reports), size
        )
        sums = (images @ kinds).reshape(size, num_reports, num_epsilons)
        curves.append(np.einsum("br,bre->be", drawn, sums))
    return np.concatenate(curves) / (num_reports * num_images)
