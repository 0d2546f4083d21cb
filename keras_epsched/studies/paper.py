"""The numbers of the paper (arXiv 2509.23325) for each cell."""

import csv
import fractions
import functools
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from keras_epsched.studies.layout import MEASURES

_FILE = pathlib.Path(__file__).with_name("paper_results.csv")


def figures(row: Mapping, tables: Iterable[str]) -> dict[str, str]:
    """Returns the numbers of the paper for a cell, by measure.

    Args:
        row: Mapping with the values of a cell.
        tables: Names of the paper's tables. The first one that has the cell
            counts.

    Returns:
        A dict from measures to texts, empty if the paper lacks the cell.
    """
    own = {"norm": "linf", "objective": "adversarial", "adaptation": "full"}
    if any(row.get(name, value) != value for name, value in own.items()):
        return {}
    for table in tables:
        for each in _paper_results():
            if (
                each["table"] == table
                and each["backbone"] == row["backbone"]
                and each["dataset"] == row["dataset"]
                and each["schedule"] == row["schedule"]
                and np.isclose(
                    float(fractions.Fraction(each["epsilon"])), row["epsilon"]
                )
            ):
                return {name: each[name] for name in MEASURES}
    return {}


@functools.cache
def _paper_results():
    with open(_FILE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
