"""What a run prints at its end: one table, what it means, where files are."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from keras_epsched import reports
from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports import wording
from keras_epsched.reports.statistics import standard_error

WIDTH = 100
_PICTURES = ("report.html", "curve.png", "story.png")
_SWEEPS = {
    "nested": "looks for the smallest epsilon that breaks each image",
    "independent": "attacks afresh at each epsilon",
}


def wrapped(text: str, indent: str = "  ") -> str:
    """Returns a paragraph in lines of at most 100 columns."""
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def heading(found: Sequence[reports.Report], seeds: int = 1) -> str:
    """Returns what was measured on which images.

    Args:
        found: Sequence of `Report`s of the same images and target.
        seeds: Int. Number of seeds that the numbers are means of.
    """
    report = found[0]
    target = format_epsilon(report.target_epsilon, report.norm)
    text = (
        f"Results on {wording.dataset_name(report)}: {report.num_images:,} "
        f"images, target epsilon {target} ({report.norm}); accuracy and "
        "expected robustness in percent"
    )
    if seeds > 1:
        text += f", mean and standard error of {seeds} seeds"
    return text


def in_short(found: Mapping[str, reports.Report]) -> str:
    """Returns the results of one model in one line.

    Args:
        found: Mapping from protocols to a `Report` of each.
    """
    first = next(iter(found.values()))
    robust = ", ".join(
        f"{100 * report.expected_robustness():.1f} % ({protocol})"
        for protocol, report in found.items()
    )
    return (
        f"clean accuracy {100 * first.clean_accuracy:.1f} %, expected "
        f"robustness {robust}"
    )


def table(
    label: str,
    rows: Sequence[tuple],
    more: Sequence[str] = (),
) -> str:
    """Returns accuracies and expected robustness, in percent.

    Args:
        label: Head of the first column.
        rows: Sequence of tuples: name of the model, dict from protocols to
            `Report`s (one a seed), and cells of the last columns.
        more: Heads of the last columns.
    """
    from tabulate import tabulate

    protocols = list(rows[0][1])
    cells = []
    for name, found, *others in rows:
        row = [name, _percent([r.clean_accuracy for r in found[protocols[0]]])]
        for number, protocol in enumerate(protocols):
            reports = found[protocol]
            row.append(_percent([r.accuracy[_at(r)] for r in reports]))
            row.append(_percent([r.expected_robustness() for r in reports]))
            if not number:
                low, high = reports[0].expected_robustness_interval()
                row.append(f"{100 * low:.1f} to {100 * high:.1f}")
        cells.append([*row, *others])
    heads = [label, "clean"]
    for number, protocol in enumerate(protocols):
        heads += [f"{protocol}:\nat target", "expected\nrobustness"]
        if not number:
            heads.append("its 95 %\ninterval")
    return tabulate(cells, headers=[*heads, *more], disable_numparse=True)


def _at(report):
    """The place of the target on the grid of a report."""
    return int(np.argmin(np.abs(report.epsilons - report.target_epsilon)))


def _percent(values):
    text = f"{100 * np.mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {100 * standard_error(values):.1f}"
    return text


def explained(found: Mapping[str, reports.Report]) -> str:
    """Returns how each protocol attacked.

    Args:
        found: Mapping from protocols to a `Report` of each.
    """
    lines = []
    for name, report in found.items():
        text = f"{name}: {report.attack_title} {_SWEEPS[report.protocol]}"
        if wording.is_paper_protocol(report):
            text += " (arXiv 2509.23325); loose upper bound"
        lines.append(wrapped(text))
    return "\n".join(lines)


def pictures(folder: pathlib.Path) -> str:
    """Returns the paths of what can be looked at."""
    found = [folder / name for name in _PICTURES if (folder / name).exists()]
    return "\n".join(f"Look at {path}" for path in found)
