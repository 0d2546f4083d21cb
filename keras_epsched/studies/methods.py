"""Tables that compare objectives, each trained with several schedules."""

import numpy as np

from keras_epsched.studies import budget
from keras_epsched.studies.layout import (
    HEADERS,
    MEASURES,
    epsilon_text,
    markdown,
    mean_and_error,
    name_of,
    percent,
    schedule_order,
    varying,
)
from keras_epsched.studies.paired import TEST_HEADERS, test_row


def compares_objectives(frame):
    """Returns whether a study compares objectives.

    Then it does not ask the questions of the paper, which has one.
    """
    return frame["objective"].nunique() > 1


def table(frame):
    """Returns a row for each objective and schedule, with the training cost.

    The cost is that of `budget.cost`, divided by the cost of as many epochs of
    plain training.
    """
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
                    f"{np.mean([_times(r) for r in group.itertuples()]):.1f}",
                ],
            )
        )
    rows = [row for _, row in sorted(rows, key=lambda each: each[0])]
    headers = [*keys, "objective", "schedule", "seeds", *MEASURES, "cost"]
    return markdown(rows, [HEADERS.get(name, name) for name in headers])


def summary(frame):
    """Returns expected robustness by objective and schedule.

    The mean clean accuracy stands in brackets.
    """
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
                expected = mean_and_error(runs["expected_robustness"])
                clean = f"{100 * runs['clean'].mean():.1f}"
                row.append("" if runs.empty else f"{expected} ({clean})")
            rows.append(row)
    return markdown(rows, [*_place_names(frame), "objective", *schedules])


def tests(frame):
    """Returns paired tests between schedules, and between objectives.

    Two schedules are compared over the objectives, with the mean over seeds of
    each objective. Two objectives are compared over the seeds, under the
    two-hinge schedule.
    """
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
            name = HEADERS.get(measure, measure)
            rows += [
                [*place, *test_row(name, what, each, unit)]
                for what, each, unit in found
            ]
    headers = ["measure", "difference", "over", "points", *TEST_HEADERS]
    return markdown(rows, [*_place_names(frame), *headers]) if rows else ""


def _place_names(frame):
    """Returns the columns that rows of the same objective differ in."""
    keys = [key for key in varying(frame) if key != "objective"]
    return [key for key in keys if frame[key].nunique(dropna=False) > 1]


def _places(frame):
    """Returns the groups of rows that agree in those columns.

    Each is a pair: the texts of the columns, and the rows.
    """
    names = _place_names(frame)
    if not names:
        return [([], frame)]
    found = []
    for _, group in frame.groupby(names, dropna=False):
        first = group.iloc[0]
        texts = {name: name_of(first[name]) for name in names}
        place = [
            first[name] if name == "epsilon" else text
            for name, text in texts.items()
        ]
        if "epsilon" in texts:
            texts["epsilon"] = epsilon_text(first["epsilon"])
        found.append((place, (list(texts.values()), group)))
    # By what is shown, as in `table`: a dataset may be a path.
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def _times(row):
    """Returns how many times as much as plain training a training costs."""
    return budget.cost(row) / len(row.training_epsilon)
