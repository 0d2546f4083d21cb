"""Tables and tests of the results of a study."""

import csv
import fractions
import functools
import pathlib

import numpy as np
import study_grid
import study_results

MEASURES = ("clean", "at_target", "expected_robustness")
ARMS = ("standard", "fixed", "scheduled")
_HEADERS = {
    "at_target": "at target",
    "expected_robustness": "expected",
    "batchnorm_momentum": "momentum",
    "reestimate_batchnorm": "re-estimated",
    "at_target_paper": "at target, paper's protocol",
    "expected_robustness_paper": "expected, paper's protocol",
}


def read(*paths):
    """Reads results, of one study or of several that belong together.

    Returns:
        A `pandas.DataFrame`, a row a cell, with more columns. `setting`, a
        tuple, is the same for cells that differ in schedule and seed alone,
        `task` for those that differ in epsilon as well; `delay` and `half`
        are epochs.

    Raises:
        ValueError: If a file holds no results or unknown columns, or a cell is
            there twice.
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
        frames.append(study_results.completed(frame, path))
    frame = pd.concat(frames, ignore_index=True)
    flags = frame[study_results.settings(frame)].astype(object)
    # Equal from row to row, whatever stands for nothing.
    flags = flags.where(flags.notna(), "")
    for name, without in (("setting", ()), ("task", ("epsilon",))):
        kept = flags.drop(columns=list(without))
        frame[name] = list(kept.itertuples(index=False, name=None))
    twice = frame.duplicated(["setting", "schedule", "seed"])
    if twice.any():
        raise ValueError(
            "results of the same fine-tuning are there twice: "
            f"{', '.join(frame[twice]['cell'].head(3))}. Name each file once."
        )
    # As in the paper: those that never adapt count as the whole training.
    frame["delay"] = frame["onset"].fillna(frame["epochs"])
    frame["half"] = [_half(frame, row) for row in frame.itertuples()]
    return frame


def _half(frame, row):
    """First epoch with half of what standard fine-tuning reaches."""
    standard = frame[
        (frame["schedule"] == "standard")
        & (frame["seed"] == row.seed)
        & (frame["task"] == row.task)
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
        "methods": methods_table(frame),
        "methods_summary": methods_summary(frame),
        "methods_tests": methods_tests(frame),
        "tests": tests_table(frame),
        "delays": delay_table(frame),
        "claims": claims_table(frame),
        "ablations": ablations_table(frame),
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
    from keras_epsched.epsilons import format_epsilon

    return format_epsilon(epsilon)


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
    return (2, 0, 0.0, name)


def hinges(name):
    """Two hinges as shares of the training."""
    return tuple(float(fractions.Fraction(each)) for each in name.split(":"))


def varying(frame):
    """Columns of a table: the flags that tell its rows apart.

    Not those that go with the backbone or the dataset, as its weights.
    """
    always = ["dataset", "backbone", "epsilon"]
    alike = frame.groupby(["dataset", "backbone"])
    more = [
        name
        for name in study_results.settings(frame)
        if name not in always and alike[name].nunique(dropna=False).max() > 1
    ]
    return [*always, *more]


def name_of(value):
    """A value of a flag as tables show it."""
    return study_grid.short(study_grid.as_text(value))


def paper(row, tables):
    """What the paper has for a cell, by measure; empty if it has none.

    Args:
        row: Mapping with the flags of a cell.
        tables: Names of the paper's tables, the first that has it counts.
    """
    own = {"norm": "linf", "objective": "adversarial", "adaptation": "full"}
    if any(row.get(name, value) != value for name, value in own.items()):
        return {}
    for table in tables:
        for each in _paper_results():
            if (
                each["table"] == table
                and each["backbone"] == row["backbone"]
                and each["dataset"] == row["dataset"]
                and each["schedule"] == row["schedule"]
                and np.isclose(
                    float(fractions.Fraction(each["epsilon"])), row["epsilon"]
                )
            ):
                return {name: each[name] for name in MEASURES}
    return {}


@functools.cache
def _paper_results():
    path = pathlib.Path(__file__).with_name("paper_results.csv")
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _table(frame, tables=("Table 1", "Table 2")):
    """A row for each setting and schedule, over seeds."""
    keys = varying(frame)
    beside = [
        name
        for name in study_results.PAPER_MEASURES
        if name in frame and frame[name].notna().any()
    ]
    rows, any_paper = [], False
    for (_, schedule), group in frame.groupby(
        ["setting", "schedule"], sort=False
    ):
        first = group.iloc[0]
        found = paper(first, tables)
        any_paper = any_paper or bool(found)
        texts = {key: name_of(first[key]) for key in keys}
        place = [texts[key] for key in keys if key != "epsilon"]
        texts["epsilon"] = epsilon_text(first["epsilon"])
        rows.append(
            (
                (place, first["epsilon"], schedule_order(schedule)),
                [
                    *texts.values(),
                    schedule,
                    len(group),
                    *(percent(group[name]) for name in MEASURES),
                    *(
                        "" if group[name].isna().any() else percent(group[name])
                        for name in beside
                    ),
                    " / ".join(found.values()),
                ],
            )
        )
    rows = [row for _, row in sorted(rows, key=lambda each: each[0])]
    headers = [*keys, "schedule", "seeds", *MEASURES, *beside]
    headers = [_HEADERS.get(name, name) for name in headers]
    if any_paper:
        return markdown(rows, [*headers, "paper, in its own set-up"])
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
    return _table(frame[chosen], ("Table 7", "Table 1", "Table 2"))


def random_table(frame):
    """Table 8: another epsilon in each epoch."""
    settings = set(frame[frame["schedule"] == "random"]["setting"])
    if not settings:
        return ""
    chosen = frame["schedule"].isin(("random", *ARMS))
    chosen &= frame["setting"].isin(settings)
    return _table(frame[chosen], ("Table 8", "Table 1", "Table 2"))


# Views of each image that an objective sees in a step.
VIEWS = {
    "adversarial": 1,
    "twins": 1,
    "alp": 2,
    "autolora": 2,
    "mart": 2,
    "mixed": 2,
    "trades": 2,
}


def methods_table(frame):
    """Objectives under schedules, with what they cost.

    The cost are passes of all training images, forward and backward, over
    those of a training without any attack: of an epoch one for each view that
    the objective sees, and one for each step of the attack.
    """
    if frame["objective"].nunique() < 2:
        return ""
    keys = [key for key in varying(frame) if key != "objective"]
    rows = []
    for _, group in frame.groupby(["setting", "schedule"], sort=False):
        first = group.iloc[0]
        texts = {key: name_of(first[key]) for key in keys}
        place = [texts[key] for key in keys if key != "epsilon"]
        texts["epsilon"] = epsilon_text(first["epsilon"])
        order = first["objective"], schedule_order(first["schedule"])
        rows.append(
            (
                (place, first["epsilon"], *order),
                [
                    *texts.values(),
                    first["objective"],
                    first["schedule"],
                    len(group),
                    *(percent(group[name]) for name in MEASURES),
                    f"{np.mean([_cost(r) for r in group.itertuples()]):.1f}",
                ],
            )
        )
    rows = [row for _, row in sorted(rows, key=lambda each: each[0])]
    headers = [*keys, "objective", "schedule", "seeds", *MEASURES, "cost"]
    return markdown(rows, [_HEADERS.get(name, name) for name in headers])


def methods_summary(frame):
    """Expected robustness of objectives under schedules, and clean accuracy."""
    if frame["objective"].nunique() < 2:
        return ""
    schedules = sorted(set(frame["schedule"]), key=schedule_order)
    rows = []
    for place, group in _places(frame):
        for objective in sorted(set(group["objective"])):
            row = [*place, objective]
            for schedule in schedules:
                runs = group[
                    (group["objective"] == objective)
                    & (group["schedule"] == schedule)
                ]
                expected = percent(runs["expected_robustness"])
                clean = f"{100 * runs['clean'].mean():.1f}"
                row.append("" if runs.empty else f"{expected} ({clean})")
            rows.append(row)
    return markdown(rows, [*_place_names(frame), "objective", *schedules])


def methods_tests(frame):
    """Paired differences between schedules, and between objectives.

    Of schedules over the objectives, each the mean of its seeds; of
    objectives, under the schedule of two hinges, over the seeds.
    """
    if frame["objective"].nunique() < 2:
        return ""
    rows = []
    for place, group in _places(frame):
        for measure in MEASURES:
            values = 100 * group.pivot(
                index=["objective", "seed"], columns="schedule", values=measure
            )
            if "scheduled" not in values:
                continue
            found = []
            for schedule in sorted(values, key=schedule_order):
                moved = (values[schedule] - values["scheduled"]).dropna()
                means = moved.groupby("objective").mean()
                if schedule != "scheduled" and len(means) > 1:
                    what = f"{schedule} - scheduled"
                    found.append((what, means, "objectives"))
            scheduled = values["scheduled"].unstack("objective")
            for objective in scheduled:
                if objective == "adversarial" or "adversarial" not in scheduled:
                    continue
                moved = scheduled[objective] - scheduled["adversarial"]
                if moved.count() > 1:
                    what = f"{objective} - adversarial"
                    found.append((what, moved.dropna(), "seeds"))
            name = _HEADERS.get(measure, measure)
            rows += [
                [*place, *_test(name, what, each, unit)]
                for what, each, unit in found
            ]
    headers = (
        *("measure", "difference", "over", "points"),
        *("95 % interval", "gains", "p (paired t)"),
    )
    return markdown(rows, [*_place_names(frame), *headers]) if rows else ""


def _place_names(frame):
    """What tells the rows of objectives apart, if anything does."""
    keys = [key for key in varying(frame) if key != "objective"]
    return [key for key in keys if frame[key].nunique(dropna=False) > 1]


def _places(frame):
    """Pairs of texts for those, and the rows that agree in them."""
    names = _place_names(frame)
    if not names:
        return [([], frame)]
    found = []
    for _, group in frame.groupby(names, dropna=False):
        first = group.iloc[0]
        texts = {name: name_of(first[name]) for name in names}
        if "epsilon" in texts:
            texts["epsilon"] = epsilon_text(first["epsilon"])
        found.append((list(texts.values()), group))
    return found


def _cost(row):
    if row.objective not in VIEWS:
        raise ValueError(
            f"the cost of the objective {row.objective!r} is not known: name "
            "its views in `report_tables.VIEWS`"
        )
    views = VIEWS[row.objective]
    one_step = getattr(row, "train_attack", "pgd") in ("fgsm", "nfgsm")
    steps = 1 if one_step else row.train_steps
    attacked = np.count_nonzero(np.asarray(row.training_epsilon) > 0)
    return views + steps * attacked / row.epochs


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
    """Mean, 95 % interval and p-value of a paired t-test.

    `None` where the spread cannot be told: of one value, or of equal ones, as
    two seeds on a few hundred images may give by chance.
    """
    from scipy import stats

    values = np.asarray(values, "float64")
    # In points; accuracies differ by an image or not at all.
    if len(values) < 2 or np.ptp(values) < 1e-6:
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

    Over the seeds of each cell; and, as in the paper, over the cells of each
    epsilon.
    """
    keys = varying(frame)
    rows = []
    for measure in MEASURES:
        name = _HEADERS.get(measure, measure)
        found = differences(frame, "fixed", "scheduled", measure)
        means = {}
        for setting, values in found.items():
            row = frame[frame["setting"] == setting].iloc[0]
            texts = {key: name_of(row[key]) for key in keys}
            texts["epsilon"] = epsilon_text(row["epsilon"])
            means.setdefault(texts["epsilon"], []).append(values.mean())
            if len(values) > 1:
                cell = ", ".join(texts.values())
                rows.append(_test(name, cell, values, "seeds"))
        for epsilon, values in means.items():
            if len(values) > 1:
                rows.append(_test(name, f"all at {epsilon}", values, "cells"))
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


