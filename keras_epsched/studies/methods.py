"""Tables that compare objectives, each trained with several schedules."""

import numpy as np

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
from keras_epsched.training import objectives


def table(frame):
    """Returns a row for each objective and schedule, with the training cost.

    The cost is the number of forward and backward passes of the training,
    divided by that of standard training. An epoch takes one pass over the
    training images for each view that the objective sees, and one for each step
    of the attack.
    """
    if frame["objective"].nunique() < 2:
        return ""
    keys = varying(frame, ["objective"])
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
    return markdown(rows, [HEADERS.get(name, name) for name in headers])


def summary(frame):
    """Returns expected robustness by objective and schedule.

    The mean clean accuracy stands in brackets.
    """
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
            name = HEADERS.get(measure, measure)
            rows += [
                [*place, *test_row(name, what, each, unit)]
                for what, each, unit in found
            ]
    headers = ["measure", "difference", "over", "points", *TEST_HEADERS]
    return markdown(rows, [*_place_names(frame), *headers]) if rows else ""


def _place_names(frame):
    """Returns the columns that rows of the same objective differ in."""
    keys = varying(frame, ["objective"])
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
        if "epsilon" in texts:
            texts["epsilon"] = epsilon_text(first["epsilon"])
        found.append((list(texts.values()), group))
    return found


def _cost(row):
    views = objectives.get(row.objective).num_views
    one_step = getattr(row, "train_attack", "pgd") in ("fgsm", "nfgsm")
    steps = 1 if one_step else row.train_steps
    attacked = np.count_nonzero(np.asarray(row.training_epsilon) > 0)
    return views + steps * attacked / row.epochs
