"""Candidates for the default schedule: do they win at the target as well?"""

from keras_epsched.schedules import parse_points
from keras_epsched.studies.layout import (
    epsilon_text,
    markdown,
    name_of,
    schedule_order,
    varying,
)

# A candidate may lose this many points of clean accuracy.
CLEAN_LOSS = 3.0
_TASK = ("dataset", "backbone", "epsilon")
# Accuracies that were measured otherwise are not compared.
_MEASURED = (
    *("norm", "eval_attack", "eval_steps", "protocol", "bisect"),
    *("num_epsilons", "test_images"),
)
# The differences that the rule asks for: a measure, and what it is compared
# with. All are in points.
_ASKED = {
    "clean": ("scheduled", -CLEAN_LOSS),
    "at_target": ("fixed", 0.0),
    "expected_robustness": ("scheduled", 0.0),
}
# What studies of methods and of budgets vary.
_OTHER_STUDIES = ("objective", "train_steps", "epochs")
_WINS = {True: "yes", False: "no", None: "control"}
_HEADERS = ("clean - scheduled", "at target - fixed", "expected - scheduled")


def found(frame):
    """Returns how each candidate compares with `fixed` and `scheduled`.

    In each task, a dataset, a backbone and a target epsilon, candidates are
    the trainings with other schedules, or with other flags than the first
    training with a fixed epsilon. Other flags make `fixed` a control. They are
    compared with `scheduled` with the first flags, and with `fixed` with those
    flags that give it most accuracy at the target. Studies that vary
    objectives, steps or epochs have tables of their own.

    Returns:
        A tuple of a `pandas.DataFrame` and of the flags that vary. The frame
        has a row for each candidate and task: `candidate`, a tuple of the
        schedule and of the values of these flags, the columns of the task,
        `seeds`, the differences in points by the names of measures, and `wins`,
        a Boolean.
    """
    import pandas as pd

    flags = [name for name in varying(frame) if name not in _TASK]
    rows = []
    for _, group in frame.groupby(
        [*_TASK, *_MEASURED], sort=False, dropna=False
    ):
        fixed = group[group["schedule"] == "fixed"]
        if fixed.empty or (group[[*_OTHER_STUDIES]].nunique() > 1).any():
            continue
        base = fixed["setting"].iloc[0]
        # The fixed epsilon at its best: what helps it as well as a candidate is
        # no merit of the candidate's schedule.
        best = fixed.groupby("setting", sort=False)["at_target"].mean().idxmax()
        default = (group["schedule"] == "scheduled") & (
            group["setting"] == base
        )
        arms = {
            "fixed": fixed[fixed["setting"] == best].set_index("seed"),
            "scheduled": group[default].set_index("seed"),
        }
        for (setting, schedule), each in group.groupby(
            ["setting", "schedule"], sort=False
        ):
            if schedule == "standard" or (schedule in arms and setting == base):
                continue
            of_seed = each.set_index("seed")
            seeds = of_seed.index
            for arm in arms.values():
                seeds = seeds.intersection(arm.index)
            if seeds.empty:
                continue
            gains = {
                name: 100
                * (of_seed[name][seeds] - arms[arm][name][seeds]).mean()
                for name, (arm, _) in _ASKED.items()
            }
            # An accuracy is a number of images over their count, so equal ones
            # may differ by the rounding of floats.
            wins = all(
                gains[name] >= least - 1e-6
                for name, (_, least) in _ASKED.items()
            )
            first = each.iloc[0]
            candidate = (
                _relative(schedule, first["epsilon"]),
                *(name_of(first[name]) for name in flags),
            )
            rows.append(
                {
                    **first[[*_TASK]],
                    "candidate": candidate,
                    "seeds": len(seeds),
                    **gains,
                    "wins": None if schedule == "fixed" else wins,
                }
            )
    return pd.DataFrame(rows), flags


def table(frame) -> str:
    """Returns a row for each candidate in each task."""
    rows, flags = found(frame)
    if rows.empty:
        return ""
    lines = [
        [
            *row["candidate"],
            name_of(row["dataset"]),
            name_of(row["backbone"]),
            epsilon_text(row["epsilon"]),
            row["seeds"],
            *(f"{row[name]:+.1f}" for name in _ASKED),
            _WINS[row["wins"]],
        ]
        for _, row in _ordered(rows).iterrows()
    ]
    return markdown(
        lines, ["schedule", *flags, *_TASK, "seeds", *_HEADERS, "wins"]
    )


def summary(frame) -> str:
    """Returns a row for each candidate: means over tasks, and tasks won."""
    rows, flags = found(frame)
    if rows.empty or len(rows) == rows["candidate"].nunique():
        return ""
    lines = [
        [
            *candidate,
            *(f"{each[name].mean():+.1f}" for name in _ASKED),
            # Which candidates the choice between them may take.
            f"{(each['expected_robustness'] >= -1e-6).sum()} of {len(each)}",
            "control"
            if each["wins"].isna().all()
            else f"{sum(map(bool, each['wins']))} of {len(each)}",
        ]
        for candidate, each in _ordered(rows).groupby("candidate", sort=False)
    ]
    return markdown(
        lines,
        ["schedule", *flags, *_HEADERS, "expected not below", "wins"],
    )


def _ordered(rows):
    """Returns the rows with the most accuracy at the target first.

    Candidates of fewer tasks, whose means are of other tasks, come last.
    """
    found = rows.groupby("candidate")["at_target"]
    means, counts = found.mean(), found.count()
    order = sorted(
        means.index,
        key=lambda each: (
            -counts[each],
            -means[each],
            schedule_order(each[0]),
        ),
    )
    place = {candidate: number for number, candidate in enumerate(order)}
    return rows.sort_values(
        "candidate", key=lambda column: column.map(place), kind="stable"
    )


def _relative(schedule, target):
    """Returns a schedule with its values in units of the target epsilon.

    Two tasks with other targets then have the same candidate.
    """
    if ";" not in schedule:
        return schedule
    return ";".join(
        f"{progress:g}:{epsilon / target:.3g}×"
        for progress, epsilon in parse_points(schedule)
    )
