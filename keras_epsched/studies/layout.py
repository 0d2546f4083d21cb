"""How tables of results are laid out: texts, order, columns."""

import numpy as np
from scipy import stats

from keras_epsched.configs.values import as_text
from keras_epsched.epsilons import format_epsilon
from keras_epsched.schedules import parse_hinges
from keras_epsched.studies import grid, results

MEASURES = ("clean", "at_target", "expected_robustness")


ARMS = ("standard", "fixed", "scheduled")

HEADERS = {
    "at_target": "at target",
    "expected_robustness": "expected",
    "batchnorm_momentum": "momentum",
    "reestimate_batchnorm": "re-estimated",
    "at_target_paper": "at target, paper's protocol",
    "expected_robustness_paper": "expected, paper's protocol",
}


def markdown(rows, headers):
    """A table in Markdown."""
    from tabulate import tabulate

    return tabulate(
        rows, headers=headers, tablefmt="pipe", disable_numparse=True
    )


def epsilon_text(epsilon):
    """An epsilon as the field writes it."""
    return format_epsilon(epsilon)


def percent(values, digits=1):
    """Mean and standard error in per cent."""
    values = 100 * np.asarray(values, "float64")
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {stats.sem(values):.{digits}f}"


def schedule_order(name):
    """Arms first, then hinges in order."""
    if name in ARMS:
        return (0, ARMS.index(name), 0.0)
    if ":" in name and ";" not in name:
        return (1, *parse_hinges(name))
    return (2, 0, 0.0, name)


def name_of(value):
    """A value of a flag as tables show it."""
    return grid.short(as_text(value))


def varying(frame):
    """Columns of a table: the flags that tell its rows apart.

    Not those that go with the backbone or the dataset, as its weights.
    """
    always = ["dataset", "backbone", "epsilon"]
    alike = frame.groupby(["dataset", "backbone"])
    more = [
        name
        for name in results.settings(frame)
        if name not in always and alike[name].nunique(dropna=False).max() > 1
    ]
    return [*always, *more]
