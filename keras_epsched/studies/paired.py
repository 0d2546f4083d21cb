"""Paired differences between schedules, with their tests."""

import numpy as np
from scipy import stats

from keras_epsched.studies.layout import (
    HEADERS,
    MEASURES,
    epsilon_text,
    markdown,
    name_of,
    varying,
)


def differences(frame, first, second, measure):
    """Second schedule minus the first, in each setting, in points.

    Returns:
        A dict from settings to differences, a seed each.
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
    """Mean, 95 % interval and p-value of a paired t-test.

    `None` where the spread cannot be told: of one value, or of equal ones, as
    two seeds on a few hundred images may give by chance.
    """
    values = np.asarray(values, "float64")
    # In points; accuracies differ by an image or not at all.
    if len(values) < 2 or np.ptp(values) < 1e-6:
        return None
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    return values.mean(), low, high, test.pvalue


def bounds(outcome):
    """An interval as text."""
    if outcome is None:
        return ""
    return f"{outcome[1]:+.1f} to {outcome[2]:+.1f}"


def table(frame):
    """Paired tests of the schedule against the fixed epsilon.

    Over the seeds of each cell; and, as in the paper, over the cells of each
    epsilon.
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
    headers = (
        *("measure", "cell", "over", "scheduled - fixed (points)"),
        *("95 % interval", "gains", "p (paired t)"),
    )
    return markdown(rows, headers) if rows else ""


def test_row(measure: str, cell: str, values, unit: str) -> tuple:
    """Returns the row of a paired test over values, `unit` names them."""
    values = np.asarray(values)
    outcome = interval(values)
    return (
        measure,
        cell,
        f"{len(values)} {unit}",
        f"{values.mean():+.1f}",
        bounds(outcome),
        f"{(values > 0).sum()} of {len(values)}",
        "" if outcome is None else f"{outcome[3]:.2g}",
    )
