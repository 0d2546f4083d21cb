"""A report as text: the table that `print(report)` shows."""

import numpy as np

from keras_epsched.epsilons import format_epsilon

# The protocols of an evaluation, in words.
PROTOCOLS = {
    "nested": "nested envelope: an image broken at a smaller epsilon counts "
    "as broken at every larger one",
    "independent": "independent sweep, each epsilon attacked afresh, as in "
    "the paper",
}


def table(report) -> str:
    """Returns the printable table of a `Report`.

    Args:
        report: A `Report`.

    Returns:
        A string of several lines: what was evaluated, accuracy at each
        epsilon with its 95 % Wilson interval, the summary and the cost.
    """
    from tabulate import tabulate

    rows = []
    for epsilon, accuracy in zip(report.epsilons, report.accuracy, strict=True):
        interval = report.accuracy_interval(epsilon)
        rows.append(
            (
                format_epsilon(epsilon, report.norm),
                f"{100 * accuracy:.2f}",
                _percent_interval(interval),
            )
        )
    curve = tabulate(
        rows,
        headers=("epsilon", "accuracy %", "95 % interval"),
        colalign=("right", "right", "right"),
        disable_numparse=True,
    )
    summary = {**_results(report), **_cost(report)}
    blocks = [_align(_subject(report)), [curve]]
    if len(report.attack_members) > 1:
        blocks.append([_breakers(report)])
    blocks.append(_align(summary))
    blocks.append(_checks(report) + _warnings(report))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _breakers(report) -> str:
    """How many images each attack of an ensemble was first to break."""
    from tabulate import tabulate

    header = [
        format_epsilon(epsilon, report.norm) for epsilon in report.epsilons[1:]
    ]
    rows = [
        (name, *counts[1:])
        for name, counts in zip(
            report.attack_members, report.broken_counts, strict=True
        )
    ]
    return tabulate(rows, headers=("images broken by", *header))


def _checks(report) -> list[str]:
    """Failed checks in words, and the others by name."""
    by_status = {"passed": [], "fired": [], "not run": []}
    for check in report.checks:
        by_status[check["status"]].append(check)
    lines = [
        f"WARNING: {check['name']}: {check['message']}"
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


def _percent_interval(interval: tuple[float, float]) -> str:
    return "{:.2f} to {:.2f}".format(*(100 * end for end in interval))


def _subject(report) -> dict:
    dataset, images = "unnamed", f"{report.num_images:,}"
    if report.dataset is not None:
        dataset = str(report.dataset.get("dataset", dataset))
        if report.dataset.get("split"):
            dataset += f", split {report.dataset['split']}"
        if report.dataset.get("num_examples"):
            images += f" of {report.dataset['num_examples']:,}"
    return {
        "model": report.model_name or "unnamed",
        "dataset": dataset,
        "images": images,
        "attack": report.attack_name,
        "norm": report.norm,
        "protocol": PROTOCOLS[report.protocol],
    }


def _results(report) -> dict:
    target = format_epsilon(report.epsilons[-1], report.norm)
    interval = _percent_interval(report.expected_robustness_interval())
    results = {
        "clean accuracy": f"{100 * report.clean_accuracy:.2f} %",
        f"accuracy at {target}": f"{100 * report.accuracy[-1]:.2f} %",
        "expected robustness": f"{100 * report.expected_robustness():.2f} % "
        f"(95 % interval {interval}), epsilon uniform on [0, {target}]",
    }
    if report.violations:
        results["not monotone"] = (
            f"{report.violations:,} times an image was correct although a "
            "smaller epsilon had broken it"
        )
    return results


def _cost(report) -> dict:
    cost = {
        "cost": f"{report.forward_passes:,} forward and "
        f"{report.backward_passes:,} backward passes of one image, "
        f"{report.seconds:.1f} s"
    }
    if np.isfinite(report.saving_factor):
        cost["naive cost"] = (
            f"{report.naive_forward_passes:,} forward and "
            f"{report.naive_backward_passes:,} backward passes: saved by a "
            f"factor of {report.saving_factor:.1f}"
        )
    if report.check_forward_passes:
        cost["self-checks"] = (
            f"{report.check_forward_passes:,} forward and "
            f"{report.check_backward_passes:,} backward passes more"
        )
    return cost


def _warnings(report) -> list[str]:
    return [f"NOTE: {note}" for note in report.notes]
