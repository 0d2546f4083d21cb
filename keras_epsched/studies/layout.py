"""The layout of tables of results: texts, order of rows, columns."""

import numpy as np
from scipy import stats

from keras_epsched.configs.values import as_text
from keras_epsched.epsilons import format_epsilon
from keras_epsched.schedules import parse_hinges
from keras_epsched.studies import grid, results

MEASURES = ("clean", "at_target", "expected_robustness")

# The arms of the paper; pictures show two other schedules as well.
ARMS = ("standard", "fixed", "scheduled")
DRAWN = (*ARMS, "peak", "random")

HEADERS = {
    "at_target": "at target",
    "expected_robustness": "expected",
    "batchnorm_momentum": "momentum",
    "reestimate_batchnorm": "re-estimated",
    "at_target_paper": "at target, paper's protocol",
    "expected_robustness_paper": "expected, paper's protocol",
}

# A standard error, an interval or a test needs at least this many values. From
# two values, a 95 % interval is 12.7 standard errors wide on each side.
MIN_VALUES = 3


def markdown(rows, headers):
    """Returns a table in Markdown."""
    from tabulate import tabulate

    return tabulate(
        rows, headers=headers, tablefmt="pipe", disable_numparse=True
    )


def epsilon_text(epsilon):
    """Returns an epsilon as the field writes it, such as 4/255."""
    return format_epsilon(epsilon)


def percent(values, digits=1):
    """Returns the mean in per cent, and how far the values differ.

    That is the standard error of three values or more, and both values in
    brackets if there are two.
    """
    text = mean_and_error(values, digits)
    if len(values) == 2:
        both = ", ".join(f"{100 * each:.{digits}f}" for each in values)
        text += f" ({both})"
    return text


def mean_and_error(values, digits=1):
    """Returns the mean in per cent, with the standard error if there is one."""
    values = 100 * np.asarray(values, "float64")
    text = f"{values.mean():.{digits}f}"
    if len(values) < MIN_VALUES:
        return text
    return f"{text} ± {stats.sem(values):.{digits}f}"


def schedule_order(name):
    """Returns a key that sorts the arms first, then hinges by their values."""
    if name in ARMS:
        return (0, ARMS.index(name), 0.0)
    if ":" in name and ";" not in name:
        return (1, *parse_hinges(name))
    return (2, 0, 0.0, name)


def name_of(value):
    """Returns the value of a flag as tables show it."""
    return grid.short(as_text(value))


def varying(frame):
    """Returns the columns that a table needs to tell its rows apart.

    A flag whose value follows from the backbone and the dataset, such as the
    weights, or from the objective, such as its own weight, needs no column.
    """
    always = ["dataset", "backbone", "epsilon"]
    more = []
    for name in results.settings(frame):
        owners = ["dataset", "backbone"]
        if name != "objective":
            owners.append("objective")
        alike = frame.groupby(owners)
        if name not in always and alike[name].nunique(dropna=False).max() > 1:
            more.append(name)
    return [*always, *more]
