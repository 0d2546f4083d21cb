"""What a training costs, and what it brings: for studies of a fixed budget."""

import numpy as np

from keras_epsched.runs import Config, build
from keras_epsched.runs.costs import Passes
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


def passes(row) -> Passes:
    """Returns the passes of a training, of one image in all its epochs.

    The passes are those of an estimate, see `runs.costs`. Linear probes and the
    re-estimation of BatchNorm are not counted.

    Args:
        row: Row of the results, as a named tuple.
    """
    objective = objectives.get(row.objective)
    views = objective.num_views * (2 if row.awp else 1)
    config = Config(
        train_attack=row.train_attack,
        train_steps=int(row.train_steps),
        norm=row.norm,
    )
    forward, backward = build.make_training_attack(config).training_passes(
        int(row.num_classes)
    )
    forward += objective.attack_loss_passes
    # A monitor may have ended the training.
    epsilons = np.asarray(row.training_epsilon)
    plain = Passes(views, views, views) * len(epsilons)
    # Not rounded, as a product would be: these are the passes of one image.
    attacked = _attacked(epsilons, row.update_freq)
    return plain + Passes(forward * attacked, backward * attacked)


def _attacked(epsilons, update_freq):
    """Returns in how many epochs there was an attack, with parts of them.

    Args:
        epsilons: Array, that of the last batch of each epoch.
        update_freq: String. What a schedule sets epsilon before: "epoch" or
            "batch".
    """
    attacked = np.flatnonzero(epsilons > 0)
    if update_freq == "epoch" or len(attacked) < 2:
        return len(attacked)
    # A ramp begins within the first of them, and rises on a line.
    first, second = epsilons[attacked[:2]]
    return len(attacked) - 1 + min(1.0, first / max(second - first, 1e-9))


def cost(row) -> float:
    """Returns what a training costs, in epochs of plain training.

    Args:
        row: Row of the results, as a named tuple.
    """
    return passes(row).work / Passes(1, 1, 1).work


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


def is_all(frame) -> bool:
    """Returns whether a study varies steps and epochs in all its tasks."""
    found = trainings(frame)
    return found is not None and sum(map(len, found["rows"])) == len(frame)


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
