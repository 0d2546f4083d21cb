"""Tables and tests of the results of a study."""

import csv
import fractions
import pathlib

import numpy as np

MEASURES = ("clean", "at_target", "expected_robustness")
ARMS = ("standard", "fixed", "scheduled")
_HEADERS = {
    "at_target": "at target",
    "expected_robustness": "expected",
    "batchnorm_momentum": "momentum",
    "reestimate_batchnorm": "re-estimated",
}
# What tells one fine-tuning from another, but for its schedule and its seed.
_KEYS = (
    *("dataset", "backbone", "epsilon", "norm", "objective", "adaptation"),
    *("train_attack", "train_steps", "attack_mode", "batchnorm_momentum"),
    *("freeze_batchnorm", "reestimate_batchnorm", "learning_rate", "epochs"),
    *("batch_size", "image_size", "backend"),
)


def read(*paths):
    """Reads results, of one study or of several that belong together.

    Returns:
        A `pandas.DataFrame`, a row a cell, with more columns: `setting`, a
        tuple of what tells settings apart, and `delay` and `half`, epochs.

    Raises:
        ValueError: If the file holds no results.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            'a report needs pandas: pip install -e ".[study]"'
        ) from error
    frames = []
    for path in paths:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} is no file of results: {error}"
            ) from error
        lacks = {*_KEYS, *MEASURES, "schedule", "seed", "onset"} - set(frame)
        if lacks or frame.empty:
            raise ValueError(
                f"{path} is no file of results of study.py: it lacks "
                f"{sorted(lacks) or 'rows'}"
            )
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True)
    # Equal from row to row, whatever stands for nothing.
    keys = (
        frame[list(_KEYS)].astype(object).where(frame[list(_KEYS)].notna(), "")
    )
    frame["setting"] = list(keys.itertuples(index=False, name=None))
    # As in the paper: those that never adapt count as the whole training.
    frame["delay"] = frame["onset"].fillna(frame["epochs"])
    frame["half"] = [_half(frame, row) for row in frame.itertuples()]
    return frame


def _half(frame, row):
    """First epoch with half of what standard fine-tuning reaches."""
    standard = frame[
        (frame["schedule"] == "standard")
        & (frame["seed"] == row.seed)
        & (frame["backbone"] == row.backbone)
        & (frame["dataset"] == row.dataset)
    ]
    if standard.empty:
        return np.nan
    final = standard["validation_accuracy"].iloc[0][-1]
    above = np.asarray(row.validation_accuracy) >= final / 2
    return 1 + int(np.argmax(above)) if above.any() else row.epochs


def sections(frame):
    """All the tables that the results have cells for, as Markdown."""
    made = {
        "main": main_table(frame),
        "hinges": hinge_table(frame),
        "random": random_table(frame),
        "tests": tests_table(frame),
        "delays": delay_table(frame),
        "claims": claims_table(frame),
    }
    return {name: text for name, text in made.items() if text}


def markdown(rows, headers):
    """A table in Markdown."""
    from tabulate import tabulate

    return tabulate(
        rows, headers=headers, tablefmt="pipe", disable_numparse=True
    )


def epsilon_text(epsilon):
    """An epsilon as the field writes it."""
    if epsilon == 0:
        return "0"
    over = epsilon * 255
    if abs(over - round(over)) < 1e-6:
        return f"{round(over)}/255"
    return f"{epsilon:g}"


def percent(values, digits=1):
    """Mean and standard error in per cent."""
    values = 100 * np.asarray(values, "float64")
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def schedule_order(name):
    """Arms first, then hinges in order."""
    if name in ARMS:
        return (0, ARMS.index(name), 0.0)
    if ":" in name:
        return (1, *hinges(name))
    return (2, 0, 0.0)


def hinges(name):
    """Two hinges as shares of the training."""
    return tuple(float(fractions.Fraction(each)) for each in name.split(":"))


def _varying(frame):
    """Columns of a table: those that tell its rows apart."""
    return [
        key
        for key in _KEYS
        if key in ("dataset", "backbone", "epsilon")
        or frame[key].nunique(dropna=False) > 1
    ]


def paper(row):
    """What the paper has for a cell, by measure; empty if it has none."""
    path = pathlib.Path(__file__).with_name("paper_results.csv")
    with open(path, encoding="utf-8", newline="") as file:
        for each in csv.DictReader(file):
            if (
                each["backbone"] == row["backbone"]
                and each["dataset"] == row["dataset"]
                and each["schedule"] == row["schedule"]
                and np.isclose(
                    float(fractions.Fraction(each["epsilon"])), row["epsilon"]
                )
            ):
                return {name: each[name] for name in MEASURES}
    return {}


def _table(frame):
    """A row for each setting and schedule, over seeds."""
    keys = _varying(frame)
    groups = frame.groupby([*keys, "schedule"], dropna=False, sort=False)
    rows, any_paper = [], False
    for values, group in groups:
        values = dict(zip([*keys, "schedule"], values, strict=True))
        found = paper(values)
        any_paper = any_paper or bool(found)
        order = schedule_order(values["schedule"])
        place = [str(values[key]) for key in keys if key != "epsilon"]
        values["epsilon"] = epsilon_text(values["epsilon"])
        rows.append(
            (
                (place, float(group["epsilon"].iloc[0]), order),
                [
                    *map(str, values.values()),
                    len(group),
                    *(percent(group[name]) for name in MEASURES),
                    " / ".join(found.values()),
                ],
            )
        )
    rows = [row for _, row in sorted(rows, key=lambda each: each[0])]
    headers = [*keys, "schedule", "seeds", *MEASURES]
    headers = [_HEADERS.get(name, name) for name in headers]
    if any_paper:
        return markdown(rows, [*headers, "paper"])
    return markdown([row[:-1] for row in rows], headers)


def main_table(frame):
    """Tables 1 and 2: standard, fixed and scheduled."""
    chosen = frame[frame["schedule"].isin(ARMS)]
    return "" if chosen.empty else _table(chosen)


def hinge_table(frame):
    """Table 7: both hinges."""
    by_name = frame["schedule"].str.contains(":")
    if not by_name.any():
        return ""
    settings = set(frame[by_name]["setting"])
    chosen = frame["setting"].isin(settings) & (
        by_name | frame["schedule"].isin(("fixed", "scheduled"))
    )
    return _table(frame[chosen])


def random_table(frame):
    """Table 8: another epsilon in each epoch."""
    settings = set(frame[frame["schedule"] == "random"]["setting"])
    if not settings:
        return ""
    chosen = frame["schedule"].isin(("random", *ARMS))
    return _table(frame[chosen & frame["setting"].isin(settings)])


def differences(frame, first, second, measure):
    """Second schedule minus the first, in each setting, in points.

    Returns:
        A dict from settings to differences, a seed each.
    """
    found = {}
    for setting, group in frame.groupby("setting", sort=False):
        seeds = {
            name: group[group["schedule"] == name].set_index("seed")[measure]
            for name in (first, second)
        }
        common = seeds[first].index.intersection(seeds[second].index)
        if len(common):
            found[setting] = 100 * np.asarray(
                seeds[second][common] - seeds[first][common], "float64"
            )
    return found


def interval(values):
    """Mean, 95 % interval and p-value of a paired t-test; `None` if one."""
    from scipy import stats

    values = np.asarray(values, "float64")
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    return values.mean(), low, high, test.pvalue


def _bounds(outcome):
    """An interval as text."""
    if outcome is None:
        return ""
    return f"{outcome[1]:+.1f} to {outcome[2]:+.1f}"


def tests_table(frame):
    """Paired tests of the schedule against the fixed epsilon.

    Over the seeds of each cell, and over the cells, as in the paper.
    """
    keys = _varying(frame)
    rows = []
    for measure in MEASURES:
        name = _HEADERS.get(measure, measure)
        found = differences(frame, "fixed", "scheduled", measure)
        for setting, values in found.items():
            named = dict(zip(_KEYS, setting, strict=True))
            named["epsilon"] = epsilon_text(named["epsilon"])
            cell = ", ".join(str(named[key]) for key in keys)
            rows.append(_test(name, cell, values, "seeds"))
        if len(found) > 1:
            means = [values.mean() for values in found.values()]
            rows.append(_test(name, "all", means, "cells"))
    headers = (
        *("measure", "cell", "over", "scheduled - fixed (points)"),
        *("95 % interval", "gains", "p (paired t)"),
    )
    return markdown(rows, headers) if rows else ""


def _test(measure, cell, values, unit):
    values = np.asarray(values)
    outcome = interval(values)
    return (
        measure,
        cell,
        f"{len(values)} {unit}",
        f"{values.mean():+.1f}",
        _bounds(outcome),
        f"{(values > 0).sum()} of {len(values)}",
        "" if outcome is None else f"{outcome[3]:.2g}",
    )


def _delay_rows(frame):
    """Delay and clean accuracy by epsilon, for each backbone and dataset."""
    fixed = frame[frame["schedule"] == "fixed"]
    standard = frame[frame["schedule"] == "standard"].assign(epsilon=0.0)
    both = frame[:0]
    if not fixed.empty:
        import pandas as pd

        both = pd.concat([standard, fixed])
    return both.groupby(["dataset", "backbone"], sort=False)


def delay_table(frame):
    """Figures 3 and 9: delay against epsilon, and against accuracy."""
    rows = []
    for (dataset, backbone), group in _delay_rows(frame):
        by_epsilon = group.groupby("epsilon")[["delay", "half", "clean"]].mean()
        for epsilon, row in by_epsilon.iterrows():
            rows.append(
                (
                    dataset,
                    backbone,
                    epsilon_text(epsilon),
                    f"{row['delay']:.1f}",
                    f"{row['half']:.1f}",
                    f"{100 * row['clean']:.1f}",
                )
            )
    headers = (
        *("dataset", "backbone", "fixed epsilon", "onset (epoch)"),
        *("half of standard accuracy (epoch)", "clean"),
    )
    return markdown(rows, headers) if rows else ""


def correlations(frame):
    """Pearson correlation of delay and clean accuracy over epsilons.

    Returns:
        A dict from `(dataset, backbone)` to pairs: correlation, number of
        epsilons. Cells in which all delays are equal are left out.
    """
    from scipy import stats

    found = {}
    for key, group in _delay_rows(frame):
        means = group.groupby("epsilon")[["half", "clean"]].mean()
        if len(means) >= 3 and means["half"].nunique() > 1:
            result = stats.pearsonr(means["half"], means["clean"])
            found[key] = result.statistic, len(means)
    return found


def claims_table(frame):
    """What of the paper's claims holds in these results, by fixed rules.

    A comparison holds where the 95 % interval over six cells or more lies on
    the side of the claim; with fewer cells, where that of each over its seeds
    does.
    """
    rows = []

    def compare(claim, first, second, measure, sign):
        found = differences(frame, first, second, measure)
        if found:
            text = f"{_HEADERS.get(measure, measure)}, {second} - {first}: "
            measured, verdict = _outcome(found, sign)
            rows.append((claim, text + measured, verdict))

    compare("a fixed epsilon transfers worse", "standard", "fixed", "clean", -1)
    _claim_delay(frame, rows)
    between = "fixed", "scheduled"
    compare("the schedule mends clean accuracy", *between, "clean", 1)
    compare(
        "the schedule gains expected robustness",
        *(*between, "expected_robustness", 1),
    )
    compare("the schedule gains at the target too", *between, "at_target", 1)
    _claim_jump(frame, rows)
    compare(
        "a random epsilon is not enough",
        *("random", "scheduled", "expected_robustness", 1),
    )
    return markdown(rows, ("claim", "measured", "verdict")) if rows else ""


def _outcome(found, sign):
    """Differences in words, and whether they lie on the side of a claim."""
    means = np.array([values.mean() for values in found.values()])
    over_seeds = [interval(values) for values in found.values()]
    overall = interval(means) if len(means) >= 6 else None
    text = f"{means.mean():+.1f} points"
    if overall is not None:
        text += f" ({_bounds(overall)} over {len(means)} cells)"
    elif len(means) == 1 and over_seeds[0] is not None:
        text += f" ({_bounds(over_seeds[0])} over the seeds)"
    else:
        text += f" (cells: {', '.join(f'{each:+.1f}' for each in means)})"
    outcomes = [overall] if overall is not None else over_seeds
    sides = {
        0 if each is None or each[1] <= 0 <= each[2] else np.sign(each[0])
        for each in outcomes
    }
    side = (sign * means > 0).sum()
    if sides == {sign}:
        verdict = "holds"
    elif sides == {-sign}:
        verdict = "the opposite holds"
    else:
        verdict = "undecided" if overall is not None else "not in every cell"
    return f"{text}; on that side {side} of {len(means)} cells", verdict


def _claim_delay(frame, rows):
    grown = []
    for _, group in _delay_rows(frame):
        means = group[group["epsilon"] > 0].groupby("epsilon")["half"].mean()
        if len(means) >= 2:
            grown.append(means.iloc[-1] - means.iloc[0])
    if grown:
        up = sum(each > 0 for each in grown)
        text = ", ".join(f"{each:+.1f}" for each in grown)
        rows.append(
            (
                "the delay grows with epsilon",
                f"epochs to half of the standard accuracy, largest against "
                f"smallest epsilon: {text}",
                "holds" if up == len(grown) else f"in {up} of {len(grown)}",
            )
        )
    found = correlations(frame)
    if found:
        text = ", ".join(
            f"{value:.2f} ({count} epsilons)" for value, count in found.values()
        )
        low = all(value < -0.8 for value, _ in found.values())
        rows.append(
            (
                "the delay predicts clean accuracy",
                f"Pearson correlation: {text}",
                "holds" if low else "does not hold everywhere",
            )
        )


def _claim_jump(frame, rows):
    """Schedules that jump, against the ramps with the same first hinge."""
    for name in sorted(set(frame["schedule"]), key=schedule_order):
        if ":" not in name or len(set(hinges(name))) > 1 or not hinges(name)[0]:
            continue
        jump = 100 * frame[frame["schedule"] == name]["clean"]
        chance = 100 / frame["num_classes"].iloc[0]
        collapsed = (jump <= 1.5 * chance).sum()
        rows.append(
            (
                f"a jump ({name}) collapses",
                f"clean {', '.join(f'{each:.1f}' for each in jump)}; chance "
                f"{chance:.0f}",
                "holds"
                if collapsed == len(jump)
                else f"in {collapsed} of {len(jump)}",
            )
        )
