"""Whether the values of a report fit together."""

import numpy as np

from keras_epsched.epsilons import check_epsilon
from keras_epsched.reports.density import density_weights
from keras_epsched.reports.wording import PROTOCOLS


def check_settings(report) -> None:
    """Checks how the images were attacked.

    Args:
        report: A `Report`.

    Raises:
        ValueError: If protocol, grid or titles are not as they must be.
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
            "`member_titles` must name each of `attack_members`. Received: "
            f"{len(report.member_titles)} titles of "
            f"{len(report.attack_members)} attacks"
        )


def check_rows(report) -> None:
    """Checks what was found for each image.

    Args:
        report: A `Report` whose settings were checked.

    Raises:
        ValueError: If shapes or values do not fit together.
    """
    shape = (report.labels.size, report.epsilons.size)
    if not report.labels.size or report.correct.shape != shape:
        raise ValueError(
            "`correct` must have shape (num_images, num_epsilons) = "
            f"{shape} with at least one image. Received shape "
            f"{report.correct.shape}."
        )
    if report.correct.dtype != bool:
        raise ValueError(
            f"`correct` must be boolean. Received dtype {report.correct.dtype}."
        )
    for name in ("labels", "predictions", "image_ids"):
        if getattr(report, name).shape != shape[:1]:
            raise ValueError(
                f"`{name}` must have shape {shape[:1]}. Received shape "
                f"{getattr(report, name).shape}."
            )
    if not np.array_equal(
        report.broken_by >= 0, report.correct[:, :1] & ~report.correct
    ) or report.broken_by.max() >= len(report.attack_members):
        raise ValueError(
            "`broken_by` must name an attack of `attack_members` exactly "
            "where an image that is correct without attack is not any more"
        )
    if np.unique(report.image_ids).size != report.num_images:
        raise ValueError("`image_ids` must all be different.")
    if (report.correct[:, 0] & (report.labels != report.predictions)).any():
        raise ValueError(
            "Column 0 of `correct` must be clean: an image counts as "
            "correct there although its prediction is not its label."
        )
    if report.protocol == "nested" and report.violations:
        raise ValueError(
            'With protocol="nested" an image that is wrong at one '
            "epsilon must be wrong at every larger one, but "
            f"{report.violations} entries of `correct` are not. Use "
            '`protocol="independent"`, or accumulate the failures.'
        )
