"""The comparison of two models on the same images."""

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
    """The result of `compare`. `print` it for the table.

    Accuracies and expected robustness are fractions. Each difference is the
    second model minus the first.

    Attributes:
        names: Pair of strings, the names of the models.
        num_images: Int, the number of images that both were evaluated on.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        distribution: String, the distribution of epsilon in words.
        confidence: Float, the confidence of `interval`.
        epsilons: Floats, the grid.
        notes: Strings, other differences between the two reports.
        expected_robustness: Pair of floats, one for each model.
        difference: Float, the difference of expected robustness.
        interval: Pair of floats, the paired bootstrap interval of
            `difference`.
        p_value: Float, the p-value of the sign-flip test. The tested
            hypothesis is that the difference is 0.
        accuracy: Pair of tuples of floats, the accuracies at each epsilon.
        accuracy_difference: Floats, the difference of accuracy at each
            epsilon.
        accuracy_p_value: Floats, the p-value of McNemar's exact test at each
            epsilon. They are not corrected for the number of epsilons.
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
            "images": f"{self.num_images:,}, the same for both models",
            "expected robustness": f"{first} % (first), {second} % (second), "
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
        footnote = (
            "the p-values of McNemar's test are not corrected for the number "
            "of epsilons"
        )
        return result_table(self, summary, columns, footnote)


def compare(
    first: Report,
    second: Report,
    density=None,
    target_epsilon: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares the robustness of two models on the same images.

    Use it to decide whether one model is more robust than another. Both
    models were measured on the same images, so a hard image counts against
    both. The difference is therefore known more exactly than the intervals of
    the two separate reports suggest.

    The interval (percentile bootstrap) and the p-values hold for these two
    trained models on new images. They do not say what another training seed
    would give. For that, train several seeds and use `pool`.

    The sign-flip test swaps the two models on random images. Its p-value says
    how often that gives a difference at least as large. The test is exact if
    the models differ on at most 13 images. Otherwise it is estimated from
    9,999 permutations. The p-values at single epsilons are not corrected for
    multiple testing: choose one epsilon before you look, or correct them.

    Two reports of one model with different attacks can be compared too. If
    the attacks differ, `notes` says so, because a weaker attack makes a model
    look more robust.

    Args:
        first: A `Report`.
        second: A `Report` of the same images, in any order, with the same
            norm, grid and protocol.
        density: The distribution of epsilon, see
            `Report.expected_robustness`. Defaults to the uniform
            distribution.
        target_epsilon: Optional float, the upper end of the distribution.
            Defaults to the `target_epsilon` of the first report.
        confidence: Float between 0 and 1. Defaults to `0.95`.
        seed: Int, the seed of the resamples. Defaults to `0`.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: If the reports differ in images, norm, grid or protocol.

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

    # A sign flip does not change a difference of 0. Dropping these keeps the
    # p-value and saves most of the time.
    differences = differences[~np.isclose(differences, 0)]
    # Both signs of a single value are equally extreme, and SciPy needs two
    # values or more.
    if differences.size < 2:
        return 1.0
    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_NUM_PERMUTATIONS,
        # SciPy holds several arrays of signs for each permutation.
        batch=max(1, BATCH_ELEMENTS // (8 * differences.size)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
