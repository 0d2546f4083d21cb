"""The headline of a web page of reports, and its paired comparisons."""

from collections.abc import Mapping

from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports import wording
from keras_epsched.reports.comparison import Comparison, compare
from keras_epsched.reports.density import grid_place
from keras_epsched.reports.matching import differences
from keras_epsched.reports.report import Report

# The p-value below which the headline calls a difference confirmed.
_LEVEL = 0.05
# A smaller lead is not visible in percent with one decimal.
_NO_LEAD = 0.0005


def headline(reports: Mapping[str, Report], target_epsilon: float) -> str:
    """Returns the result of an evaluation in a few sentences.

    For one model, the text gives its accuracies. For several models, it says
    which has the highest expected robustness, by how much, and whether the
    paired test confirms the difference.

    Args:
        reports: Dict from the name of a model to its `Report`.
        target_epsilon: Float, on the [0, 1] scale: the upper end of expected
            robustness.

    Returns:
        A string.
    """
    if len(reports) == 1:
        ((name, report),) = reports.items()
        text = _of_one(name, report, target_epsilon)
    else:
        text = _of_several(reports, target_epsilon)
    if any(
        check["status"] == "fired"
        for report in reports.values()
        for check in report.checks
    ):
        text += " A self-check failed: these numbers may be wrong."
    return text


def comparisons(
    reports: Mapping[str, Report], target_epsilon: float
) -> list[tuple[str, str, Comparison | str]]:
    """Returns paired comparisons of the first model with each other model.

    Args:
        reports: Dict from the name of a model to its `Report`.
        target_epsilon: Float, on the [0, 1] scale: the upper end of expected
            robustness.

    Returns:
        A list with one tuple for each model but the first: its name, the name
        of the first model, and the `Comparison` of the two. If the two cannot
        be compared, the last item is a string with the reason.
    """
    (first_name, first), *others = reports.items()
    return [
        (name, first_name, _compared(first, report, target_epsilon))
        for name, report in others
    ]


def _compared(first, second, target_epsilon):
    found = differences(first, second)
    if found:
        return (
            "A paired comparison is not possible, because the reports differ "
            f"in {'; '.join(found)}."
        )
    return compare(first, second, target_epsilon=target_epsilon)


def _expected(report, target_epsilon):
    """Expected robustness in percent, with its interval."""
    value = report.expected_robustness(target_epsilon=target_epsilon)
    low, high = report.expected_robustness_interval(
        target_epsilon=target_epsilon
    )
    return (
        f"{100 * value:.1f} % (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f})"
    )


def _up_to(report, target_epsilon):
    """The range of epsilon, and the dataset if its name is known."""
    target = format_epsilon(target_epsilon, report.norm)
    norm = "" if report.norm == "linf" else f" ({report.norm})"
    where = ""
    if report.dataset is not None:
        # The table below has the version and the origin.
        kind, _, rest = wording.dataset_name(report).partition(":")
        where = f" on {rest if kind == 'image_folder' else kind}"
    return f"for epsilon up to {target}{norm}{where}"


def _of_one(name, report, target_epsilon):
    accuracies = f"clean accuracy is {100 * report.clean_accuracy:.0f} %"
    if grid_place(report.epsilons, target_epsilon) is not None:
        at_target = report.accuracy_at(target_epsilon)
        target = format_epsilon(target_epsilon, report.norm)
        accuracies += (
            f" and its accuracy at epsilon {target} is {100 * at_target:.0f} %"
        )
    return (
        f"The expected robustness of {name} is "
        f"{_expected(report, target_epsilon)} "
        f"{_up_to(report, target_epsilon)}. Its {accuracies}. Measured on "
        f"{report.num_images:,} images with {report.attack_title}."
    )


def _of_several(reports, target_epsilon):
    def robustness(name):
        return reports[name].expected_robustness(target_epsilon=target_epsilon)

    best, second, *_ = sorted(reports, key=robustness, reverse=True)
    report, lead = reports[best], robustness(best) - robustness(second)
    end = _up_to(report, target_epsilon)
    expected = _expected(report, target_epsilon)
    if lead < _NO_LEAD:
        text = (
            f"{best} and {second} have the same expected robustness {end}: "
            f"{expected}."
        )
    else:
        text = (
            f"{best} has the highest expected robustness {end}: {expected}, "
            f"{100 * lead:.1f} points more than {second}. "
            + _verdict(_compared(reports[second], report, target_epsilon))
        )
    if len({each.attack_title for each in reports.values()}) > 1:
        return (
            f"{text} The models were attacked differently: a weaker attack "
            "makes a model look more robust."
        )
    if len({each.num_images for each in reports.values()}) > 1:
        return f"{text} Measured with {report.attack_title}."
    return (
        f"{text} Measured on {report.num_images:,} images with "
        f"{report.attack_title}."
    )


def _verdict(compared):
    """A sentence on whether the paired test confirms a lead."""
    if isinstance(compared, str):
        return compared
    low, high = (f"{100 * end:+.1f}" for end in compared.interval)
    found = f"p = {compared.p_value:.2g}, 95 % interval {low} to {high} points"
    if compared.p_value < _LEVEL:
        return f"A paired test confirms the difference ({found})."
    return (
        f"A paired test does not confirm the difference ({found}). It may be "
        "due to chance."
    )
