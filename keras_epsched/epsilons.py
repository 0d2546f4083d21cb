"""What an epsilon is: its norm, its scale, its check and how it is printed."""

import math

NORMS = ("linf", "l2", "l1")

# Relative tolerance within which an epsilon that passed through float32, as
# a logged variable does, is still the same epsilon.
SAME_EPSILON = 1e-6


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
