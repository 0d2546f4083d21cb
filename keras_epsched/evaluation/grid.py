"""The grid of epsilons at which a curve of robustness is measured."""

import numpy as np

from keras_epsched.epsilons import check_epsilon, pixel_levels

# The paper's curves step by 1/255 and end at 16/255; a longer grid at that
# step costs more attacks than its integral gains.
_MAX_LEVELS = 16
_EVEN_POINTS = 9
# Tighter than for printing: a target that is only nearly k/255 would leave
# the last step of the grid shorter or longer than the others.
_TOLERANCE = 1e-9


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
    if norm == "linf" and pixel_levels(target_epsilon, _TOLERANCE) == num - 1:
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
    levels = pixel_levels(target_epsilon, _TOLERANCE)
    if levels is not None and levels <= _MAX_LEVELS:
        return levels + 1
    return _EVEN_POINTS
