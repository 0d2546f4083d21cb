"""Pictures of accuracy against epsilon."""

import textwrap
from collections.abc import Mapping

import numpy as np

from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports import figures
from keras_epsched.reports.figures import Paths
from keras_epsched.reports.statistics import standard_error

_NORM_TEXT = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}

# Characters that fit into one line of the legend's title.
_LEGEND_WIDTH = 76


def plot_curves(
    reports: Mapping,
    path: Paths | None = None,
    title: str | None = None,
    target_epsilon: float | None = None,
):
    """Draws accuracy against epsilon for several models.

    The legend gives the expected robustness of each model. It names the
    attack if all models were measured with the same one.

    A single report is drawn with its 95 % Wilson intervals, which show the
    uncertainty from the test images. A list of reports, one per training
    seed, is drawn as the mean with its standard error over the seeds.

    Args:
        reports: Dict from the name of a model to its `Report`, or to a list
            of `Report`s on the same grid.
        path: Optional path, or list of paths, that ends in `.png` or `.svg`.
            The figure is saved there.
        title: Optional string, the title of the figure.
        target_epsilon: Optional float, on the [0, 1] scale: the upper end of
            expected robustness, marked with a vertical line. Defaults to the
            smallest `target_epsilon` of the reports, marked only if a grid
            has larger epsilons.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there is no report, if the reports of one name have
            different grids, or if reports differ in norm.

    Example:
    ```python
    plot_curves(
        {"fixed": fixed, "scheduled": [seed_0, seed_1, seed_2]},
        path=["curves.png", "curves.svg"],
        target_epsilon=4 / 255,
    )
    ```
    """
    groups = {
        name: list(group) if isinstance(group, (list, tuple)) else [group]
        for name, group in reports.items()
    }
    norm = _check_groups(groups)
    if target_epsilon is None:
        marked = any(
            group[0].target_epsilon < group[0].epsilons[-1]
            for group in groups.values()
        )
        target = min(group[0].target_epsilon for group in groups.values())
    else:
        marked, target = True, target_epsilon
    figure = figures.new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    for index, (name, group) in enumerate(groups.items()):
        label = f"{_plain(name)}: {_expected_text(group, target)}"
        _draw_curve(axes, group, index, label=label)
    _label_curve_axes(axes, norm)
    if marked:
        axes.axvline(target, color="0.5", linewidth=1, zorder=0)
        axes.annotate(
            f"target {format_epsilon(target, norm)}",
            (target, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color="0.35",
            fontsize="small",
        )
    figure.suptitle(title or "")
    measured = f"expected robustness on [0, {format_epsilon(target, norm)}]"
    attacks = {r.attack_title for group in groups.values() for r in group}
    if len(attacks) == 1:
        attack = _plain(f"under {attacks.pop()}")
        measured += f"\n{textwrap.fill(attack, _LEGEND_WIDTH)}"
    legend = figure.legend(
        loc="outside lower center", frameon=False, title=measured
    )
    legend.get_title().set_multialignment("center")
    figures.save_figure(figure, path)
    return figure


def plot_report(
    report,
    path: Paths | None = None,
    ax=None,
    label: str | None = None,
    **kwargs,
):
    """Draws the curve of one report. The public method is `Report.plot`.

    Args:
        report: A `Report`.
        path: Optional path or list of paths, ending in `.png` or `.svg`.
        ax: Optional `matplotlib` axes. Defaults to the axes of a new figure.
        label: Optional string for the legend. Defaults to the model's name.
        **kwargs: Passed on to `Axes.plot`.

    Returns:
        The `matplotlib` axes.
    """
    if ax is None:
        figure = figures.new_figure(6.4, 4.0)
        ax = figure.add_subplot()
        # A notebook shows axes as text. With this method it shows a picture.
        ax._repr_png_ = figure._repr_png_
    name = _plain(label or report.model_name or "model")
    expected = _expected_text([report], report.target_epsilon)
    kwargs["label"] = f"{name}: expected robustness {expected}"
    _draw_curve(ax, [report], len(ax.get_lines()), **kwargs)
    _label_curve_axes(ax, report.norm)
    ax.legend(frameon=False)
    figures.save_figure(ax.figure, path)
    return ax


def _check_groups(groups: Mapping[str, list]) -> str:
    """Returns the norm that all reports share."""
    norms = {report.norm for group in groups.values() for report in group}
    if not all(groups.values()) or len(norms) != 1:
        raise ValueError(
            "`reports` must have at least one report for each name, and all "
            "reports must have the same norm. Received: names "
            f"{list(groups)} and norms {sorted(norms)}"
        )
    for name, group in groups.items():
        grids = {tuple(report.epsilons.tolist()) for report in group}
        if len(grids) != 1:
            raise ValueError(
                f"The reports of {name!r} must share one grid of epsilons, "
                "because their accuracies are averaged. "
                f"Received: the grids {sorted(grids)}"
            )
    return norms.pop()


def _plain(name: str) -> str:
    """A name that Matplotlib neither hides nor reads as a formula."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _expected_text(group, target: float) -> str:
    """Expected robustness as text, for several seeds with standard error."""
    values = np.array(
        [100 * r.expected_robustness(target_epsilon=target) for r in group]
    )
    if len(group) == 1:
        return f"{values[0]:.1f} %"
    error = standard_error(values)
    return f"{values.mean():.1f} ± {error:.1f} % ({len(group)} seeds)"


def _draw_curve(axes, group, index: int, **kwargs) -> None:
    epsilons = group[0].epsilons
    curves = np.array([report.accuracy for report in group])
    if len(group) == 1:
        band = [group[0].accuracy_interval(epsilon) for epsilon in epsilons]
        low, high = np.transpose(band)
    else:
        error = standard_error(curves)
        low, high = curves.mean(axis=0) - error, curves.mean(axis=0) + error
    style = {
        "color": figures.color(index),
        "linestyle": figures.line_style(index),
        "linewidth": 1.8,
        "marker": "o",
        "markersize": 4,
    }
    mean = 100 * curves.mean(axis=0)
    (line,) = axes.plot(epsilons, mean, **{**style, **kwargs})
    axes.fill_between(
        epsilons,
        100 * low,
        100 * high,
        color=line.get_color(),
        alpha=0.18,
        linewidth=0,
    )


def _label_curve_axes(axes, norm: str) -> None:
    axes.set_xlabel(
        f"perturbation $\\epsilon$ ({_NORM_TEXT[norm]}, pixels in [0, 1])"
    )
    axes.set_ylabel("accuracy (%)")
    figures.epsilon_ticks(axes.xaxis, float(axes.dataLim.x1), 9, norm)
    figures.percent_limits(axes)
    figures.tidy(axes)
