"""The picture of training runs: accuracy and epsilon against epochs."""

from collections.abc import Mapping

import numpy as np

from keras_epsched.reports import figures
from keras_epsched.reports.figures import Paths

# Width of the text of an onset, as a share of the width of the axes.
_ONSET_TEXT_WIDTH = 0.19


def plot_training_story(
    arms: Mapping[str, Mapping],
    path: Paths | None = None,
    title: str | None = None,
    chance: float | None = None,
    onset_threshold: float | None = None,
):
    """Draws validation accuracy and epsilon against epochs for several runs.

    Use it to see what a schedule changes. The picture shows the epoch at
    which each run begins to adapt to its task (the onset), and the epsilon
    that it trained with in each epoch.

    Reference:
    - [Ngnawé et al., 2026](https://arxiv.org/abs/2509.23325), section 4

    Args:
        arms: Dict from the name of a run to a dict with equally long lists
            `"epoch"`, `"val_accuracy"` (clean, fractions) and `"epsilon"`
            (on the [0, 1] scale), and with `"onset"`, the epoch at which
            task adaptation begins, or `None` if it never began.
        path: Optional path, or list of paths, that ends in `.png` or `.svg`.
            The figure is saved there.
        title: Optional string, the title of the figure.
        chance: Optional float, the accuracy of guessing. It is drawn as a
            horizontal line.
        onset_threshold: Optional float, the accuracy that defines the onset.
            It is drawn as a horizontal line.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there is no run, or the lists of a run differ in
            length.

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
        # Curves of epsilon may coincide, so each has its own line style too.
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


def _check_arms(arms: Mapping[str, Mapping]) -> None:
    if not arms:
        raise ValueError("`arms` must name at least one run. Received: none")
    keys = ("epoch", "val_accuracy", "epsilon")
    for name, arm in arms.items():
        missing = [key for key in (*keys, "onset") if key not in arm]
        lengths = {key: len(arm[key]) for key in keys if key in arm}
        if missing or len(set(lengths.values())) != 1 or not lengths["epoch"]:
            raise ValueError(
                f"The run {name!r} must have lists {keys} of equal length, "
                "with at least one epoch, and a value 'onset'. "
                f"Received: lengths {lengths}, missing {missing}"
            )


def _mark_onsets(axes, arms: Mapping[str, Mapping]) -> None:
    """Draws a line at each onset, and its text in a free row above."""
    low, high = axes.get_xlim()
    onsets = [arm["onset"] for arm in arms.values()]
    row_ends = []
    for onset, index in sorted(
        (onset, index)
        for index, onset in enumerate(onsets)
        if onset is not None
    ):
        # Lines at the same epoch alternate their dashes.
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
