"""What of the paper's claims holds in results, by fixed rules."""

import numpy as np
from scipy import stats

from keras_epsched.onset import onset_threshold
from keras_epsched.schedules import parse_hinges
from keras_epsched.studies.layout import HEADERS, markdown, schedule_order
from keras_epsched.studies.paired import bounds, differences, interval


def of_tasks(frame):
    """The fixed arm of each task, and the standard one as epsilon 0.

    Yields:
        The first row of the task, and its means by epsilon.
    """
    standard = frame["schedule"] == "standard"
    chosen = frame[standard | (frame["schedule"] == "fixed")]
    chosen = chosen.assign(epsilon=chosen["epsilon"].where(~standard, 0.0))
    for _, group in chosen.groupby("task", sort=False):
        if (group["schedule"] == "fixed").any():
            means = group.groupby("epsilon")[["delay", "half", "clean"]]
            yield group.iloc[0], means.mean()


def correlations(frame):
    """Pearson correlation of delay and clean accuracy over epsilons.

    The delay is the epoch at which half of the standard accuracy is reached,
    and accuracy that of the test images; the paper takes the onset and the
    validation accuracy. Tasks whose delays are all equal are left out.

    Returns:
        A list of triples: correlation, p-value, number of epsilons.
    """
    found = []
    for _, means in of_tasks(frame):
        if len(means) >= 3 and means["half"].nunique() > 1:
            result = stats.pearsonr(means["half"], means["clean"])
            found.append((result.statistic, result.pvalue, len(means)))
    return found


def table(frame):
    """What of the paper's claims holds in these results, by fixed rules.

    With six tasks (backbones on datasets) or more a comparison is decided by
    the 95 % interval over them, each the mean of its epsilons; with fewer, by
    that of each cell over its seeds.
    """
    compared, rescued = ("standard", "fixed"), ("fixed", "scheduled")
    return _claims(
        _claim(frame, "a fixed epsilon transfers worse", *compared, "clean", -1)
        + _claim_delay(frame)
        + _claim(frame, "the schedule mends clean accuracy", *rescued, "clean")
        + _claim(
            frame,
            "the schedule gains expected robustness",
            *(*rescued, "expected_robustness"),
        )
        + _claim(
            frame, "the schedule gains at the target too", *rescued, "at_target"
        )
    )


def ablations(frame):
    """What of the paper's claims on other schedules holds, by the same rules.

    A jump has collapsed where clean accuracy ends below the threshold of the
    onset.
    """
    return _claims(
        _claim_jump(frame)
        + _claim(
            frame,
            "a random epsilon is not enough",
            *("random", "scheduled", "expected_robustness"),
        )
    )


def _claims(rows):
    return markdown(rows, ("claim", "measured", "verdict")) if rows else ""


def _claim(frame, claim, first, second, measure, sign=1):
    """A row, if there is anything to compare."""
    found = differences(frame, first, second, measure)
    if not found:
        return []
    measured, verdict = _outcome(frame, found, sign)
    name = HEADERS.get(measure, measure)
    return [(claim, f"{name}, {second} - {first}: {measured}", verdict)]


def _outcome(frame, found, sign):
    """Differences in words, and whether they lie on the side of a claim."""
    tasks = frame.drop_duplicates("setting").set_index("setting")["task"]
    means, of_tasks = [], {}
    for setting, values in found.items():
        means.append(values.mean())
        of_tasks.setdefault(tasks[setting], []).append(values.mean())
    means = np.array(means)
    outcomes = [interval(values) for values in found.values()]
    text = f"{means.mean():+.1f} points"
    if len(of_tasks) >= 6:
        outcomes = [interval([np.mean(each) for each in of_tasks.values()])]
        text += f" ({bounds(outcomes[0])} over {len(of_tasks)} tasks)"
    elif len(means) == 1 and outcomes[0] is not None:
        text += f" ({bounds(outcomes[0])} over the seeds)"
    elif len(means) > 1:
        text += f" (cells: {', '.join(f'{each:+.1f}' for each in means)})"
    side = (sign * means > 0).sum()
    text += f"; on that side {side} of {len(means)} cells"
    return text, _verdict([sign * _side(each) for each in outcomes])


def _side(outcome):
    """The sign of an interval, 0 where it is open."""
    if outcome is None or outcome[1] <= 0 <= outcome[2]:
        return 0
    return int(np.sign(outcome[0]))


def _verdict(sides):
    """In words: 1 for the claim, -1 against it, 0 undecided, for each."""
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
        rows.append(
            (
                "the delay grows with epsilon",
                f"epochs to half of the standard accuracy, largest against "
                f"smallest epsilon: {text}",
                _verdict([int(np.sign(each)) for each in grown]),
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
                f"clean {clean}; collapsed below {100 * thresholds.max():.0f}",
                _verdict([1] * collapsed + [-1] * (len(jumps) - collapsed)),
            )
        )
    return rows
