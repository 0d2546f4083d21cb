"""Statistics over several reports: which model is better, by how much."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_epsched.epsilons import SAME_EPSILON, format_epsilon
from keras_epsched.evaluation.report import Report
from keras_epsched.evaluation.statistics import (
    BATCH_ELEMENTS,
    bootstrap_interval,
    check_confidence,
)

# As many as `bootstrap_interval` draws.
_NUM_RESAMPLES = 2000
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
        first, second = _percents(self.expected_robustness)
        low, high = _percents(self.interval, "+")
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
            "first %": _percents(self.accuracy[0]),
            "second %": _percents(self.accuracy[1]),
            "difference": _percents(self.accuracy_difference, "+"),
            "McNemar p": [f"{p:.2g}" for p in self.accuracy_p_value],
        }
        footnote = "McNemar p are not corrected for the number of epsilons"
        return _text(self, summary, columns, footnote)


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
            "mean accuracy %": _percents(self.accuracy),
            "standard error": _percents(self.accuracy_error),
            level: map(" to ".join, map(_percents, self.accuracy_interval)),
        }
        interval = " to ".join(_percents(self.expected_robustness_interval))
        summary = {
            "models": ", ".join(dict.fromkeys(self.names)),
            "reports": f"{len(self.names)}, of the same "
            f"{self.num_images:,} images",
            "expected robustness": f"{100 * self.expected_robustness:.2f} %, "
            f"standard error {100 * self.expected_robustness_error:.2f} "
            f"({level} {interval}), {self.distribution}",
        }
        return _text(self, summary, columns)


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
    correct, weights, common = _prepare(reports, density, target_epsilon)
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
    correct, weights, common = _prepare(reports, density, target_epsilon)
    # One column for each epsilon, and expected robustness as the last.
    columns = np.column_stack([np.eye(weights.size), weights])
    curves = correct.mean(axis=1) @ columns
    means = curves.mean(axis=0).tolist()
    errors = [math.nan] * len(means)
    if len(curves) > 1:
        errors = (curves.std(axis=0, ddof=1) / len(curves) ** 0.5).tolist()
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


def _prepare(reports, density, target_epsilon):
    """Booleans `(reports, images, epsilons)`, weights, and common fields."""
    reports = list(reports)
    if not reports or not all(isinstance(each, Report) for each in reports):
        received = ", ".join(type(each).__name__ for each in reports)
        raise ValueError(
            "Expected at least one `Report`, as `evaluate` returns and "
            f"`Report.load(folder)` reads. Received: {received or 'none'}"
        )
    first = reports[0]
    names = tuple(report.model_name or "unnamed" for report in reports)
    correct, notes = [], {}
    for other, name in zip(reports, names, strict=True):
        correct.append(other.correct[np.argsort(other.image_ids)])
        if found := differences(first, other):
            raise ValueError(
                "Expected reports of the same images attacked alike. "
                f"Received: {names[0]!r} and {name!r} that differ in "
                f"{'; '.join(found)}. Evaluate both on the same dataset "
                "with the same `epsilons`, norm and `protocol`."
            )
        if first.attack != other.attack:
            attacks = f"{first.attack_title} and {other.attack_title}"
            notes[f"the attacks differ: {attacks}"] = True
        if first.bisect != other.bisect:
            notes["one was swept by bisection, the other not"] = True
        if first.seed != other.seed:
            seeds = f"{first.seed} and {other.seed}"
            notes[f"the seeds of the attacks differ: {seeds}"] = True
    weights = first.weights(density, target_epsilon)
    end = first.target_epsilon if target_epsilon is None else target_epsilon
    law = "uniform" if density is None else "by the given density"
    distribution = f"epsilon {law} on [0, {format_epsilon(end, first.norm)}]"
    if isinstance(density, numbers.Real):
        distribution = f"epsilon = {format_epsilon(density, first.norm)}"
    common = {
        "names": names,
        "num_images": first.num_images,
        "norm": first.norm,
        "distribution": distribution,
        "epsilons": tuple(first.epsilons.tolist()),
        "notes": tuple(notes),
    }
    return np.stack(correct), weights, common


def differences(first: Report, other: Report) -> list[str]:
    """Returns what keeps two reports from being compared, in words.

    Args:
        first: A `Report`.
        other: Another.

    Returns:
        Strings, none if `compare` takes the two.
    """
    order, other_order = (np.argsort(r.image_ids) for r in (first, other))
    names = ["norm", "protocol"]
    if first.dataset is not None and other.dataset is not None:
        names.append("dataset")
    differing = [
        f"{name}: {getattr(first, name)!r} and {getattr(other, name)!r}"
        for name in names
        if getattr(first, name) != getattr(other, name)
    ]
    grids = first.epsilons, other.epsilons
    if grids[0].size != grids[1].size or not np.allclose(
        *grids, rtol=SAME_EPSILON, atol=0
    ):
        both = (
            ", ".join(format_epsilon(epsilon, each.norm) for epsilon in grid)
            for grid, each in zip(grids, (first, other), strict=True)
        )
        differing.append(f"epsilons: {' and '.join(both)}")
    ids = first.image_ids[order], other.image_ids[other_order]
    if not np.array_equal(*ids):
        differing.append(
            f"image_ids: {ids[0].size} and {ids[1].size} images, of which "
            f"{np.intersect1d(*ids).size} are in both"
        )
    elif changed := (first.labels[order] != other.labels[other_order]).sum():
        differing.append(f"labels: of {changed} images")
    return differing


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


def _percents(values, sign=""):
    return [f"{100 * value:{sign}.2f}" for value in values]


def _text(result, summary, columns, *footnotes):
    from tabulate import tabulate

    epsilons = [format_epsilon(e, result.norm) for e in result.epsilons]
    blocks = [
        tabulate(summary.items(), tablefmt="plain", disable_numparse=True),
        tabulate(
            {"epsilon": epsilons, **columns},
            headers="keys",
            stralign="right",
            disable_numparse=True,
        ),
        "\n".join(f"NOTE: {note}" for note in (*footnotes, *result.notes)),
    ]
    return "\n\n".join(block for block in blocks if block)
