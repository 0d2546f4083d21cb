"""One report from the reports of several shards."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_epsched.reports.fields import FIRST, ROWS, SAME, SUM, names
from keras_epsched.reports.report import Report

_WORST_FIRST = ("fired", "passed", "not run")


def merge(reports: Sequence[Report]) -> Report:
    """Joins the reports of all shards of one evaluation.

    Use it after evaluating the shards on several machines. The result equals
    a single evaluation of all images, in the order of their ids. The
    self-checks are an exception: each shard has run its own, and a check that
    failed on one shard counts as failed.

    Args:
        reports: Reports of `evaluate(..., shard=(index, count))` for all
            values of `index`.

    Returns:
        A `Report`.

    Raises:
        ValueError: If the reports differ in their settings, share images, or
            if a shard is missing.

    Example:
    ```python
    shards = [
        keras_epsched.evaluate(model, data.test, grid, shard=(index, 4))
        for index in range(4)
    ]
    report = keras_epsched.evaluation.merge(shards)
    ```
    """
    reports = list(reports)
    if not reports:
        raise ValueError("`reports` must not be empty. Received: no report")
    first = reports[0]
    for other in reports[1:]:
        _check_alike(first, other)
    _check_shards([report.shard for report in reports])

    def values(name):
        return [getattr(report, name) for report in reports]

    ids = np.concatenate(values("image_ids"))
    if np.unique(ids).size != ids.size:
        raise ValueError(
            "The reports share images. Pass each shard once, from "
            "evaluations with different values of `shard=(index, count)`."
        )
    order = np.argsort(ids)
    kept = names(Report, merge=SAME) + names(Report, merge=FIRST)
    notes = dict.fromkeys(note for each in reports for note in each.notes)
    devices = sorted({report.device or "" for report in reports})
    arguments: dict[str, Any] = {
        **{name: getattr(first, name) for name in kept},
        **{name: sum(values(name)) for name in names(Report, merge=SUM)},
        **{
            name: np.concatenate(values(name))[order]
            for name in names(Report, merge=ROWS)
        },
        "checks": _merge_checks(reports),
        "notes": list(notes),
        "device": " and ".join(devices),
    }
    return Report(**arguments)


def _check_alike(first, other):
    differing = [
        f"{name}: {getattr(first, name)!r} and {getattr(other, name)!r}"
        for name in names(Report, merge=SAME)
        if not np.array_equal(getattr(first, name), getattr(other, name))
    ]
    if differing:
        raise ValueError(
            "All shards must be evaluated with the same settings. Received: "
            f"reports that differ in {'; '.join(differing)}"
        )


def _check_shards(shards):
    if not any(shards):
        return
    count = (shards[0] or [0, 1])[1]
    if sorted(map(str, shards)) != sorted(
        str([index, count]) for index in range(count)
    ):
        raise ValueError(
            f"Each of the {count} shards must be passed exactly once. "
            f"Received: the shards {shards}"
        )


def _merge_checks(reports):
    outcomes = {}
    for report in reports:
        for check in report.checks:
            outcomes.setdefault(check["name"], []).append(check)
    return [
        min(checks, key=lambda check: _WORST_FIRST.index(check["status"]))
        for checks in outcomes.values()
    ]
