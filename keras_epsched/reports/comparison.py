"""Which of two models is more robust, by how much, image by image."""

from dataclasses import dataclass

import numpy as np

from keras_epsched.reports.matching import match
from keras_epsched.reports.report import Report
from keras_epsched.reports.statistics import (
    BATCH_ELEMENTS,
    bootstrap_interval,
)
from keras_epsched.reports.table import percents, result_table

_NUM_PERMUTATIONS = 9999


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `print` it for the table.

    Accuracies and robustness are fractions; differences are second minus
    first.

    Attributes:
        names: Pair of strings, the names of the models.
        num_images: Int, the images that both were evaluated on.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        distribution: String, the distribution of epsilon in words.
        confidence: Float, the confidence of `interval`.
        epsilons: Floats, the grid.
        notes: Strings, what else sets the two reports apart.
        expected_robustness: Pair of floats, of the two models.
        difference: Float, the difference of expected robustness.
        interval: Pair of floats, its paired bootstrap interval.
        p_value: Float, of the sign-flip test that the difference is 0.
        accuracy: Pair of tuples of floats, the accuracies at each epsilon.
        accuracy_difference: Floats, their difference at each epsilon.
        accuracy_p_value: Floats, of McNemar's exact test at each epsilon,
            not corrected for the number of epsilons.
    """

    names: tuple[str, str]
    num_images: int
    norm: str
    distribution: str
    confidence: float
    epsilons: tuple[float, ...]
    notes: tuple[str, ...]
    expected_robustness: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    p_value: float
    accuracy: tuple[tuple[float, ...], tuple[float, ...]]
    accuracy_difference: tuple[float, ...]
    accuracy_p_value: tuple[float, ...]

    def __str__(self):
        first, second = percents(self.expected_robustness)
        low, high = percents(self.interval, "+")
        summary = {
            "first": self.names[0],
            "second": self.names[1],
            "images": f"{self.num_images:,}, the same for both",
            "expected robustness": f"{first} % and {second} %, "
            + self.distribution,
            "second - first": f"{100 * self.difference:+.2f} points "
            f"({100 * self.confidence:g} % interval {low} to {high}), "
            f"p = {self.p_value:.2g} (sign-flip test)",
        }
        columns = {
            "first %": percents(self.accuracy[0]),
            "second %": percents(self.accuracy[1]),
            "difference": percents(self.accuracy_difference, "+"),
            "McNemar p": [f"{p:.2g}" for p in self.accuracy_p_value],
        }
        footnote = "McNemar p are not corrected for the number of epsilons"
        return result_table(self, summary, columns, footnote)


def compare(
    first: Report,
    second: Report,
    density=None,
    target_epsilon: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares two models image by image.

    Use it to tell whether one model is more robust than another. Because
    both saw the same images, hard images cancel out of the difference: it is
    known better than the intervals of the two separate reports suggest.

    The interval (percentile bootstrap) and the p-values speak of new images
    for these two trained models, not of what another training seed would
    give; for that, train several and `pool` them. The sign-flip test asks
    how often swapping the two models on random images gives a difference as
    large; it is exact up to 13 images that differ, else estimated from 9,999
    permutations. The p-values at the single epsilons are not corrected for
    multiplicity: name one epsilon beforehand, or correct them.

    Reports of different attacks may be compared, to compare attacks on one
    model; `notes` says so, as between models the weaker attack flatters.

    Args:
        first: A `Report`.
        second: A `Report` of the same images, in any order, with the same
            norm, grid and protocol.
        density: The distribution of epsilon, see
            `Report.expected_robustness`. Defaults to uniform.
        target_epsilon: Optional float, the upper end of the interval.
            Defaults to that of the first report.
        confidence: Float between 0 and 1. Defaults to `0.95`.
        seed: Int, the seed of the resamples. Defaults to `0`.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: If the reports are not of the same images attacked alike.

    Example:
    ```python
    fixed = Report.load("runs/fixed")
    scheduled = Report.load("runs/scheduled")
    comparison = compare(fixed, scheduled)
    print(comparison)
    comparison.difference, comparison.interval, comparison.p_value
    ```
    """
    reports = [first, second]
    correct, weights, common = match(reports, density, target_epsilon)
    steps = correct[1].astype("int8") - correct[0]
    differences = steps @ weights
    gained, lost = (steps > 0).sum(axis=0), (steps < 0).sum(axis=0)
    accuracy = correct.mean(axis=1)
    return Comparison(
        **common,
        confidence=confidence,
        expected_robustness=tuple((accuracy @ weights).tolist()),
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences, confidence, seed),
        p_value=_sign_flip_p_value(differences, seed),
        accuracy=(tuple(accuracy[0].tolist()), tuple(accuracy[1].tolist())),
        accuracy_difference=tuple(steps.mean(axis=0).tolist()),
        accuracy_p_value=tuple(map(_mcnemar_p_value, gained, lost)),
    )


def _mcnemar_p_value(gained: int, lost: int) -> float:
    from scipy.stats import binomtest

    if not gained + lost:
        return 1.0
    return float(binomtest(int(gained), int(gained + lost)).pvalue)


def _sign_flip_p_value(differences: np.ndarray, seed: int) -> float:
    from scipy.stats import permutation_test

    # A difference of 0 keeps its value whatever its sign: dropping it leaves
    # the p-value as it is and saves most of the time.
    differences = differences[~np.isclose(differences, 0)]
    # Either sign of a single one is as extreme; SciPy wants two or more.
    if differences.size < 2:
        return 1.0
    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_NUM_PERMUTATIONS,
        # Each permutation holds two signs of every image several times over.
        batch=max(1, BATCH_ELEMENTS // (8 * differences.size)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
