"""Paired differences between schedules, with paired t-tests."""

import numpy as np
from scipy import stats

from keras_epsched.studies.layout import (
    HEADERS,
    MEASURES,
    MIN_VALUES,
    epsilon_text,
    markdown,
    name_of,
    varying,
)

# The last columns of `test_row`.
TEST_HEADERS = ("95 % interval, or both values", "above 0", "p (paired t)")


def differences(frame, first, second, measure):
    """Returns the second schedule minus the first, in percentage points.

    Returns:
        A dict from each setting to its differences, one for each seed that both
        schedules have.
    """
    found = {}
    for setting, group in frame.groupby("setting", sort=False):
        seeds = {
            name: group[group["schedule"] == name].set_index("seed")[measure]
            for name in (first, second)
        }
        common = seeds[first].index.intersection(seeds[second].index)
        if len(common):
            found[setting] = 100 * np.asarray(
                seeds[second][common] - seeds[first][common], "float64"
            )
    return found


def interval(values):
    """Returns the mean, the 95 % interval and the p-value of a paired t-test.

    The rules of the claims use it from two values on. Tables print it from
    three values on, see `spread`.

    Returns:
        A tuple of the mean, both ends of the interval, and the p-value. `None`
        for one value, and for equal values, which say nothing about the spread:
        two seeds that are tested on a few hundred images may agree by chance.
    """
    values = np.asarray(values, "float64")
    # Values are in points. Unequal ones differ by an image at least.
    if len(values) < 2 or np.ptp(values) < 1e-6:
        return None
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    return values.mean(), low, high, test.pvalue


def spread(values):
    """Returns how far values differ, as text.

    That is the 95 % interval of three values or more, and the values themselves
    if there are fewer.
    """
    if len(values) < MIN_VALUES:
        return ", ".join(f"{each:+.1f}" for each in values)
    outcome = interval(values)
    if outcome is None:
        return "all equal"
    return f"{outcome[1]:+.1f} to {outcome[2]:+.1f}"


def table(frame):
    """Returns paired tests of the schedule against the fixed epsilon.

    There is a test over the seeds of each cell and, as in the paper, one over
    the cells of each epsilon.
    """
    keys = varying(frame)
    rows = []
    for measure in MEASURES:
        name = HEADERS.get(measure, measure)
        found = differences(frame, "fixed", "scheduled", measure)
        means = {}
        for setting, values in found.items():
            row = frame[frame["setting"] == setting].iloc[0]
            texts = {key: name_of(row[key]) for key in keys}
            texts["epsilon"] = epsilon_text(row["epsilon"])
            means.setdefault(texts["epsilon"], []).append(values.mean())
            if len(values) > 1:
                cell = ", ".join(texts.values())
                rows.append(test_row(name, cell, values, "seeds"))
        for epsilon, values in means.items():
            if len(values) > 1:
                rows.append(
                    test_row(name, f"all at {epsilon}", values, "cells")
                )
    headers = ("measure", "cell", "over", "scheduled - fixed (points)")
    headers += TEST_HEADERS
    return markdown(rows, headers) if rows else ""


def test_row(measure: str, cell: str, values, unit: str) -> tuple:
    """Returns the row of a paired test.

    Args:
        measure: String. What was measured.
        cell: String. Where it was measured.
        values: Differences in percentage points.
        unit: String. What each value belongs to, such as `"seeds"`.

    Returns:
        A tuple of texts. Fewer than three values are not tested: the row shows
        the values, and that they decide nothing.
    """
    values = np.asarray(values)
    p_value = "not decided"
    if len(values) >= MIN_VALUES and (outcome := interval(values)):
        p_value = f"{outcome[3]:.2g}"
    return (
        measure,
        cell,
        f"{len(values)} {unit}",
        f"{values.mean():+.1f}",
        spread(values),
        f"{(values > 0).sum()} of {len(values)}",
        p_value,
    )
