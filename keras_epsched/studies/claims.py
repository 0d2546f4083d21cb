"""The paper's claims, judged on results by fixed rules.

The rules judge a cell by the 95 % interval over its seeds, from two seeds on.
An interval from two seeds is too wide to be of use, so the table does not print
it. Beside the verdict of the rule, the table then says that the seeds do not
decide the claim.
"""

import numpy as np
from scipy import stats

from keras_epsched.onset import onset_threshold
from keras_epsched.schedules import parse_hinges
from keras_epsched.studies import results
from keras_epsched.studies.layout import (
    HEADERS,
    MEASURES,
    MIN_VALUES,
    markdown,
    schedule_order,
)
from keras_epsched.studies.paired import differences, interval, spread


def of_tasks(frame):
    """Averages the fixed arm of each task over seeds, for each epsilon.

    Standard fine-tuning counts as epsilon 0.

    Yields:
        The first row of the task, and the means by epsilon.
    """
    standard = frame["schedule"] == "standard"
    chosen = frame[standard | (frame["schedule"] == "fixed")]
    chosen = chosen.assign(epsilon=chosen["epsilon"].where(~standard, 0.0))
    for _, group in chosen.groupby("task", sort=False):
        if (group["schedule"] == "fixed").any():
            means = group.groupby("epsilon")[["delay", "half", "clean"]]
            yield group.iloc[0], means.mean()


def correlations(frame):
    """Returns Pearson correlations of delay and clean accuracy over epsilons.

    The delay is the first epoch with half of the accuracy that standard
    fine-tuning reaches. The accuracy is measured on the test images. (The paper
    uses the onset and the validation accuracy.) Tasks with equal delays at all
    epsilons are left out.

    Returns:
        A list with a tuple for each task: correlation, p-value, number of
        epsilons.
    """
    found = []
    for _, means in of_tasks(frame):
        if len(means) >= 3 and means["half"].nunique() > 1:
            result = stats.pearsonr(means["half"], means["clean"])
            found.append((result.statistic, result.pvalue, len(means)))
    return found


def table(frame):
    """Returns a verdict on each of the paper's claims, by fixed rules.

    A task is a backbone on a dataset. From six tasks on, the 95 % interval over
    the tasks decides a comparison, with the mean over epsilons of each task.
    With fewer tasks, the 95 % interval over the seeds decides each cell.
    """
    compared, rescued = ("standard", "fixed"), ("fixed", "scheduled")
    return _claims(
        _claim(frame, "a fixed epsilon transfers worse", *compared, "clean", -1)
        + _claim_delay(frame)
        + _claim(
            frame, "the schedule recovers clean accuracy", *rescued, "clean"
        )
        + _gains(frame)
    )


def by_both_protocols(frame):
    """Returns the claims on gains of robustness, judged by two protocols.

    The networks are the same. The paper's protocol measures with a weaker
    attack, so a verdict may change.
    """
    names = results.PAPER_MEASURES
    if not set(names) <= set(frame):
        return ""
    # Cells that one protocol alone has judged are left out.
    frame = frame.dropna(subset=list(names))
    paper = frame.assign(
        **{
            measure: frame[name]
            for measure, name in zip(MEASURES[1:], names, strict=True)
        }
    )
    attacks = ", ".join(frame["eval_attack"].unique())
    rows = []
    for nested, weaker in zip(_gains(frame), _gains(paper), strict=True):
        rows += [
            (nested[0], f"nested, {attacks}", *nested[1:]),
            ("", "paper", *weaker[1:]),
        ]
    headers = ("claim", "protocol", "measured", "verdict")
    return markdown(rows, headers) if rows else ""


def _gains(frame):
    """Returns the rows of the claims on robustness."""
    rescued = ("fixed", "scheduled")
    return _claim(
        frame,
        "the schedule gains expected robustness",
        *(*rescued, "expected_robustness"),
    ) + _claim(
        frame,
        "the schedule gains accuracy at the target epsilon",
        *(*rescued, "at_target"),
    )


def ablations(frame):
    """Returns a verdict on each of the paper's claims on other schedules.

    A jump has collapsed if the final clean accuracy is below the accuracy that
    counts as onset, see `keras_epsched.onset`.
    """
    return _claims(
        _claim_jump(frame)
        + _claim(
            frame,
            "a random epsilon gains less than the schedule",
            *("random", "scheduled", "expected_robustness"),
        )
    )


def _with_caution(verdict, fewest):
    """Returns a verdict as it is printed: too few seeds decide nothing."""
    if fewest >= MIN_VALUES or verdict == "undecided":
        return verdict
    unit = "seed" if fewest == 1 else "seeds"
    return f"not decided: {fewest} {unit} (rule: {verdict})"


