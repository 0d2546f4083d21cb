"""Tables of the results of a study."""

import numpy as np

from keras_epsched.configs.config import ADAPTIVE_SCHEDULES
from keras_epsched.studies import (
    budget,
    candidates,
    claims,
    methods,
    paired,
    paper,
    results,
)
from keras_epsched.studies.layout import (
    ARMS,
    HEADERS,
    MEASURES,
    epsilon_text,
    markdown,
    name_of,
    percent,
    schedule_order,
    varying,
)


def sections(frame):
    """Returns the tables that the results have cells for, as Markdown."""
    # A study of a budget does not ask the questions of the paper.
    if budget.is_all(frame):
        return {"budget": budget.table(frame)}
    if methods.compares_objectives(frame):
        return {
            "methods": methods.table(frame),
            "methods_summary": methods.summary(frame),
            "methods_tests": methods.tests(frame),
        }
    made = {
        "main": main_table(frame),
        "hinges": hinge_table(frame),
        "random": random_table(frame),
        "adaptive": adaptive_table(frame),
        "named": named_table(frame),
        "candidates": candidates.table(frame),
        "candidates_summary": candidates.summary(frame),
        "budget": budget.table(frame),
        "tests": paired.table(frame),
        "delays": delay_table(frame),
        "claims": claims.table(frame),
        "protocols": claims.by_both_protocols(frame),
        "ablations": claims.ablations(frame),
    }
    return {name: text for name, text in made.items() if text}


def _table(frame, chosen, tables=("Table 1", "Table 2")):
    """Returns a row for each setting and schedule, averaged over seeds.

    Args:
        frame: Results. What they vary has a column.
        chosen: Boolean for each of them: whether it is in the table.
        tables: Tables of the paper to compare with.
    """
    if not chosen.any():
        return ""
    keys = varying(frame)
    frame = frame[chosen]
    beside = [
        name
        for name in results.PAPER_MEASURES
        if name in frame and frame[name].notna().any()
    ]
    rows, any_paper = [], False
    for (_, schedule), group in frame.groupby(
        ["setting", "schedule"], sort=False
    ):
        first = group.iloc[0]
        found = paper.figures(first, tables)
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
    headers = [HEADERS.get(name, name) for name in headers]
    if any_paper:
        return markdown(rows, [*headers, "paper, its own set-up"])
    return markdown([row[:-1] for row in rows], headers)


def main_table(frame):
    """Compares the standard, fixed and scheduled arms (Tables 1 and 2)."""
    return _table(frame, frame["schedule"].isin(ARMS))


def hinge_table(frame):
    """Compares two-hinge schedules by their hinges (Table 7)."""
    by_name = frame["schedule"].str.contains(":")
    chosen = _beside(frame, by_name, ("fixed", "scheduled"))
    return _table(frame, chosen, ("Table 7", "Table 1", "Table 2"))


def random_table(frame):
    """Compares a random epsilon in each epoch with the arms (Table 8)."""
    chosen = _beside(frame, frame["schedule"] == "random")
    return _table(frame, chosen, ("Table 8", "Table 1", "Table 2"))


def adaptive_table(frame):
    """Compares schedules that the training decides with the arms."""
    if frame["objective"].nunique() > 1:
        # The tables of objectives have them.
        return ""
    adaptive = frame["schedule"].isin(ADAPTIVE_SCHEDULES)
    return _table(frame, _beside(frame, adaptive))


def named_table(frame):
    """Compares schedules that no other table has with the arms."""
    if frame["objective"].nunique() > 1:
        return ""
    named = ~frame["schedule"].str.contains(":")
    named &= ~frame["schedule"].isin((*ARMS, "random", *ADAPTIVE_SCHEDULES))
    return _table(frame, _beside(frame, named))


def _beside(frame, own, arms=ARMS):
    """Returns where the rows of a table are, with arms in their settings."""
    settings = set(frame[own]["setting"])
    alike = frame["setting"].isin(settings) & frame["schedule"].isin(arms)
    return own | alike


def delay_table(frame):
    """Lists delay and clean accuracy for each epsilon (Figures 3 and 9)."""
    keys = [key for key in varying(frame) if key != "epsilon"]
    rows = []
    for first, means in claims.of_tasks(frame):
        for epsilon, row in means.iterrows():
            # Without standard fine-tuning, half of its accuracy is unknown.
            half = "" if np.isnan(row["half"]) else f"{row['half']:.1f}"
            rows.append(
                (
                    *(name_of(first[key]) for key in keys),
                    epsilon_text(epsilon),
                    f"{row['delay']:.1f}",
                    half,
                    f"{100 * row['clean']:.1f}",
                )
            )
    headers = (
        *(*keys, "fixed epsilon", "onset (epoch)"),
        *("half of standard accuracy (epoch)", "clean"),
    )
    return markdown(rows, headers) if rows else ""
