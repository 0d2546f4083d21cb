"""Perturbation budgets: how an epsilon is checked and written, and grids."""

import math

import numpy as np

NORMS = ("linf", "l2", "l1")

# Relative tolerance of comparisons. An epsilon that was rounded to float32, as
# logged variables are, still counts as the same epsilon.
SAME_EPSILON = 1e-6
# The paper's curves have steps of 1/255 and end at 16/255. Longer grids use
# larger steps, because more points would cost more than they tell.
_MAX_LEVELS = 16
_EVEN_POINTS = 9
# Tighter than for printing. With a target that is only nearly k/255, the last
# step of the grid would have another length than the others.
_GRID_TOLERANCE = 1e-9


def check_norm(norm: str) -> str:
    """Returns `norm` if it is the name of a norm.

    Args:
        norm: String. One of `"linf"`, `"l2"` and `"l1"`.

    Returns:
        `norm`, unchanged.

    Raises:
        ValueError: If `norm` is not one of the three names.

    Example:
    >>> check_norm("l2")
    'l2'
    """
    if norm not in NORMS:
        raise ValueError(f"`norm` must be one of {NORMS}. Received: {norm!r}")
    return norm


def check_epsilon(
    epsilon: float, norm: str = "linf", name: str = "epsilon"
) -> float:
    """Returns `epsilon` as a `float` if it is a valid perturbation budget.

    Every public function that takes an epsilon calls this function. It
    detects the usual mistake: a number of pixel levels (`8`) instead of a
    value on the [0, 1] scale (`8 / 255`).

    Args:
        epsilon: Float. Perturbation budget, on the [0, 1] scale.
        norm: String. One of `"linf"`, `"l2"` and `"l1"`. An l-infinity
            budget is at most 1, the width of the pixel range. Other budgets
            may be larger. Defaults to `"linf"`.
        name: String. Name of the value in the error message. Defaults to
            `"epsilon"`.

    Returns:
        A Python `float`.

    Raises:
        ValueError: If `epsilon` is not a finite number that is at least 0
            and, for l-infinity, at most 1.

    Example:
    >>> check_epsilon(0)
    0.0
    """
    check_norm(norm)
    try:
        value = math.nan if isinstance(epsilon, str) else float(epsilon)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(epsilon, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(
            f"`{name}` must be a finite number that is at least 0. "
            f"Received: {name}={epsilon!r}"
        )
    if norm == "linf" and value > 1:
        raise ValueError(
            f"`{name}` must be at most 1 for the l-infinity norm. It is "
            "always on the [0, 1] scale, whatever the pixel range of the "
            f"model. Received: {name}={value:g}. If this is a number of pixel "
            f"levels, divide by 255: `{name}={value:g}/255`."
        )
    return value


def pixel_levels(epsilon: float, tolerance: float = SAME_EPSILON) -> int | None:
    """Returns `k` if `epsilon` is `k / 255`, a whole number of pixel levels.

    Args:
        epsilon: Float. An l-infinity budget on the [0, 1] scale.
        tolerance: Float, relative. Defaults to 1e-6, so that values rounded
            to float32 are recognised.

    Returns:
        An `int`, or `None` if `epsilon` is not a whole multiple of 1/255.

    Example:
    >>> pixel_levels(8 / 255)
    8
    """
    levels = round(epsilon * 255)
    if math.isclose(epsilon * 255, levels, rel_tol=tolerance):
        return levels
    return None


def format_epsilon(epsilon: float, norm: str = "linf") -> str:
    """Returns an epsilon as text for tables and axes.

    Args:
        epsilon: Float. Perturbation budget on the [0, 1] scale.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Only l-infinity budgets are
            written in pixel levels. Defaults to `"linf"`.

    Returns:
        A string. It is `"k/255"` for a whole multiple of 1/255, except for
        multiples of a tenth such as 0.2. All others have four digits.

    Example:
    >>> format_epsilon(4 / 255), format_epsilon(0.2), format_epsilon(0)
    ('4/255', '0.2', '0')
    """
    levels = pixel_levels(epsilon) if norm == "linf" else None
    # Multiples of 51/255 are 0.2, 0.4 and so on, which are shorter to read.
    levels = levels if levels and levels % 51 else None
    return f"{levels}/255" if levels else f"{epsilon:.4g}"


def epsilon_grid(
    target_epsilon: float, num: int | None = None, norm: str = "linf"
) -> np.ndarray:
    """Returns the epsilons at which to measure accuracy.

    Use it for the `epsilons` of `keras_epsched.evaluate`. The grid goes from 0
    to `target_epsilon`, and expected robustness is the mean accuracy over it.
    The default is the grid of the paper with steps of 1/255: 5 points for
    4/255 and 9 points for 8/255.

    Reference:

    - [Ngnawé et al., 2026](https://arxiv.org/abs/2509.23325), appendix A

    Args:
        target_epsilon: Float. The largest epsilon, on the [0, 1] scale. It
            must be above 0.
        num: Optional int, at least 2. Number of evenly spaced points,
            including both ends. By default, an l-infinity target that is a
            whole multiple of 1/255 up to 16/255 gives steps of 1/255, and any
            other l-infinity target gives 9 points. Required for `"l2"` and
            `"l1"`, which have no customary step.
        norm: String. One of `"linf"`, `"l2"` and `"l1"`.
            Defaults to `"linf"`.

    Returns:
        A float64 array of shape `(num,)` that ascends from exactly 0 to
        exactly `target_epsilon`.

    Raises:
        ValueError: If `target_epsilon` is 0 or not a valid epsilon, if `num`
            is not a whole number of at least 2, or if `num` is missing for
            `"l2"` or `"l1"`.

    Example:
    ```python
    keras_epsched.epsilon_grid(4 / 255)                   # 0, 1/255 ... 4/255
    keras_epsched.epsilon_grid(0.3)                       # 9 even points
    keras_epsched.epsilon_grid(2.0, num=5, norm="l2")     # 0, 0.5 ... 2
    ```
    """
    target_epsilon = check_epsilon(target_epsilon, norm, "target_epsilon")
    if target_epsilon == 0:
        raise ValueError(
            "`target_epsilon` must be above 0, because a grid needs two "
            "points. Received: target_epsilon=0. To measure only clean "
            "accuracy, use `Model.evaluate`."
        )
    if num is None:
        num = _default_points(target_epsilon, norm)
    elif isinstance(num, bool) or num != int(num) or num < 2:
        raise ValueError(
            "`num` must be a whole number of at least 2, because the grid "
            f"contains both 0 and the target. Received: num={num!r}"
        )
    grid = np.linspace(0.0, target_epsilon, int(num), dtype="float64")
    if (
        norm == "linf"
        and pixel_levels(target_epsilon, _GRID_TOLERANCE) == num - 1
    ):
        # The same rounding as `k / 255`, so that `epsilon == 2 / 255` holds.
        grid[:-1] = np.arange(num - 1) / 255
    return grid


def _default_points(target_epsilon: float, norm: str) -> int:
    if norm != "linf":
        raise ValueError(
            f'`num` is required for norm="{norm}", because only l-infinity '
            "has a customary step (1/255). Pass the number of points, for "
            f'example `epsilon_grid({target_epsilon:g}, num=9, norm="{norm}")`.'
        )
    levels = pixel_levels(target_epsilon, _GRID_TOLERANCE)
    if levels is not None and levels <= _MAX_LEVELS:
        return levels + 1
    return _EVEN_POINTS
