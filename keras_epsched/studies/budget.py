"""What a training costs, and what it brings: for studies of a fixed budget."""

import numpy as np

from keras_epsched.studies.layout import (
    HEADERS,
    MEASURES,
    epsilon_text,
    markdown,
    name_of,
    percent,
    schedule_order,
    varying,
)
from keras_epsched.training import objectives

# What a study of a budget varies.
AXES = ("train_steps", "epochs")


def cost(row) -> float:
    """Returns what a training costs, in epochs of plain training.

    A step of plain training takes as long as three forward passes: the forward
    pass itself, and two more for the gradients. Each step of the attack takes
    as long as two. APGD takes one forward pass more. Linear probes, weight
    perturbations, and passes of the loss of the attack are not counted.

    Args:
        row: Row of the results, as a named tuple.
    """
    views = objectives.get(row.objective).num_views
    steps = 1 if row.train_attack in ("fgsm", "nfgsm") else row.train_steps
    attack = 2 * steps + (row.train_attack == "apgd")
    epsilons = np.asarray(row.training_epsilon)
    # A monitor may have ended the training.
    return (3 * views * len(epsilons) + attack * (epsilons > 0).sum()) / 3


def trainings(frame):
    """Returns the mean of each training over its seeds.

    Returns:
        A `pandas.DataFrame` with a row for each setting and schedule: its first
        row of the results, with the means of the measures, its `cost`, `rows`
        (those of the seeds), and `place`, a tuple that is equal for trainings
        that differ in steps and epochs only. `None` if the study varies both
        nowhere.
    """
    import pandas as pd

    # The attack follows from the steps: one step may be N-FGSM.
    apart = [k for k in varying(frame) if k not in (*AXES, "train_attack")]
    found = []
    for (_, schedule), rows in frame.groupby(
        ["setting", "schedule"], sort=False
    ):
        first = rows.iloc[0].copy()
        for name in MEASURES:
            first[name] = rows[name].mean()
        first["cost"] = np.mean([cost(each) for each in rows.itertuples()])
        first["rows"] = rows
        first["place"] = (*(name_of(first[key]) for key in apart), schedule)
        found.append(first)
    means = pd.DataFrame(found)
    places = means.groupby("place")[list(AXES)].transform("nunique")
    means = means[(places > 1).all(axis=1)]
    return None if means.empty else means


def table(frame) -> str:
    """Returns a row for each training, in the order of cost.

    Expected robustness is bold where no training that costs as much or less has
    as much.
    """
    found = trainings(frame)
    if found is None:
        return ""
    keys = [k for k in varying(frame) if k not in (*AXES, "train_attack")]
    lines = []
    places = sorted(
        (group for _, group in found.groupby("place", sort=False)),
        key=lambda group: (
            *group.iloc[0][["dataset", "backbone", "epsilon"]],
            schedule_order(group.iloc[0]["schedule"]),
        ),
    )
    for group in places:
        best = -1.0
        # Of equal cost, the best comes first.
        ordered = group.sort_values(
            ["cost", "expected_robustness"], ascending=[True, False]
        )
        for _, each in ordered.iterrows():
            texts = {key: name_of(each[key]) for key in keys}
            texts["epsilon"] = epsilon_text(each["epsilon"])
            *others, expected = (percent(each["rows"][m]) for m in MEASURES)
            if each["expected_robustness"] > best:
                best = each["expected_robustness"]
                expected = f"**{expected}**"
            lines.append(
                [
                    *texts.values(),
                    each["schedule"],
                    each["train_attack"],
                    str(each["train_steps"]),
                    str(each["epochs"]),
                    f"{each['cost']:.0f}",
                    str(len(each["rows"])),
                    *others,
                    expected,
                ]
            )
    headers = [*keys, "schedule", "attack", "steps", "epochs", "cost", "seeds"]
    headers += MEASURES
    return markdown(lines, [HEADERS.get(name, name) for name in headers])
