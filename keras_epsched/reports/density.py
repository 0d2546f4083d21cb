"""The weights that turn accuracies on a grid into expected robustness."""

import numbers
from collections.abc import Callable

import numpy as np

from keras_epsched.epsilons import SAME_EPSILON


def grid_place(epsilons: np.ndarray, epsilon: float) -> int | None:
    """Returns the index of an epsilon in a grid, or `None` if it is not there.

    Args:
        epsilons: Array of shape `(num_epsilons,)`.
        epsilon: Float. Values that were rounded to float32 are found too.

    Example:
    >>> grid_place([0, 0.1, 0.2], 0.1)
    1
    """
    close = np.isclose(epsilons, epsilon, rtol=SAME_EPSILON, atol=0)
    return int(close.argmax()) if close.any() else None


def density_weights(
    epsilons: np.ndarray,
    density: float | Callable | np.ndarray | None = None,
    target_epsilon: float | None = None,
) -> np.ndarray:
    """Weights `w` for which expected robustness is `sum(w * accuracy)`.

    Expected robustness is the mean accuracy under a distribution of epsilon
    on `[0, target_epsilon]`. Accuracy is interpolated linearly between the
    epsilons of the grid. The mean is then a weighted sum of the accuracies on
    the grid, and the weights depend only on the grid and the distribution.

    For the uniform distribution the weights are the trapezoidal rule, as in
    the paper. A single epsilon of 0 gives clean accuracy, and a single
    epsilon at the target gives the usual robust accuracy.

    Reference:

    - [Ngnawé et al., 2026](https://arxiv.org/abs/2509.23325), section 5

    Args:
        epsilons: Array of shape `(num_epsilons,)`. The grid, ascending from
            0, on the [0, 1] scale.
        density: The distribution of epsilon, one of
            - `None`: uniform (the default);
            - a number: this epsilon alone;
            - a density, as a function of epsilon or an object with a method
              `pdf` such as a frozen `scipy.stats` distribution. It is
              renormalised on `[0, target_epsilon]`;
            - an array of shape `(num_epsilons,)`: nonnegative weights. They
              are scaled to sum 1.
        target_epsilon: Optional float. Upper end of the distribution, between
            0 and the last epsilon of the grid. Defaults to the last epsilon.
            With 0, all weight is on epsilon 0.

    Returns:
        A float64 array of shape `(num_epsilons,)` with sum 1.

    Raises:
        ValueError: If the grid does not ascend from 0, if `target_epsilon`
            or a single epsilon lies outside the grid, if weights are
            negative, all zero or above `target_epsilon`, or if a density is
            negative or cannot be integrated on the grid.

    Example:
    ```python
    grid = keras_epsched.epsilon_grid(4 / 255)
    density_weights(grid)                      # [1, 2, 2, 2, 1] / 8
    density_weights(grid, density=2 / 255)     # [0, 0, 1, 0, 0]
    density_weights(grid, scipy.stats.beta(2, 5, scale=4 / 255))
    ```
    """
    grid = np.asarray(epsilons, dtype="float64")
    if grid.ndim != 1 or not grid.size or grid[0] != 0:
        raise ValueError(
            "`epsilons` must be a one-dimensional grid that starts at 0. "
            f"Received: epsilons={epsilons}"
        )
    if (np.diff(grid) <= 0).any():
        raise ValueError(
            f"`epsilons` must ascend strictly. Received: epsilons={epsilons}"
        )
    end = grid[-1] if target_epsilon is None else target_epsilon
    end = _snap(end, grid, grid[-1], "target_epsilon")
    if isinstance(density, (list, tuple, np.ndarray)) and np.ndim(density):
        return _check_weights(np.asarray(density, "float64"), grid, end)
    pdf = getattr(density, "pdf", density)
    # On each piece between two nodes, accuracy is linear.
    nodes = np.append(grid[grid < end], end)
    if isinstance(density, (numbers.Real, np.ndarray)):
        nodes = np.array([_snap(float(density), grid, end, "density")])
        weights = np.ones(1)
    elif nodes.size == 1:
        weights = np.ones(1)
    elif density is None:
        weights = _hat_integrals(nodes, np.diff(nodes), np.diff(nodes) / 2)
    elif callable(pdf):
        weights = _pdf_weights(pdf, nodes)
    else:
        raise ValueError(
            "`density` must be `None`, a number, a function of epsilon, an "
            "object with a method `pdf`, or an array of weights. "
            f"Received: density={density!r}"
        )
    return weights / weights.sum() @ _interpolation(nodes, grid)


