"""What an epsilon is: its norm, scale, check, text, and the grid of them."""

import math

import numpy as np

NORMS = ("linf", "l2", "l1")

# Relative tolerance within which an epsilon that passed through float32, as
# a logged variable does, is still the same epsilon.
SAME_EPSILON = 1e-6
# The paper's curves step by 1/255 and end at 16/255; a longer grid at that
# step costs more attacks than its integral gains.
_MAX_LEVELS = 16
_EVEN_POINTS = 9
# Tighter than for printing: a target that is only nearly k/255 would leave
# the last step of the grid shorter or longer than the others.
_GRID_TOLERANCE = 1e-9


def check_norm(norm: str) -> str:
    """Returns `norm` if it names a norm that this package knows.

    Args:
        norm: String. One of `"linf"`, `"l2"` and `"l1"`.

    Returns:
        `norm`, unchanged.

    Raises:
        ValueError: If `norm` is anything else.

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
    """Returns `epsilon` as a `float` if it can be a perturbation size.

    Every public function that takes an epsilon calls it, so that the usual
    mistake, pixel levels (`8`) for the [0, 1] scale (`8 / 255`), is caught
    where it is made.

    Args:
        epsilon: Float. Radius of the perturbation, on the [0, 1] scale.
        norm: String. One of `"linf"`, `"l2"` and `"l1"`. Only an l-infinity
            radius is bounded by 1, the width of the pixel range.
            Defaults to `"linf"`.
        name: String. What the caller names the value, for the message.
            Defaults to `"epsilon"`.

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
            f"`{name}` is on the [0, 1] scale, whatever the pixel range of "
            "the model, so for the l-infinity norm it is at most 1. "
            f"Received: {name}={value:g}. If it counts pixel levels, divide "
            f"by 255: `{name}={value:g}/255`."
        )
    return value


def pixel_levels(epsilon: float, tolerance: float = SAME_EPSILON) -> int | None:
    """Returns `k` when `epsilon` is `k / 255`, a whole number of levels.

    Args:
        epsilon: Float. An l-infinity radius on the [0, 1] scale.
        tolerance: Float, relative. Defaults to 1e-6, which forgives the
            rounding of float32.

    Returns:
        An `int`, or `None` when `epsilon` is no whole multiple of 1/255.

    Example:
    >>> pixel_levels(8 / 255)
    8
    """
    levels = round(epsilon * 255)
    if math.isclose(epsilon * 255, levels, rel_tol=tolerance):
        return levels
    return None


def format_epsilon(epsilon: float, norm: str = "linf") -> str:
    """Returns the text by which tables and axes name an epsilon.

    Args:
        epsilon: Float. Perturbation radius on the [0, 1] scale.
        norm: String. `"linf"`, `"l2"` or `"l1"`; only l-infinity radii are
            counted in pixel levels. Defaults to `"linf"`.

    Returns:
        A string: `"k/255"` for a whole multiple of 1/255 that is not a tenth
        as well, as 0.2 is, else four digits.

    Example:
    >>> format_epsilon(4 / 255), format_epsilon(0.2), format_epsilon(0)
    ('4/255', '0.2', '0')
    """
    levels = pixel_levels(epsilon) if norm == "linf" else None
    # No multiple of 1/255 but 0.2, 0.4 and so on is one of 1/10.
    levels = levels if levels and levels % 51 else None
    return f"{levels}/255" if levels else f"{epsilon:.4g}"


def epsilon_grid(
    target_epsilon: float, num: int | None = None, norm: str = "linf"
) -> np.ndarray:
    """Epsilons from 0 to `target_epsilon` at which to measure accuracy.

    Expected robustness is an integral over this grid. The default is the
    paper's: steps of 1/255, so 5 points for 4/255 and 9 points for 8/255.

    Reference:

    - [Ngnawé et al., 2026](https://arxiv.org/abs/2509.23325), appendix A

    Args:
        target_epsilon: Float. The largest epsilon, on the [0, 1] scale,
            above 0. A whole multiple of 1/255 up to 16/255 gives steps of
            1/255; any other l-infinity target gives 9 even points.
        num: Optional int, at least 2. Number of even points, both ends
            included, instead of the default. Required for `"l2"` and `"l1"`,
            where no step is customary.
        norm: String. One of `"linf"`, `"l2"` and `"l1"`.
            Defaults to `"linf"`.

    Returns:
        A float64 array that ascends from exactly 0 to exactly
        `target_epsilon`.

    Raises:
        ValueError: If `target_epsilon` is 0 or no epsilon, if `num` is not a
            whole number of at least 2, or if it is missing for `"l2"` and
            `"l1"`.

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
            "points. For clean accuracy alone use `Model.evaluate`."
        )
    if num is None:
        num = _default_points(target_epsilon, norm)
    elif isinstance(num, bool) or num != int(num) or num < 2:
        raise ValueError(
            "`num` must be a whole number of at least 2 (0 and the target "
            f"are both in the grid). Received: num={num!r}"
        )
    grid = np.linspace(0.0, target_epsilon, int(num), dtype="float64")
    if (
        norm == "linf"
        and pixel_levels(target_epsilon, _GRID_TOLERANCE) == num - 1
    ):
        # Rounded as `k / 255` is, so that `epsilon == 2 / 255` holds.
        grid[:-1] = np.arange(num - 1) / 255
    return grid


def _default_points(target_epsilon: float, norm: str) -> int:
    if norm != "linf":
        raise ValueError(
            f'`num` is required for norm="{norm}": only l-infinity has a '
            "customary step, 1/255. Pass the number of points, for example "
            f'`epsilon_grid({target_epsilon:g}, num=9, norm="{norm}")`.'
        )
    levels = pixel_levels(target_epsilon, _GRID_TOLERANCE)
    if levels is not None and levels <= _MAX_LEVELS:
        return levels + 1
    return _EVEN_POINTS
