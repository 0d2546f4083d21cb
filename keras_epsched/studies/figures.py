"""Pictures of the results of a study."""

import itertools

import numpy as np
from scipy import stats

from keras_epsched.reports import figures as drawing
from keras_epsched.schedules import parse_hinges
from keras_epsched.studies import budget, layout, methods, panels

_ARMS = layout.ARMS


def draw(frame, folder, name):
    """Draws the pictures that the results have cells for.

    Args:
        frame: Results, see `results.read`.
        folder: Path of the folder for the pictures, which are called
            `NAME_KIND.png` and `NAME_KIND.svg`.
        name: String. Name of the study.

    Returns:
        A dict from the kind of each picture to the name of its PNG file.
    """
    kinds = {
        "transfer": transfer,
        "delay": delay,
        "curves": curves,
        "hinge_curves": hinge_curves,
        "aggregates": aggregates,
        "budget_curves": budget_curves,
    }
    if budget.is_all(frame):
        kinds = {"budget_curves": budget_curves}
    if methods.compares_objectives(frame):
        kinds = {"trade_offs": trade_offs}
    drawn = {}
    for kind, function in kinds.items():
        figure = function(frame)
        if figure is None:
            continue
        paths = [folder / f"{name}_{kind}.{end}" for end in ("png", "svg")]
        drawing.save_figure(figure, paths)
        drawn[kind] = paths[0].name
    return drawn


def _of_several_epsilons(frame):
    """Returns the arms in tasks of several epsilons, `None` if there are none.

    Epsilons of other tasks do not count: a picture has a panel for each task.
    """
    chosen = frame[frame["schedule"].isin(_ARMS)]
    several = chosen.groupby("task")["epsilon"].transform("nunique") > 1
    chosen = chosen[several]
    return chosen if "fixed" in set(chosen["schedule"]) else None


def transfer(frame):
    """Draws clean accuracy against the target epsilon (Figure 1)."""
    chosen = _of_several_epsilons(frame)
    if chosen is None:
        return None
    figure, placed = panels.panels(chosen)
    for axes, group in placed:
        for arm in _ARMS:
            panels.against_epsilon(axes, group, arm, "clean", 100)
        drawing.percent_limits(axes)
        axes.set_ylabel("clean accuracy (%)")
    return panels.finish(figure, placed, chosen)


def delay(frame):
    """Draws epochs until half of the standard accuracy (Figure 3)."""
    chosen = _of_several_epsilons(frame)
    if chosen is None or chosen["half"].isna().all():
        return None
    figure, placed = panels.panels(chosen)
    for axes, group in placed:
        for arm in _ARMS:
            panels.against_epsilon(axes, group, arm, "half", 1)
        panels.whole_epochs(axes)
        axes.set_ylabel("epochs to half of\nthe standard accuracy")
    return panels.finish(figure, placed, chosen)


def curves(frame):
    """Draws accuracy against epsilon, for the largest target (Figure 4)."""
    chosen = frame[frame["schedule"].isin(layout.DRAWN)]
    if chosen.empty:
        return None
    largest = chosen.groupby("task")["epsilon"].transform("max")
    chosen = chosen[chosen["epsilon"] == largest]
    figure, placed = panels.panels(chosen)
    for axes, group in placed:
        for arm in layout.DRAWN:
            rows = group[group["schedule"] == arm]
            if rows.empty:
                continue
            epsilons = rows["epsilons"].iloc[0]
            values = 100 * np.stack(rows["accuracy"])
            mean = values.mean(axis=0)
            style = panels.style(arm)
            axes.plot(epsilons, mean, label=arm, **style)
            if panels.are_shown_singly(values):
                axes.plot(
                    epsilons, values.T, color=style["color"], linewidth=0.7
                )
            elif len(values) > 1:
                error = stats.sem(values)
                axes.fill_between(
                    epsilons,
                    mean - error,
                    mean + error,
                    color=style["color"],
                    alpha=0.18,
                    linewidth=0,
                )
        drawing.percent_limits(axes)
        axes.set_ylabel("accuracy (%)")
    figure = panels.finish(figure, placed, chosen)
    for axes, _ in placed:
        axes.set_xlabel("$\\epsilon$ of the evaluation")
    return figure


def aggregates(frame):
    """Draws means of the arms over the cells that all have (Figure 5)."""
    chosen = frame[frame["schedule"].isin(_ARMS)]
    arms = chosen.groupby("setting")["schedule"].transform("nunique")
    chosen = chosen[arms == len(_ARMS)]
    if chosen.empty or chosen["setting"].nunique() < 2:
        return None
    epsilons = sorted(chosen["epsilon"].unique())
    figure = drawing.new_figure(max(2.6 * len(epsilons) + 1.0, 5.0), 3.6)
    row = figure.subplots(1, len(epsilons), squeeze=False, sharey=True)[0]
    for axes, epsilon in zip(row, epsilons, strict=True):
        group = chosen[chosen["epsilon"] == epsilon]
        for index, arm in enumerate(_ARMS):
            rows = group[group["schedule"] == arm]
            cells = rows.groupby("setting")[list(layout.MEASURES)].mean()
            if cells.empty:
                continue
            places = np.arange(3) + 0.27 * (index - 1)
            axes.bar(
                places,
                100 * cells.mean(),
                0.25,
                label=arm,
                color=drawing.color(index),
            )
        axes.set_xticks(range(3), ("clean", "at\ntarget", "expected"))
        axes.set_title(
            f"$\\epsilon$ = {layout.epsilon_text(epsilon)}",
            fontsize="small",
        )
        drawing.tidy(axes)
    row[0].set_ylabel("mean over cells (%)")
    row[0].set_ylim(0, 100)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
    )
    return figure


