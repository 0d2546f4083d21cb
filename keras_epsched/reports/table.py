"""The text that `print` shows for reports, comparisons and pools."""

from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports import wording


def report_table(report) -> str:
    """Returns the printable table of a `Report`.

    Args:
        report: A `Report`.

    Returns:
        A string of several lines: what was evaluated, the accuracy at each
        epsilon with its 95 % Wilson interval, the summary, the cost, the
        self-checks and the notes.
    """
    from tabulate import tabulate

    rows = []
    for epsilon, accuracy in zip(report.epsilons, report.accuracy, strict=True):
        interval = report.accuracy_interval(epsilon)
        rows.append(
            (
                format_epsilon(epsilon, report.norm),
                f"{100 * accuracy:.2f}",
                wording.percent_interval(interval),
            )
        )
    curve = tabulate(
        rows,
        headers=("epsilon", "accuracy %", "95 % interval"),
        colalign=("right", "right", "right"),
        disable_numparse=True,
    )
    summary = {**_results(report), **wording.cost(report)}
    blocks = [_align(wording.subject(report)), [curve]]
    if len(report.attack_members) > 1:
        header, counts = wording.breakers(report)
        blocks.append([tabulate(counts, header)])
    blocks.append(_align(summary))
    blocks.append(_checks(report) + _warnings(report))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _checks(report) -> list[str]:
    """The messages of failed self-checks, and the names of the others."""
    by_status = {"passed": [], "fired": [], "not run": []}
    for check in report.checks:
        by_status[check["status"]].append(check)
    lines = [
        f"WARNING: self-check '{check['name']}' failed: {check['message']}"
        for check in by_status["fired"]
    ]
    if by_status["passed"]:
        names = ", ".join(check["name"] for check in by_status["passed"])
        lines.append(f"self-checks passed: {names}")
    lines += [
        f"self-check not run: {check['name']} ({check['message']})"
        for check in by_status["not run"]
    ]
    return lines


def _align(lines: dict) -> list[str]:
    width = max(len(name) for name in lines)
    return [f"{name:<{width}}  {text}" for name, text in lines.items()]


def _results(report) -> dict:
    target = format_epsilon(report.target_epsilon, report.norm)
    at_target = report.accuracy_at(report.target_epsilon)
    interval = wording.percent_interval(report.expected_robustness_interval())
    return {
        "clean accuracy": f"{100 * report.clean_accuracy:.2f} %",
        f"accuracy at {target}": f"{100 * at_target:.2f} %",
        "expected robustness": f"{100 * report.expected_robustness():.2f} % "
        f"(95 % interval {interval}), the mean accuracy for epsilon uniform "
        f"on [0, {target}]",
        **wording.monotony(report),
    }


def _warnings(report) -> list[str]:
    notes = (wording.bound(report), wording.transfer(report), *report.notes)
    return [f"NOTE: {note}" for note in notes if note]


def result_table(
    result, summary: dict[str, str], columns: dict, *footnotes: str
) -> str:
    """Returns the printable table of a `Comparison` or a `Pooled`.

    Args:
        result: `Comparison` or `Pooled`: its norm, epsilons and notes are
            read.
        summary: Dict from the names of lines to their texts.
        columns: Dict from column headings to one text per epsilon.
        *footnotes: Strings, notes on the columns.

    Returns:
        A string of several lines.
    """
    from tabulate import tabulate

    epsilons = [format_epsilon(e, result.norm) for e in result.epsilons]
    blocks = [
        tabulate(summary.items(), tablefmt="plain", disable_numparse=True),
        tabulate(
            {"epsilon": epsilons, **columns},
            headers="keys",
            stralign="right",
            disable_numparse=True,
        ),
        "\n".join(f"NOTE: {note}" for note in (*footnotes, *result.notes)),
    ]
    return "\n\n".join(block for block in blocks if block)


def percents(values, sign: str = "") -> list[str]:
    """Returns fractions as texts in percent, without the percent sign.

    Args:
        values: Floats.
        sign: String. `"+"` writes a plus sign before positive values.
    """
    return [f"{100 * value:{sign}.2f}" for value in values]