def _of_tasks(frame):
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


def delay_table(frame):
    """Figures 3 and 9: delay against epsilon, and against accuracy."""
    keys = [key for key in varying(frame) if key != "epsilon"]
    rows = []
    for first, means in _of_tasks(frame):
        for epsilon, row in means.iterrows():
            rows.append(
                (
                    *(name_of(first[key]) for key in keys),
                    epsilon_text(epsilon),
                    f"{row['delay']:.1f}",
                    f"{row['half']:.1f}",
                    f"{100 * row['clean']:.1f}",
                )
            )
    headers = (
        *(*keys, "fixed epsilon", "onset (epoch)"),
        *("half of standard accuracy (epoch)", "clean"),
    )
    return markdown(rows, headers) if rows else ""


def correlations(frame):
    """Pearson correlation of delay and clean accuracy over epsilons.

    The delay is the epoch at which half of the standard accuracy is reached,
    and accuracy that of the test images; the paper takes the onset and the
    validation accuracy. Tasks whose delays are all equal are left out.

    Returns:
        A list of triples: correlation, p-value, number of epsilons.
    """
    from scipy import stats

    found = []
    for _, means in _of_tasks(frame):
        if len(means) >= 3 and means["half"].nunique() > 1:
            result = stats.pearsonr(means["half"], means["clean"])
            found.append((result.statistic, result.pvalue, len(means)))
    return found


def claims_table(frame):
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


def ablations_table(frame):
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
    name = _HEADERS.get(measure, measure)
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
        text += f" ({_bounds(outcomes[0])} over {len(of_tasks)} tasks)"
    elif len(means) == 1 and outcomes[0] is not None:
        text += f" ({_bounds(outcomes[0])} over the seeds)"
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
    for _, means in _of_tasks(frame):
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
    from keras_epsched import onset

    rows = []
    for name in sorted(set(frame["schedule"]), key=schedule_order):
        if ":" not in name or len(set(hinges(name))) > 1 or not hinges(name)[0]:
            continue
        jumps = frame[frame["schedule"] == name]
        thresholds = jumps["num_classes"].map(onset.onset_threshold)
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
