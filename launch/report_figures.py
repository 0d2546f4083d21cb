"""Pictures of the results of a study."""

import itertools

import numpy as np
import report_tables

_ARMS = report_tables.ARMS


def draw(frame, folder, name):
    """Draws what the results have cells for.

    Args:
        frame: Results, see `report_tables.read`.
        folder: Where the pictures go, as `NAME_KIND.png` and `.svg`.
        name: The name of the study.

    Returns:
        A dict from the kinds of pictures to names of files.
    """
    kinds = {
        "transfer": transfer,
        "delay": delay,
        "curves": curves,
        "aggregates": aggregates,
        "trade_offs": trade_offs,
    }
    drawn = {}
    for kind, function in kinds.items():
        figure = function(frame)
        if figure is None:
            continue
        from keras_epsched.reports import figures

        paths = [folder / f"{name}_{kind}.{end}" for end in ("png", "svg")]
        figures.save_figure(figure, paths)
        drawn[kind] = paths[0].name
    return drawn


def _panels(frame, width=3.6, height=3.2):
    """A figure with axes for each task."""
    from keras_epsched.reports import figures

    groups = [group for _, group in frame.groupby("task", sort=False)]
    columns = min(len(groups), 4)
    rows = -(-len(groups) // columns)
    figure = figures.new_figure(max(width * columns, 5.0), height * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for spare in axes[len(groups) :]:
        spare.set_axis_off()
    return figure, list(zip(axes, groups, strict=False))


def _style(index):
    from keras_epsched.reports import figures

    return {
        "color": figures.color(index),
        "linestyle": figures.line_style(index),
        "marker": "o",
        "markersize": 4,
        "linewidth": 1.8,
        "capsize": 3,
    }


def _against_epsilon(axes, group, arm, measure, scale, shift=0.0):
    """Means and standard errors of one arm against its epsilons."""
    chosen = group[group["schedule"] == arm].groupby("epsilon")[measure]
    if not len(chosen):
        return
    means = chosen.mean()
    errors = (chosen.std(ddof=1) / np.sqrt(chosen.count())).fillna(0.0)
    axes.errorbar(
        means.index + shift,
        scale * means,
        scale * errors,
        label=arm,
        **_style(_ARMS.index(arm)),
    )


def _finish(figure, placed, frame):
    from keras_epsched.reports import figures

    more = [
        key
        for key in report_tables.varying(frame)
        if key not in ("dataset", "backbone", "epsilon")
    ]
    handles = {}
    for axes, group in placed:
        names = {
            key: report_tables.name_of(group[key].iloc[0])
            for key in ("backbone", "dataset", *more)
        }
        title = f"{names['backbone']} on {names['dataset']}"
        axes.set_title(
            "\n".join([title, *(f"{key} {names[key]}" for key in more)]),
            fontsize="small",
        )
        axes.set_xlabel("target $\\epsilon$")
        norm = group["norm"].iloc[0]
        end = float(group["epsilon"].max())
        figures.epsilon_ticks(axes.xaxis, end, 5, norm)
        figures.tidy(axes)
        for handle, label in zip(
            *axes.get_legend_handles_labels(), strict=True
        ):
            handles[label] = handle
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
    )
    return figure


def _of_several_epsilons(frame):
    chosen = frame[frame["schedule"].isin(_ARMS)]
    if chosen["epsilon"].nunique() < 2 or "fixed" not in set(
        chosen["schedule"]
    ):
        return None
    return chosen


def transfer(frame):
    """Figure 1: clean accuracy against the target epsilon."""
    from keras_epsched.reports import figures

    chosen = _of_several_epsilons(frame)
    if chosen is None:
        return None
    figure, placed = _panels(chosen)
    for axes, group in placed:
        for arm in _ARMS:
            _against_epsilon(axes, group, arm, "clean", 100)
        figures.percent_limits(axes)
        axes.set_ylabel("clean accuracy (%)")
    return _finish(figure, placed, chosen)


def delay(frame):
    """Figure 3: epochs until half of the standard accuracy is reached."""
    chosen = _of_several_epsilons(frame)
    if chosen is None or chosen["half"].isna().all():
        return None
    figure, placed = _panels(chosen)
    for axes, group in placed:
        for arm in _ARMS:
            _against_epsilon(axes, group, arm, "half", 1)
        axes.set_ylim(0, None)
        axes.set_ylabel("epochs to half of\nthe standard accuracy")
    return _finish(figure, placed, chosen)


def curves(frame):
    """Figure 4: accuracy against epsilon, at each task's largest target."""
    from keras_epsched.reports import figures

    chosen = frame[frame["schedule"].isin(_ARMS)]
    if chosen.empty:
        return None
    largest = chosen.groupby("task")["epsilon"].transform("max")
    chosen = chosen[chosen["epsilon"] == largest]
    figure, placed = _panels(chosen)
    for axes, group in placed:
        for arm in _ARMS:
            rows = group[group["schedule"] == arm]
            if rows.empty:
                continue
            values = 100 * np.stack(rows["accuracy"])
            mean = values.mean(axis=0)
            style = _style(_ARMS.index(arm))
            del style["capsize"]
            (line,) = axes.plot(
                rows["epsilons"].iloc[0], mean, label=arm, **style
            )
            if len(values) > 1:
                error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
                axes.fill_between(
                    rows["epsilons"].iloc[0],
                    mean - error,
                    mean + error,
                    color=line.get_color(),
                    alpha=0.18,
                    linewidth=0,
                )
        figures.percent_limits(axes)
        axes.set_ylabel("accuracy (%)")
    figure = _finish(figure, placed, chosen)
    for axes, _ in placed:
        axes.set_xlabel("$\\epsilon$ of the evaluation")
    return figure


def aggregates(frame):
    """Figure 5: the arms' means over the cells that all of them have."""
    from keras_epsched.reports import figures

    chosen = frame[frame["schedule"].isin(_ARMS)]
    arms = chosen.groupby("setting")["schedule"].transform("nunique")
    chosen = chosen[arms == len(_ARMS)]
    if chosen.empty or chosen["setting"].nunique() < 2:
        return None
    epsilons = sorted(chosen["epsilon"].unique())
    figure = figures.new_figure(max(2.6 * len(epsilons) + 1.0, 5.0), 3.6)
    panels = figure.subplots(1, len(epsilons), squeeze=False, sharey=True)[0]
    for axes, epsilon in zip(panels, epsilons, strict=True):
        group = chosen[chosen["epsilon"] == epsilon]
        for index, arm in enumerate(_ARMS):
            rows = group[group["schedule"] == arm]
            cells = rows.groupby("setting")[list(report_tables.MEASURES)].mean()
            if cells.empty:
                continue
            places = np.arange(3) + 0.27 * (index - 1)
            axes.bar(
                places,
                100 * cells.mean(),
                0.25,
                label=arm,
                color=figures.color(index),
            )
        axes.set_xticks(range(3), ("clean", "at\ntarget", "expected"))
        axes.set_title(
            f"$\\epsilon$ = {report_tables.epsilon_text(epsilon)}",
            fontsize="small",
        )
        figures.tidy(axes)
    panels[0].set_ylabel("mean over cells (%)")
    panels[0].set_ylim(0, 100)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
    )
    return figure


