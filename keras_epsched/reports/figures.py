"""What all figures share: canvas, colours, axes of epsilon, and files."""

import functools
import io
import os
import pathlib
from collections.abc import Sequence

from keras_epsched import files
from keras_epsched.epsilons import format_epsilon, pixel_levels

Paths = str | os.PathLike | Sequence[str | os.PathLike]

# Okabe and Ito's colours, which the colour-blind can tell apart, without the
# yellow that vanishes on white.
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
    # Not `pyplot`, whose global state keeps every figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    # Notebooks ask for it.
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
            `None` to save nothing. Folders are created if need be.

    Raises:
        ValueError: If a path ends in anything else.
    """
    if path is None:
        return
    given = [path] if isinstance(path, (str, os.PathLike)) else path
    paths = [pathlib.Path(one) for one in given]
    for one in paths:
        if one.suffix not in (".png", ".svg"):
            raise ValueError(
                "A figure is saved as `.png` or `.svg`, by the ending of its "
                f"path. Received: {str(one)!r}"
            )
    for one in paths:
        with files.written_whole(one) as temporary:
            figure.savefig(temporary, dpi=150)


def color(index: int) -> str:
    """Returns the colour of the curve with this number."""
    return _COLORS[index % len(_COLORS)]


def line_style(index: int) -> str:
    """Returns a line style that changes when the colours start again."""
    return ("-", "--", "-.", ":")[index // len(_COLORS) % 4]


def epsilon_ticks(axis, end: float, max_ticks: int, norm: str) -> None:
    """Puts ticks at whole multiples of 1/255, if the axis ends at one.

    Other axes, and those that end above 16/255, keep decimals.

    Args:
        axis: A `matplotlib` axis.
        end: Float, the largest epsilon shown.
        max_ticks: Int, how many ticks fit.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
    """
    levels = pixel_levels(end) if norm == "linf" else None
    if not levels or levels > _MAX_LEVELS:
        return
    step = -(-levels // (max_ticks - 1))
    step = next((s for s in (step, step + 1) if levels % s == 0), step)
    # Counted from the end, so that it always has a tick; where the steps do
    # not meet 0, the tick that would touch it is left out.
    ticks = [k for k in range(levels, 0, -step) if k >= step] + [0]
    axis.set_ticks(
        [k / 255 for k in ticks],
        labels=[format_epsilon(k / 255, norm) for k in ticks],
    )


def percent_limits(axes) -> None:
    """Makes the y axis start at 0 %, and end at 100 % if that is near."""
    highest = axes.dataLim.y1
    axes.set_ylim(0, 102 if highest > 60 else 1.1 * max(highest, 1))


def tidy(axes) -> None:
    """Leaves a light grid and the two axes that carry labels."""
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
