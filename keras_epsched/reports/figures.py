"""Shared parts of all figures: canvas, colours, epsilon axes, files."""

import functools
import io
import os
import pathlib
from collections.abc import Sequence

from keras_epsched import files
from keras_epsched.epsilons import format_epsilon, pixel_levels

Paths = str | os.PathLike | Sequence[str | os.PathLike]

# The colours of Okabe and Ito, which colour-blind readers can tell apart. The
# yellow is left out because it is hard to see on white.
_COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
_MAX_LEVELS = 16


def new_figure(width: float, height: float):
    """Returns an empty figure that a notebook shows as a picture.

    Args:
        width: Float, in inches.
        height: Float, in inches.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    # `pyplot` would keep every figure alive in its global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    # Notebooks call this method to show the figure.
    figure._repr_png_ = functools.partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def save_figure(figure, path: Paths | None) -> None:
    """Saves a figure to one path or several.

    Args:
        figure: A `matplotlib.figure.Figure`.
        path: A path ending in `.png` or `.svg`, a list of such paths, or
            `None` to save nothing. Missing folders are created.

    Raises:
        ValueError: If a path has another ending.
    """
    if path is None:
        return
    given = [path] if isinstance(path, (str, os.PathLike)) else path
    paths = [pathlib.Path(one) for one in given]
    for one in paths:
        if one.suffix not in (".png", ".svg"):
            raise ValueError(
                "The path of a figure must end in `.png` or `.svg`. "
                f"Received: {str(one)!r}"
            )
    for one in paths:
        with files.written_whole(one) as temporary:
            figure.savefig(temporary, dpi=150)


def color(index: int) -> str:
    """Returns the colour of curve number `index`."""
    return _COLORS[index % len(_COLORS)]


def line_style(index: int) -> str:
    """Returns the line style of curve `index`.

    The style changes each time the colours repeat.
    """
    return ("-", "--", "-.", ":")[index // len(_COLORS) % 4]


def epsilon_ticks(axis, end: float, max_ticks: int, norm: str) -> None:
    """Puts ticks at whole multiples of 1/255, if the axis ends at one.

    Other axes, and axes that end above 16/255, keep their decimal ticks.

    Args:
        axis: A `matplotlib` axis.
        end: Float, the largest epsilon shown.
        max_ticks: Int, the largest number of ticks that fit.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
    """
    levels = pixel_levels(end) if norm == "linf" else None
    if not levels or levels > _MAX_LEVELS:
        return
    step = -(-levels // (max_ticks - 1))
    step = next((s for s in (step, step + 1) if levels % s == 0), step)
    # Counting from the end gives the end a tick. A tick that would overlap
    # with the tick at 0 is left out.
    ticks = [k for k in range(levels, 0, -step) if k >= step] + [0]
    axis.set_ticks(
        [k / 255 for k in ticks],
        labels=[format_epsilon(k / 255, norm) for k in ticks],
    )


def percent_limits(axes) -> None:
    """Starts the y axis at 0 %, and ends it at 100 % if data reach 60 %."""
    highest = axes.dataLim.y1
    axes.set_ylim(0, 102 if highest > 60 else 1.1 * max(highest, 1))


def tidy(axes) -> None:
    """Draws a light grid, and only the left and bottom axes."""
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