def trade_offs(frame):
    """Expected robustness against clean accuracy, for each objective.

    A panel for each setting that differs in more than objective and schedule.
    """
    if frame["objective"].nunique() < 2:
        return None
    from keras_epsched.reports import figures

    keys = [k for k in report_tables.varying(frame) if k != "objective"]
    # Objectives of one setting belong into one panel.
    together = frame.assign(
        task=list(frame[keys].astype(str).itertuples(index=False, name=None))
    )
    figure, panels = _panels(together, width=4.4, height=3.6)
    objectives = sorted(set(frame["objective"]))
    schedules = sorted(set(frame["schedule"]), key=report_tables.schedule_order)
    markers = dict(zip(schedules, itertools.cycle("os^DvP*X"), strict=False))
    colors = {
        name: figures.color(index) for index, name in enumerate(objectives)
    }
    for axes, group in panels:
        for (objective, schedule), runs in group.groupby(
            ["objective", "schedule"], sort=False
        ):
            axes.errorbar(
                100 * runs["clean"].mean(),
                100 * runs["expected_robustness"].mean(),
                xerr=_error(100 * runs["clean"]),
                yerr=_error(100 * runs["expected_robustness"]),
                color=colors[objective],
                marker=markers[schedule],
                markersize=7,
                elinewidth=0.8,
                linestyle="",
            )
        first = group.iloc[0]
        epsilon = report_tables.epsilon_text(first["epsilon"])
        axes.set_title(
            f"{report_tables.name_of(first['backbone'])} on "
            f"{report_tables.name_of(first['dataset'])}, {epsilon}",
            fontsize=9,
        )
        axes.set_xlabel("clean accuracy (%)")
        axes.set_ylabel("expected robustness (%)")
        axes.grid(alpha=0.3)
    axes = panels[0][0]
    for name in objectives:
        axes.plot([], [], linewidth=5, color=colors[name], label=name)
    for name in schedules:
        axes.plot([], [], markers[name], color="0.4", label=name)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _error(values):
    """The standard error, of one value none."""
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
