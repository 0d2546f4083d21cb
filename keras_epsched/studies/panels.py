"""Panels, styles, error bars and legends of the pictures of a study."""

import numpy as np
from scipy import stats

from keras_epsched.reports import figures as drawing
from keras_epsched.studies import layout


def panels(frame, width=3.6, height=3.2):
    """Returns a figure, and a pair of axes and rows for each task."""
    groups = [group for _, group in frame.groupby("task", sort=False)]
    # Labels must be legible in a page that is as wide as two or three panels.
    columns = min(len(groups), 2 if len(groups) <= 4 else 3)
    rows = -(-len(groups) // columns)
    figure = drawing.new_figure(max(width * columns, 5.0), height * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for spare in axes[len(groups) :]:
        spare.set_axis_off()
    return figure, list(zip(axes, groups, strict=False))


def style(arm):
    """Returns the style of an arm, which is visible below the later arms."""
    index = layout.DRAWN.index(arm)
    return {
        "color": drawing.color(index),
        "linestyle": drawing.line_style(index),
        "marker": "so^Dv"[index],
        "markersize": (7, 5.5, 4, 3, 3)[index],
        "linewidth": (3.2, 2.2, 1.4, 1.4, 1.4)[index],
    }


def error(values):
    """Returns the standard error, not a number if there are too few values."""
    few = len(values) < layout.MIN_VALUES
    return np.nan if few else stats.sem(values)


def are_shown_singly(values):
    """Returns whether a picture shows each value, for want of an error."""
    return 1 < len(values) < layout.MIN_VALUES


def against_epsilon(axes, group, arm, measure, scale):
    """Draws means and errors of one arm against its target epsilons."""
    chosen = group[group["schedule"] == arm].groupby("epsilon")[measure]
    if not len(chosen):
        return
    means = chosen.mean()
    axes.errorbar(
        means.index,
        scale * means,
        scale * chosen.agg(error),
        label=arm,
        capsize=3,
        **style(arm),
    )
    for epsilon, values in chosen:
        if are_shown_singly(values):
            single_seeds(axes, epsilon, scale * values, style(arm)["color"])


def single_seeds(axes, x, y, color):
    """Draws a dot for each of two seeds, joined by a thin line."""
    axes.plot(
        np.broadcast_to(x, len(y)),
        y,
        linewidth=0.8,
        marker=".",
        markersize=4,
        color=color,
        zorder=1.5,
    )


def whole_epochs(axes):
    """Makes the y axis start at 0, with ticks at whole epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def entitle(axes, group, frame):
    """Sets the title of a panel: what distinguishes its task from others."""
    more = [
        key
        for key in layout.varying(frame)
        if key not in ("dataset", "backbone", "epsilon")
    ]
    names = {
        key: layout.name_of(group[key].iloc[0])
        for key in ("backbone", "dataset", *more)
    }
    title = f"{names['backbone']} on {names['dataset']}"
    axes.set_title(
        "\n".join([title, *(f"{key} {names[key]}" for key in more)]),
        fontsize="small",
    )


def finish(figure, placed, frame):
    """Adds titles, the axes of epsilon, and one legend for all panels."""
    for axes, group in placed:
        entitle(axes, group, frame)
        axes.set_xlabel("target $\\epsilon$")
        norm = group["norm"].iloc[0]
        end = float(group["epsilon"].max())
        drawing.epsilon_ticks(axes.xaxis, end, 5, norm)
        drawing.tidy(axes)
    legend(figure, placed)
    return figure


def legend(figure, placed, columns=4):
    """Adds one legend for all panels."""
    handles = {}
    for axes, _ in placed:
        for handle, label in zip(
            *axes.get_legend_handles_labels(), strict=True
        ):
            handles[label] = handle
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