def hinge_curves(frame):
    """Draws expected robustness against the end of the ramp, by its start."""
    hinges = {
        name: parse_hinges(name)
        for name in set(frame["schedule"])
        if ":" in name and ";" not in name
    }
    if len(hinges) < 2:
        return None
    settings = set(frame[frame["schedule"].isin(hinges)]["setting"])
    chosen = frame[frame["setting"].isin(settings)]
    # A panel shows one epsilon.
    chosen = chosen.assign(task=chosen["setting"])
    figure, placed = panels.panels(chosen, width=5.0)
    starts = sorted({start for start, _ in hinges.values()})
    for axes, group in placed:
        expected = 100 * group["expected_robustness"]
        for index, start in enumerate(starts):
            ends = group["schedule"].map(
                {name: end for name, (at, end) in hinges.items() if at == start}
            )
            found = expected.groupby(ends)
            axes.errorbar(
                found.mean().index,
                found.mean(),
                found.agg(panels.error),
                label=f"ramp starts at {start:g}",
                capsize=3,
                marker="o",
                color=drawing.color(index),
            )
            for end, values in found:
                if panels.are_shown_singly(values):
                    panels.single_seeds(axes, end, values, drawing.color(index))
        for arm, line in (("fixed", ":"), ("scheduled", "--")):
            mean = expected[group["schedule"] == arm].mean()
            if np.isfinite(mean):
                axes.axhline(mean, color="0.3", linestyle=line, label=arm)
        panels.entitle(axes, group, frame)
        epsilon = layout.epsilon_text(group["epsilon"].iloc[0])
        axes.set_title(f"{axes.get_title()}, {epsilon}", fontsize="small")
        drawing.percent_limits(axes)
        drawing.tidy(axes)
        axes.set_xlabel("end of the ramp (share of the training)")
        axes.set_ylabel("expected robustness (%)")
    panels.legend(figure, placed, columns=2)
    return figure


def trade_offs(frame):
    """Draws expected robustness against clean accuracy, by objective.

    There is a panel for each setting that differs in more than objective and
    schedule.
    """
    keys = [k for k in layout.varying(frame) if k != "objective"]
    # A panel shows all objectives of a setting.
    together = frame.assign(
        task=list(frame[keys].astype(str).itertuples(index=False, name=None))
    )
    figure, placed = panels.panels(together, width=4.4, height=3.6)
    objectives = sorted(set(frame["objective"]))
    schedules = sorted(set(frame["schedule"]), key=layout.schedule_order)
    markers = dict(zip(schedules, itertools.cycle("os^DvP*X"), strict=False))
    colors = {
        name: drawing.color(index) for index, name in enumerate(objectives)
    }
    for axes, group in placed:
        for (objective, schedule), runs in group.groupby(
            ["objective", "schedule"], sort=False
        ):
            clean = 100 * runs["clean"]
            expected = 100 * runs["expected_robustness"]
            if panels.are_shown_singly(clean):
                panels.single_seeds(axes, clean, expected, colors[objective])
            axes.errorbar(
                clean.mean(),
                expected.mean(),
                xerr=panels.error(clean),
                yerr=panels.error(expected),
                color=colors[objective],
                marker=markers[schedule],
                markersize=7,
                elinewidth=0.8,
                linestyle="",
            )
        first = group.iloc[0]
        epsilon = layout.epsilon_text(first["epsilon"])
        axes.set_title(
            f"{layout.name_of(first['backbone'])} on "
            f"{layout.name_of(first['dataset'])}, {epsilon}",
            fontsize=9,
        )
        axes.set_xlabel("clean accuracy (%)")
        axes.set_ylabel("expected robustness (%)")
        axes.grid(alpha=0.3)
    axes = placed[0][0]
    for name in objectives:
        axes.plot([], [], linewidth=5, color=colors[name], label=name)
    for name in schedules:
        axes.plot([], [], markers[name], color="0.4", label=name)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def budget_curves(frame):
    """Draws expected robustness against the cost, by steps of the attack."""
    found = budget.trainings(frame)
    if found is None:
        return None
    # A panel shows one schedule.
    figure, placed = panels.panels(found.assign(task=found["place"]), width=4.4)
    counts = sorted(found["train_steps"].unique())
    for axes, group in placed:
        for index, steps in enumerate(counts):
            line = group[group["train_steps"] == steps].sort_values("cost")
            name = "expected_robustness"
            axes.errorbar(
                line["cost"],
                100 * line[name],
                [100 * panels.error(rows[name]) for rows in line["rows"]],
                label="1 step" if steps == 1 else f"{steps} steps",
                capsize=3,
                marker="o",
                color=drawing.color(index),
            )
            for each in line.itertuples():
                if panels.are_shown_singly(each.rows):
                    panels.single_seeds(
                        axes,
                        each.cost,
                        100 * each.rows[name],
                        drawing.color(index),
                    )
        first = group.iloc[0]
        epsilon = layout.epsilon_text(first["epsilon"])
        axes.set_title(
            f"{layout.name_of(first['backbone'])} on "
            f"{layout.name_of(first['dataset'])}, {epsilon}, "
            f"{first['schedule']}",
            fontsize="small",
        )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        drawing.tidy(axes)
        axes.set_xlabel("cost (epochs of plain training)")
        axes.set_ylabel("expected robustness (%)")
    panels.legend(figure, placed, columns=4)
    return figure
