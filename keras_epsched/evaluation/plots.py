"""Plots: accuracy against epsilon, and the story of a training run."""

import textwrap
from collections.abc import Mapping

import numpy as np

from keras_epsched.epsilons import format_epsilon
from keras_epsched.evaluation import figures
from keras_epsched.evaluation.figures import Paths

_NORM_TEXT = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}

# The share of the axes' width that the text of an onset takes.
_ONSET_TEXT_WIDTH = 0.19

# Characters in a line of the legend's title: as wide as the figure.
_LEGEND_WIDTH = 76


def plot_curves(
    reports: Mapping,
    path: Paths | None = None,
    title: str | None = None,
    target_epsilon: float | None = None,
):
    """Draws accuracy against epsilon for several models.

    The legend gives each model's expected robustness, and the attack if it is
    the same for all. The band around a
    single report is the 95 % Wilson interval, so it shows the uncertainty
    from the test images; the band around a list of reports, one per seed of
    the training run, is the standard error of their mean.

    Args:
        reports: Dict from the name of a model to its `Report`, or to a list
            of `Report`s on the same grid.
        path: Optional path ending in `.png` or `.svg`, or a list of such
            paths, to which the figure is saved.
        title: Optional string.
        target_epsilon: Optional float, on the [0, 1] scale. Epsilon to mark
            by a vertical line, and upper end of the expected robustness.
            Defaults to the smallest target of the reports, marked where a
            grid goes beyond it.

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
    """Draws the curve of one report; `Report.plot` is the public door.

    Args:
        report: A `Report`.
        path: Optional path or list of paths, ending in `.png` or `.svg`.
        ax: Optional `matplotlib` axes. Defaults to those of a new figure.
        label: Optional string for the legend. Defaults to the model's name.
        **kwargs: Passed on to `Axes.plot`.

    Returns:
        The `matplotlib` axes.
    """
    if ax is None:
        figure = figures.new_figure(6.4, 4.0)
        ax = figure.add_subplot()
        # A notebook shows the value of a cell: axes alone would be text.
        ax._repr_png_ = figure._repr_png_
    name = _plain(label or report.model_name or "model")
    expected = _expected_text([report], report.target_epsilon)
    kwargs["label"] = f"{name}: expected robustness {expected}"
    _draw_curve(ax, [report], len(ax.get_lines()), **kwargs)
    _label_curve_axes(ax, report.norm)
    ax.legend(frameon=False)
    figures.save_figure(ax.figure, path)
    return ax


def plot_training_story(
    arms: Mapping[str, Mapping],
    path: Paths | None = None,
    title: str | None = None,
    chance: float | None = None,
    onset_threshold: float | None = None,
):
    """Draws validation accuracy and epsilon against epochs, arm by arm.

    It shows what a schedule changes: the epoch from which a run begins to
    adapt to its task (the onset), and the epsilon it trained with meanwhile.

    Reference:
    - [Ngnawé et al., 2026](https://arxiv.org/abs/2509.23325), section 4

    Args:
        arms: Dict from the name of a run to a dict with equally long lists
            `"epoch"`, `"val_accuracy"` (clean, fractions) and `"epsilon"`
            (on the [0, 1] scale), and with `"onset"`, the epoch at which
            task adaptation begins, or `None` if it never did.
        path: Optional path ending in `.png` or `.svg`, or a list of such
            paths, to which the figure is saved.
        title: Optional string.
        chance: Optional float, the accuracy of guessing, to be marked.
        onset_threshold: Optional float, the accuracy that defines the
            onset, to be marked.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there is no arm, or the lists of one differ in length.

    Example:
    ```python
    plot_training_story(
        {
            "fixed": {
                "epoch": [0, 1, 2],
                "val_accuracy": [0.01, 0.01, 0.20],
                "epsilon": [4 / 255, 4 / 255, 4 / 255],
                "onset": 2,
            },
        },
        path="story.png",
        chance=1 / 100,
    )
    ```
    """
    _check_arms(arms)
    figure = figures.new_figure(6.8, 5.6)
    top, bottom = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (2.4, 1)}
    )
    for index, (name, arm) in enumerate(arms.items()):
        # Runs share values of epsilon, so each has its own line style too.
        style = {
            "color": figures.color(index),
            "linestyle": ("-", "--", "-.", ":")[index % 4],
            "linewidth": 1.8,
        }
        accuracy = 100 * np.asarray(arm["val_accuracy"], "float64")
        label = f"{name} (no onset)" if arm["onset"] is None else name
        top.plot(arm["epoch"], accuracy, label=label, **style)
        bottom.plot(arm["epoch"], arm["epsilon"], **style)
    figures.percent_limits(top)
    for value, text, line in (
        (chance, "chance", ":"),
        (onset_threshold, "onset threshold", "--"),
    ):
        if value is not None:
            label = f"{text} ({100 * value:.3g} %)"
            style = {"color": "0.5", "linewidth": 1, "linestyle": line}
            top.axhline(100 * value, label=label, **style)
    top.set_ylabel("clean validation\naccuracy (%)")
    bottom.set_xlabel("epoch")
    bottom.xaxis.get_major_locator().set_params(integer=True)
    bottom.set_ylabel("training $\\epsilon$\n([0, 1] scale)")
    end = float(bottom.dataLim.y1)
    figures.epsilon_ticks(bottom.yaxis, end, 5, "linf")
    bottom.set_ylim(-0.06 * (end or 1), 1.1 * (end or 1))
    for axes in top, bottom:
        figures.tidy(axes)
    _mark_onsets(top, arms)
    figure.suptitle(title or "")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figures.save_figure(figure, path)
    return figure


def _check_groups(groups: Mapping[str, list]) -> str:
    """Returns the norm that all reports share."""
    norms = {report.norm for group in groups.values() for report in group}
    if not all(groups.values()) or len(norms) != 1:
        raise ValueError(
            "`reports` must name at least one report each, all of the same "
            f"norm. Received names {list(groups)} and norms {sorted(norms)}."
        )
    for name, group in groups.items():
        grids = {tuple(report.epsilons.tolist()) for report in group}
        if len(grids) != 1:
            raise ValueError(
                f"The reports of {name!r} must share one grid of epsilons, "
                "since their accuracies are averaged. "
                f"Received grids: {sorted(grids)}"
            )
    return norms.pop()


def _plain(name: str) -> str:
    """A name as Matplotlib shows it, neither hidden nor as a formula."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _expected_text(group, target: float) -> str:
    """Expected robustness in words; over seeds, with its standard error."""
    values = np.array(
        [100 * r.expected_robustness(target_epsilon=target) for r in group]
    )
    if len(group) == 1:
        return f"{values[0]:.1f} %"
    error = _standard_error(values)
    return f"{values.mean():.1f} ± {error:.1f} % ({len(group)} seeds)"


def _draw_curve(axes, group, index: int, **kwargs) -> None:
    epsilons = group[0].epsilons
    curves = np.array([report.accuracy for report in group])
    if len(group) == 1:
        band = [group[0].accuracy_interval(epsilon) for epsilon in epsilons]
        low, high = np.transpose(band)
    else:
        error = _standard_error(curves)
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


def _standard_error(values: np.ndarray) -> np.ndarray:
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def _label_curve_axes(axes, norm: str) -> None:
    axes.set_xlabel(
        f"perturbation $\\epsilon$ ({_NORM_TEXT[norm]}, pixels in [0, 1])"
    )
    axes.set_ylabel("accuracy (%)")
    figures.epsilon_ticks(axes.xaxis, float(axes.dataLim.x1), 9, norm)
    figures.percent_limits(axes)
    figures.tidy(axes)


def _check_arms(arms: Mapping[str, Mapping]) -> None:
    if not arms:
        raise ValueError("`arms` must name at least one run. Received none.")
    keys = ("epoch", "val_accuracy", "epsilon")
    for name, arm in arms.items():
        missing = [key for key in (*keys, "onset") if key not in arm]
        lengths = {key: len(arm[key]) for key in keys if key in arm}
        if missing or len(set(lengths.values())) != 1 or not lengths["epoch"]:
            raise ValueError(
                f"The arm {name!r} must hold equally long lists {keys} of at "
                "least one epoch, and 'onset'. "
                f"Received lengths {lengths}, missing {missing}."
            )


def _mark_onsets(axes, arms: Mapping[str, Mapping]) -> None:
    """A vertical line at each onset, its text in a free row above the axes."""
    low, high = axes.get_xlim()
    onsets = [arm["onset"] for arm in arms.values()]
    row_ends = []
    for onset, index in sorted(
        (onset, index)
        for index, onset in enumerate(onsets)
        if onset is not None
    ):
        # Lines at the same epoch take turns, dash by dash.
        turns, turn = onsets.count(onset), onsets[:index].count(onset)
        dashes = (4 * turn, (4, 4 * max(turns - 1, 1)))
        color = figures.color(index)
        axes.axvline(onset, color=color, linewidth=1.2, linestyle=dashes)
        start = (onset - low) / (high - low)
        fits = start + _ONSET_TEXT_WIDTH <= 1
        if not fits:
            start -= _ONSET_TEXT_WIDTH
        row = next(
            (row for row, end in enumerate(row_ends) if end <= start),
            len(row_ends),
        )
        row_ends[row : row + 1] = [start + _ONSET_TEXT_WIDTH]
        axes.annotate(
            f"onset: epoch {onset}",
            (onset, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3 + 12 * row),
            textcoords="offset points",
            ha="left" if fits else "right",
            color=color,
            fontsize="small",
        )
