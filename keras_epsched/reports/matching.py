"""Matches reports of the same images, and lists their differences."""

import numbers
from collections.abc import Iterable

import numpy as np

from keras_epsched.epsilons import SAME_EPSILON, format_epsilon
from keras_epsched.reports.report import Report


def match(
    reports: Iterable[Report], density, target_epsilon: float | None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Aligns reports of the same images.

    Args:
        reports: `Report`s.
        density: As in `Report.expected_robustness`.
        target_epsilon: As in `Report.expected_robustness`.

    Returns:
        Three values: booleans of shape `(num_reports, num_images,
        num_epsilons)`, true where an image is correct; the weights of the
        epsilons; and a dict of the fields that `Comparison` and `Pooled`
        share.

    Raises:
        ValueError: If there are no reports, or if they differ in images,
            norm, grid or protocol.
    """
    reports = list(reports)
    if not reports or not all(isinstance(each, Report) for each in reports):
        received = ", ".join(type(each).__name__ for each in reports)
        raise ValueError(
            "Expected at least one `Report`. `evaluate` returns one, and "
            "`Report.load(folder)` reads one from a folder. Received: "
            f"{received or 'none'}"
        )
    first = reports[0]
    names = tuple(report.model_name or "unnamed" for report in reports)
    correct, notes = [], {}
    for other, name in zip(reports, names, strict=True):
        correct.append(other.correct[np.argsort(other.image_ids)])
        if found := differences(first, other):
            raise ValueError(
                "Expected reports of the same images with the same settings. "
                f"Received: {names[0]!r} and {name!r}, which differ in "
                f"{'; '.join(found)}. Evaluate both on the same dataset "
                "with the same `epsilons`, norm and `protocol`."
            )
        if first.attack != other.attack:
            attacks = f"{first.attack_title} and {other.attack_title}"
            notes[f"the attacks differ: {attacks}"] = True
        if first.bisect != other.bisect:
            notes["one evaluation used bisection, the other did not"] = True
        if first.seed != other.seed:
            seeds = f"{first.seed} and {other.seed}"
            notes[f"the seeds of the attacks differ: {seeds}"] = True
    weights = first.weights(density, target_epsilon)
    end = first.target_epsilon if target_epsilon is None else target_epsilon
    law = "uniform" if density is None else "by the given density"
    distribution = f"epsilon {law} on [0, {format_epsilon(end, first.norm)}]"
    if isinstance(density, numbers.Real):
        distribution = f"epsilon = {format_epsilon(float(density), first.norm)}"
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
    """Returns the differences that make a comparison impossible, in words.

    Args:
        first: A `Report`.
        other: Another `Report`.

    Returns:
        A list of strings. It is empty if the two can be compared.
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
            f"image_ids: {ids[0].size} and {ids[1].size} images, with "
            f"{np.intersect1d(*ids).size} in common"
        )
    elif changed := (first.labels[order] != other.labels[other_order]).sum():
        differing.append(f"labels: {changed} images have other labels")
    return differing