def _claims(rows):
    return markdown(rows, ("claim", "measured", "verdict")) if rows else ""


def _claim(frame, claim, first, second, measure, sign=1):
    """Returns a list with one row, empty if there is nothing to compare."""
    found = differences(frame, first, second, measure)
    if not found:
        return []
    measured, verdict, fewest = _outcome(frame, found, sign)
    name = HEADERS.get(measure, measure)
    measured = f"{name}, {second} - {first}: {measured}"
    return [(claim, measured, _with_caution(verdict, fewest))]


def _outcome(frame, found, sign):
    """Judges differences by the rule.

    Returns:
        The differences in words, the verdict, and the smallest number of values
        that an interval was made of.
    """
    tasks = frame.drop_duplicates("setting").set_index("setting")["task"]
    means, of_tasks = [], {}
    for setting, values in found.items():
        means.append(values.mean())
        of_tasks.setdefault(tasks[setting], []).append(values.mean())
    means = np.array(means)
    judged = list(found.values())
    text = f"{means.mean():+.1f} points"
    if len(of_tasks) >= 6:
        judged = [[np.mean(each) for each in of_tasks.values()]]
        text += f" ({spread(judged[0])} over {len(of_tasks)} tasks)"
    elif len(means) > 1:
        text += f" (cells: {', '.join(f'{each:+.1f}' for each in means)})"
    elif len(judged[0]) > 1:
        text += f" ({spread(judged[0])} over the seeds)"
    agree = (sign * means > 0).sum()
    text += f"; as claimed in {agree} of {len(means)} cells"
    verdict = _verdict([sign * _side(interval(values)) for values in judged])
    return text, verdict, min(map(len, judged))


def _side(outcome):
    """Returns the sign of an interval, and 0 if it includes 0."""
    if outcome is None or outcome[1] <= 0 <= outcome[2]:
        return 0
    return int(np.sign(outcome[0]))


def _verdict(sides):
    """Returns the verdict in words.

    Args:
        sides: List of ints, one for each comparison: 1 for the claim, -1
            against it, 0 undecided.
    """
    count = len(sides)
    if sides == [1] * count:
        return "holds"
    if sides == [-1] * count:
        return "the opposite holds"
    if not any(sides):
        return "undecided"
    words = [
        f"{text} in {sides.count(side)}"
        for side, text in (
            (1, "holds"),
            (-1, "opposite"),
            (0, "undecided"),
        )
        if side in sides
    ]
    return f"{', '.join(words)} of {count}"


def _claim_delay(frame):
    rows, grown = [], []
    for _, means in of_tasks(frame):
        delays = means["half"][means.index > 0].dropna()
        if len(delays) >= 2:
            grown.append(delays.iloc[-1] - delays.iloc[0])
    if grown:
        text = ", ".join(f"{each:+.1f}" for each in grown)
        verdict = _verdict([int(np.sign(each)) for each in grown])
        fixed = frame[frame["schedule"] == "fixed"]
        fewest = fixed.groupby("setting")["seed"].count().min()
        rows.append(
            (
                "the delay grows with epsilon",
                "epochs to half of the standard accuracy, largest minus "
                f"smallest epsilon: {text}",
                _with_caution(verdict, fewest),
            )
        )
    found = correlations(frame)
    if found:
        text = ", ".join(
            f"{value:.2f} (p = {p:.2g}, {count} epsilons)"
            for value, p, count in found
        )
        sides = [0 if p > 0.05 else -int(np.sign(r)) for r, p, _ in found]
        rows.append(
            (
                "the delay predicts clean accuracy",
                f"Pearson correlation: {text}",
                _verdict(sides),
            )
        )
    return rows


def _claim_jump(frame):
    rows = []
    for name in sorted(set(frame["schedule"]), key=schedule_order):
        if ":" not in name or ";" in name:
            continue
        start, end = parse_hinges(name)
        if start != end or not start:
            continue
        jumps = frame[frame["schedule"] == name]
        thresholds = jumps["num_classes"].map(onset_threshold)
        collapsed = int((jumps["clean"] < thresholds).sum())
        clean = ", ".join(f"{100 * each:.1f}" for each in jumps["clean"])
        rows.append(
            (
                f"a jump ({name}) collapses",
                f"clean accuracy by seed: {clean} (collapsed if below "
                f"{100 * thresholds.max():.0f})",
                _verdict([1] * collapsed + [-1] * (len(jumps) - collapsed)),
            )
        )
    return rows
