"""One report from several, each of a part of the images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_epsched.reports.fields import FIRST, ROWS, SAME, SUM, names
from keras_epsched.reports.report import Report

_WORST_FIRST = ("fired", "passed", "not run")


def merge(reports: Sequence[Report]) -> Report:
    """Joins the reports of the shards of one evaluation.

    The result is that of a single evaluation of all images, in the order of
    their ids; only the self-checks are those of each shard, of which one that
    fired counts.

    Args:
        reports: Reports of `evaluate(..., shard=(index, count))` for all
            values of `index`.

    Returns:
        A `Report`.

    Raises:
        ValueError: If they were not evaluated alike, share images, or are not
            all the shards.

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
        raise ValueError("expected reports to merge. Received: none")
    first = reports[0]
    for other in reports[1:]:
        _check_alike(first, other)
    _check_shards([report.shard for report in reports])

    def values(name):
        return [getattr(report, name) for report in reports]

    ids = np.concatenate(values("image_ids"))
    if np.unique(ids).size != ids.size:
        raise ValueError(
            "the reports share images: merge each shard once, of evaluations "
            "with different `shard=(index, count)`"
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
            "shards must be evaluated alike. Received: reports that "
            f"differ in {'; '.join(differing)}"
        )


def _check_shards(shards):
    if not any(shards):
        return
    count = (shards[0] or [0, 1])[1]
    if sorted(map(str, shards)) != sorted(
        str([index, count]) for index in range(count)
    ):
        raise ValueError(
            f"expected all {count} shards, each once. Received: {shards}"
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
