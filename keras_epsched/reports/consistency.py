"""Checks that the values of a report fit together."""

import numpy as np

from keras_epsched.epsilons import check_epsilon
from keras_epsched.reports.density import density_weights
from keras_epsched.reports.wording import PROTOCOLS


def check_settings(report) -> None:
    """Checks the settings of a report.

    Args:
        report: A `Report`.

    Raises:
        ValueError: If the protocol, the grid or the titles are not valid.
    """
    if report.protocol not in PROTOCOLS:
        raise ValueError(
            f"`protocol` must be one of {tuple(PROTOCOLS)}. "
            f"Received: {report.protocol!r}"
        )
    density_weights(report.epsilons)  # Checks that the grid ascends from 0.
    check_epsilon(report.epsilons[-1], report.norm, "epsilons[-1]")
    if len(report.member_titles) != len(report.attack_members):
        raise ValueError(
            "`member_titles` must have one title for each of "
            f"`attack_members`. Received: {len(report.member_titles)} titles "
            f"for {len(report.attack_members)} attacks"
        )


def check_rows(report) -> None:
    """Checks the results of each image.

    Args:
        report: A `Report` whose settings have been checked.

    Raises:
        ValueError: If shapes or values do not fit together.
    """
    shape = (report.labels.size, report.epsilons.size)
    if not report.labels.size or report.correct.shape != shape:
        raise ValueError(
            "`correct` must have shape (num_images, num_epsilons) = "
            f"{shape} with at least one image. Received: shape "
            f"{report.correct.shape}"
        )
    if report.correct.dtype != bool:
        raise ValueError(
            f"`correct` must be boolean. Received: dtype {report.correct.dtype}"
        )
    for name in ("labels", "predictions", "image_ids"):
        if getattr(report, name).shape != shape[:1]:
            raise ValueError(
                f"`{name}` must have shape {shape[:1]}. Received: shape "
                f"{getattr(report, name).shape}"
            )
    if not np.array_equal(
        report.broken_by >= 0, report.correct[:, :1] & ~report.correct
    ) or report.broken_by.max() >= len(report.attack_members):
        raise ValueError(
            "`broken_by` must be the index of an attack in `attack_members` "
            "exactly where an image is correct without an attack and wrong "
            "under attack, and -1 elsewhere."
        )
    if np.unique(report.image_ids).size != report.num_images:
        raise ValueError("`image_ids` must all be different.")
    if (report.correct[:, 0] & (report.labels != report.predictions)).any():
        raise ValueError(
            "Column 0 of `correct` must hold the results without an attack, "
            "but for an image it says correct although the prediction differs "
            "from the label."
        )
    if report.protocol == "nested" and report.violations:
        raise ValueError(
            'With protocol="nested" an image that is wrong at one '
            "epsilon must be wrong at every larger epsilon. Received: "
            f"{report.violations} entries of `correct` that violate this. Use "
            '`protocol="independent"`, or mark these entries as wrong.'
        )