def _snap(epsilon: float, grid: np.ndarray, end: float, name: str) -> float:
    """The grid point that equals `epsilon` up to rounding, else `epsilon`."""
    place = grid_place(grid, epsilon)
    epsilon = epsilon if place is None else grid[place]
    if not 0 <= epsilon <= end:
        raise ValueError(
            f"`{name}` must lie between 0 and {end:.6g}, the range in which "
            f"accuracy was measured. Received: {name}={epsilon:.6g}"
        )
    return epsilon


def _check_weights(
    weights: np.ndarray, grid: np.ndarray, end: float
) -> np.ndarray:
    if weights.shape != grid.shape:
        raise ValueError(
            "If `density` is an array, it must have one weight for each of "
            f"the {grid.size} epsilons. Received: shape {weights.shape}"
        )
    if not (weights >= 0).all() or not np.isfinite(weights).all():
        raise ValueError(
            "The weights in `density` must be finite and nonnegative. "
            f"Received: {weights}"
        )
    if not weights.any() or weights[grid > end].any():
        raise ValueError(
            "The weights in `density` must not all be 0, and they must be 0 "
            f"above `target_epsilon` ({end:.6g}). Received: {weights}"
        )
    return weights / weights.sum()


def _hat_integrals(
    nodes: np.ndarray, masses: np.ndarray, rights: np.ndarray
) -> np.ndarray:
    """Weights of the nodes.

    `masses` is the probability of each piece, and `rights` is the part of it
    that counts for the right end of the piece.
    """
    weights = np.zeros(nodes.size)
    weights[:-1] += masses - rights
    weights[1:] += rights
    return weights


def _pdf_weights(pdf: Callable, nodes: np.ndarray) -> np.ndarray:
    from scipy.integrate import quad

    def density(epsilon):
        value = float(pdf(epsilon))
        if not 0 <= value < np.inf:
            raise ValueError(
                "`density` must be finite and nonnegative on "
                f"[0, {nodes[-1]:.6g}]. Received: {value} at epsilon "
                f"{epsilon:.6g}"
            )
        return value

    masses, rights, error = [], [], 0.0
    for left, right in zip(nodes[:-1], nodes[1:], strict=True):
        width = right - left

        def right_share(x, left=left, width=width):
            return density(x) * (x - left) / width

        for function, results in (density, masses), (right_share, rights):
            # `full_output` returns the message instead of warning. The sum
            # of the errors is checked below.
            value, bound = quad(
                function,
                left,
                right,
                epsabs=0,
                epsrel=1e-9,
                limit=200,
                full_output=1,
            )[:2]
            results.append(value)
            error += bound
    total = sum(masses)
    if not total > 0 or error > 1e-6 * total:
        raise ValueError(
            f"`density` could not be integrated on [0, {nodes[-1]:.6g}]: the "
            f"integral is {total:.3g} with an error up to {error:.3g}. It must "
            "be positive somewhere in this range. For a single epsilon, pass "
            "that number."
        )
    return _hat_integrals(nodes, np.array(masses), np.array(rights))


def _interpolation(points: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Matrix `(points, grid)` of linear interpolation from grid to points."""
    return np.stack([np.interp(points, grid, e) for e in np.eye(grid.size)], 1)
