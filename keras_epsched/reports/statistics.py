"""Intervals and standard errors of accuracies and other means."""

import numpy as np

# Largest size of a batch of bootstrap resamples, in elements (80 MB in
# float64).
BATCH_ELEMENTS = 10_000_000


def wilson_interval(
    successes: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Wilson score interval of a proportion, such as an accuracy.

    Unlike the normal approximation, it stays inside [0, 1] and is accurate
    near 0 and 1. Robust accuracies are often near 0, clean accuracies near 1.

    Args:
        successes: Int. Number of images classified correctly.
        total: Int. Number of images, at least 1.
        confidence: Float between 0 and 1. Defaults to `0.95`.

    Returns:
        A pair of floats `(low, high)`, fractions.

    Raises:
        ValueError: If `successes` is not between 0 and `total`, `total` is
            below 1, or `confidence` is not between 0 and 1.

    Example:
    >>> low, high = wilson_interval(80, 100)
    >>> round(low, 4), round(high, 4)
    (0.7112, 0.8666)
    """
    from scipy.stats import binomtest

    check_confidence(confidence)
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(
            "`total` must be at least 1 and `successes` between 0 and "
            f"`total`. Received: successes={successes}, total={total}"
        )
    interval = binomtest(int(successes), int(total)).proportion_ci(
        confidence_level=confidence, method="wilson"
    )
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    values: np.ndarray,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean with one value per image.

    Use it if the values are not only right or wrong, for example for expected
    robustness. For accuracies use `wilson_interval`. The percentile method is
    meant for test sets of at least a hundred images. BCa would correct the
    skew on smaller test sets, but its jackknife takes time quadratic in the
    number of images.

    If all values are equal, the interval is a single point, because every
    resample has the same mean. It then underestimates the uncertainty.

    Args:
        values: Array of shape `(num_images,)`, at least one value.
        confidence: Float between 0 and 1. Defaults to `0.95`.
        seed: Int. Equal seeds give equal intervals. Defaults to `0`.
        num_resamples: Int, at least 1. Defaults to `2000`.

    Returns:
        A pair of floats `(low, high)`.

    Raises:
        ValueError: If `values` is empty, not one-dimensional or not finite,
            or if `confidence` is not between 0 and 1.

    Example:
    >>> bootstrap_interval([0.25, 0.25, 0.25])
    (0.25, 0.25)
    """
    from scipy.stats import bootstrap

    check_confidence(confidence)
    values = np.asarray(values, dtype="float64")
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            "`values` must be a non-empty one-dimensional array of finite "
            f"numbers. Received: an array of shape {values.shape}"
        )
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        batch=max(1, BATCH_ELEMENTS // values.size),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis.

    Args:
        values: Array of shape `(count, ...)`.

    Returns:
        An array of shape `(...)`. It is NaN for a single value.

    Example:
    >>> float(standard_error([1.0, 3.0]))
    1.0
    """
    from scipy.stats import sem

    values = np.asarray(values, dtype="float64")
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return sem(values, axis=0)


def check_confidence(confidence: float) -> None:
    """Raises a `ValueError` unless `confidence` lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(
            "`confidence` must lie between 0 and 1, for example 0.95. "
            f"Received: confidence={confidence}"
        )
