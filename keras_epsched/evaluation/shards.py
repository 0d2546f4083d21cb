"""One report from several, each of a part of the images."""

from collections.abc import Sequence

import numpy as np

from keras_epsched.evaluation.report import Report

# What must be the same in all of them.
_SETTINGS = (
    "norm",
    "protocol",
    "bisect",
    "attack",
    "dataset",
    "value_range",
    "precision",
    "target_epsilon",
    "seed",
    "model_name",
    "model_fingerprint",
    "versions",
)
_SUMS = (
    "forward_passes",
    "backward_passes",
    "naive_forward_passes",
    "naive_backward_passes",
    "check_forward_passes",
    "check_backward_passes",
    "seconds",
    "zero_gradient_images",
)
_ORDER = ("fired", "passed", "not run")


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
        differing = [
            f"{name}: {getattr(first, name)!r} and {getattr(other, name)!r}"
            for name in _SETTINGS
            if getattr(first, name) != getattr(other, name)
        ]
        if not np.array_equal(first.epsilons, other.epsilons):
            differing.append(f"epsilons: {first.epsilons} and {other.epsilons}")
        if differing:
            raise ValueError(
                "shards must be evaluated alike. Received: reports that "
                f"differ in {'; '.join(differing)}"
            )
    shards = [report.shard for report in reports]
    if any(shards):
        count = (shards[0] or [0, 1])[1]
        if sorted(map(str, shards)) != sorted(
            str([index, count]) for index in range(count)
        ):
            raise ValueError(
                f"expected all {count} shards, each once. Received: {shards}"
            )
    ids = np.concatenate([report.image_ids for report in reports])
    if np.unique(ids).size != ids.size:
        raise ValueError(
            "the reports share images: merge each shard once, of evaluations "
            "with different `shard=(index, count)`"
        )
    order = np.argsort(ids)

    def joined(name):
        values = [getattr(report, name) for report in reports]
        return np.concatenate(values)[order]

    notes = dict.fromkeys(note for each in reports for note in each.notes)
    return Report(
        epsilons=first.epsilons.tolist(),
        correct=joined("correct"),
        labels=joined("labels"),
        predictions=joined("predictions"),
        image_ids=ids[order],
        broken_by=joined("broken_by"),
        attack_name=first.attack_name,
        attack_members=first.attack_members,
        attack_title=first.attack_title,
        member_titles=first.member_titles,
        checks=_merge_checks(reports),
        examples=first.examples,
        notes=list(notes),
        device=" and ".join(sorted({each.device or "" for each in reports})),
        **{name: getattr(first, name) for name in _SETTINGS},
        **{
            name: sum(getattr(report, name) for report in reports)
            for name in _SUMS
        },
    )


def _merge_checks(reports):
    outcomes = {}
    for report in reports:
        for check in report.checks:
            outcomes.setdefault(check["name"], []).append(check)
    return [
        min(checks, key=lambda check: _ORDER.index(check["status"]))
        for checks in outcomes.values()
    ]
