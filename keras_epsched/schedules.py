"""Epsilon schedules: epsilon as a function of training progress.

A schedule is a pure function of the *progress* of training, a number in
[0, 1]. It does not depend on epochs, steps or models. The `EpsilonScheduler`
callback computes the progress and passes the value of epsilon to the trainer.

Reference: Ngnawé et al., "Robust Fine-Tuning from Non-Robust Pretrained
Models: Mitigating Suboptimal Transfer With Epsilon-Scheduling", ICLR 2026
(arXiv 2509.23325).
"""

import fractions
import math
import numbers
import warnings
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_epsched.configurable import Configurable, register
from keras_epsched.epsilons import check_epsilon


class EpsilonSchedule(Configurable):
    """Base class of epsilon schedules.

    Subclass it to write your own schedule. A subclass sets `target_epsilon`,
    the final epsilon of the training (on the [0, 1] scale), and implements
    `compute(progress, xp)`. `xp` is `numpy` or `keras.ops`, so that one
    formula works for Python numbers and for tensors.

    If epsilon is updated once per epoch, epoch `e` (counted from 0) has the
    progress `e / epochs`, and the last epoch has `(epochs - 1) / epochs`. A
    ramp that ends at 1.0 therefore ends one increment below its target, as
    the end-to-end ramp of the paper does.

    Call arguments:
        progress: Python number, NumPy array or tensor, in [0, 1].

    Returns:
        Epsilon on the [0, 1] scale: a `float` for a Python number, a float64
        array for a NumPy array, a float32 tensor for a tensor. The shape is
        that of `progress`.

    Example:
    ```python
    class Quadratic(keras_epsched.schedules.EpsilonSchedule):
        def __init__(self, target_epsilon):
            self.target_epsilon = target_epsilon

        def compute(self, progress, xp):
            return self.target_epsilon * progress**2

        def get_config(self):
            return {"target_epsilon": self.target_epsilon}
    ```
    """

    target_epsilon: float

    def compute(self, progress, xp):
        """Returns epsilon at `progress`, using only functions of `xp`.

        Args:
            progress: Array or tensor of values in [0, 1].
            xp: `numpy` or `keras.ops`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `compute(progress, xp)`."
        )

    def __call__(self, progress):
        if isinstance(progress, (numbers.Number, np.ndarray)):
            values = np.asarray(progress, "float64")
            if not np.all((values >= 0) & (values <= 1)):
                raise ValueError(
                    "`progress` must lie in [0, 1], where 0 is the start and "
                    "1 the end of the training. Received: "
                    f"progress={progress}"
                )
            epsilon = np.asarray(self.compute(values, np), "float64")
            epsilon = np.broadcast_to(epsilon, values.shape)
            return float(epsilon) if epsilon.ndim == 0 else epsilon
        progress = ops.cast(progress, "float32")
        epsilon = ops.cast(self.compute(progress, ops), "float32")
        return ops.broadcast_to(epsilon, ops.shape(progress))


def _check_radius(epsilon):
    # A schedule does not know the norm, and only l-infinity has an upper
    # bound. The trainer checks the target again when the training begins.
    return check_epsilon(epsilon, norm="l2", name="target_epsilon")


def _check_fraction(value, name):
    if not (isinstance(value, numbers.Real) and 0 <= value <= 1):
        raise ValueError(
            f"`{name}` must be a fraction of the training, in [0, 1]. For "
            f"epoch 12 of 50, pass 12 / 50. Received: {name}={value}"
        )
    return float(value)


def _warn_of_jump(position, target_epsilon):
    warnings.warn(
        f"epsilon jumps from 0 to {target_epsilon:g} at {position:.0%} of the "
        "training. In the paper, runs with such a jump collapse to chance "
        "accuracy (arXiv 2509.23325, Table 7). Use a ramp instead, for example "
        "`TwoHinge`.",
        stacklevel=4,
    )


class _Ramp(EpsilonSchedule):
    """Epsilon 0, then a continuous rise between two hinges, then the target."""

    def __init__(self, target_epsilon, ramp_start, ramp_end):
        self.target_epsilon = _check_radius(target_epsilon)
        self.ramp_start = _check_fraction(ramp_start, "ramp_start")
        self.ramp_end = _check_fraction(ramp_end, "ramp_end")
        if self.ramp_start > self.ramp_end:
            raise ValueError(
                "`ramp_start` must not be after `ramp_end`. Received: "
                f"ramp_start={ramp_start}, ramp_end={ramp_end}"
            )
        if self.ramp_start == self.ramp_end > 0 and self.target_epsilon > 0:
            _warn_of_jump(self.ramp_start, self.target_epsilon)

    def shape(self, position, xp):
        """Rise from 0 to 1 over `position` in [0, 1]. Linear by default."""
        return position

    def compute(self, progress, xp):
        width = max(self.ramp_end - self.ramp_start, 1e-12)
        position = xp.clip((progress - self.ramp_start) / width, 0.0, 1.0)
        ramp = self.target_epsilon * self.shape(position, xp)
        # Exactly the target from the second hinge on, without rounding.
        return xp.where(progress >= self.ramp_end, self.target_epsilon, ramp)

    def get_config(self):
        return {
            "target_epsilon": self.target_epsilon,
            "ramp_start": self.ramp_start,
            "ramp_end": self.ramp_end,
        }


@register
class TwoHinge(_Ramp):
    """The paper's schedule: 0, then a linear ramp, then the target.

    Use it to fine-tune a *non-robust* backbone; it is the default of the
    launchers. In the first phase the network adapts to the task. In the second
    phase it becomes robust. The default hinges are those of the paper: epochs
    12 and 37 of 50.

    Reference: arXiv 2509.23325, section 5.

    Args:
        target_epsilon: Float. Final epsilon, on the [0, 1] scale of pixels.
        ramp_start: Float. First hinge, where the ramp starts, as a fraction
            of the training. Defaults to 12/50.
        ramp_end: Float. Second hinge, where the ramp ends, as a fraction of
            the training. Defaults to 37/50.

    Example:
    ```python
    schedule = keras_epsched.schedules.TwoHinge(4 / 255)
    schedule(0.1), schedule(1.0)  # (0.0, 4 / 255)
    ```
    """

    def __init__(self, target_epsilon, ramp_start=12 / 50, ramp_end=37 / 50):
        super().__init__(target_epsilon, ramp_start, ramp_end)


@register
class LinearWarmup(_Ramp):
    """A linear ramp from the first step on, then the target.

    This is the usual epsilon warm-up of adversarial training (Pang et al.,
    "Bag of Tricks for Adversarial Training", ICLR 2021; Debenedetti et al.,
    2023). `LinearWarmup(target, ramp_end=1.0)` is the paper's end-to-end ramp.

    Args:
        target_epsilon: Float. Final epsilon, on the [0, 1] scale of pixels.
        ramp_end: Float. End of the ramp, as a fraction of the training.
            Defaults to `0.2`.

    Example:
    ```python
    keras_epsched.schedules.LinearWarmup(8 / 255, ramp_end=0.2)
    ```
    """

    def __init__(self, target_epsilon, ramp_end=0.2):
        super().__init__(target_epsilon, 0.0, ramp_end)

    def get_config(self):
        return {
            "target_epsilon": self.target_epsilon,
            "ramp_end": self.ramp_end,
        }


@register
class CosineRamp(_Ramp):
    """Half a cosine between two hinges: the rise starts and ends slowly.

    Args:
        target_epsilon: Float. Final epsilon, on the [0, 1] scale of pixels.
        ramp_start: Float. First hinge, where the ramp starts, as a fraction
            of the training. Defaults to 12/50.
        ramp_end: Float. Second hinge, where the ramp ends, as a fraction of
            the training. Defaults to 37/50.

    Example:
    ```python
    keras_epsched.schedules.CosineRamp(4 / 255, 0.2, 0.8)
    ```
    """

    def __init__(self, target_epsilon, ramp_start=12 / 50, ramp_end=37 / 50):
        super().__init__(target_epsilon, ramp_start, ramp_end)

    def shape(self, position, xp):
        """Half a period of a cosine, from 0 to 1."""
        return 0.5 * (1.0 - xp.cos(math.pi * position))


@register
class SmoothRamp(_Ramp):
    """A ramp that starts as a polynomial with slope 0, then is linear.

    The two parts meet with the same slope. Certified training by interval
    bounds uses this ramp (Gowal et al., "On the Effectiveness of Interval
    Bound Propagation", 2018, and its successors).

    Args:
        target_epsilon: Float. Final epsilon, on the [0, 1] scale of pixels.
        ramp_start: Float. First hinge, where the ramp starts, as a fraction
            of the training. Defaults to 12/50.
        ramp_end: Float. Second hinge, where the ramp ends, as a fraction of
            the training. Defaults to 37/50.
        exponent: Float above 1. Degree of the polynomial. Defaults to `4.0`.
        polynomial_part: Float in (0, 1). Share of the ramp that is
            polynomial. Defaults to `0.25`.

    Example:
    ```python
    keras_epsched.schedules.SmoothRamp(8 / 255, 0.1, 0.7)
    ```
    """

    def __init__(
        self,
        target_epsilon,
        ramp_start=12 / 50,
        ramp_end=37 / 50,
        exponent=4.0,
        polynomial_part=0.25,
    ):
        super().__init__(target_epsilon, ramp_start, ramp_end)
        if not exponent > 1 or not 0 < polynomial_part < 1:
            raise ValueError(
                "`exponent` must be above 1 and `polynomial_part` in (0, 1). "
                f"Received: exponent={exponent}, "
                f"polynomial_part={polynomial_part}"
            )
        self.exponent = float(exponent)
        self.polynomial_part = float(polynomial_part)

    def shape(self, position, xp):
        """A polynomial, then its tangent up to 1."""
        middle, degree = self.polynomial_part, self.exponent
        height, slope = middle**degree, degree * middle ** (degree - 1)
        scale = 1.0 / (height + slope * (1.0 - middle))
        return scale * xp.where(
            position < middle,
            position**degree,
            height + slope * (position - middle),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "exponent": self.exponent,
            "polynomial_part": self.polynomial_part,
        }


@register
class Constant(EpsilonSchedule):
    """The target from the first step on. The paper's baseline "fix".

    `Constant(0.0)` is standard fine-tuning without adversarial training.

    Args:
        target_epsilon: Float. Epsilon, on the [0, 1] scale of pixels.

    Example:
    ```python
    keras_epsched.schedules.Constant(4 / 255)
    ```
    """

    def __init__(self, target_epsilon):
        self.target_epsilon = _check_radius(target_epsilon)

    def compute(self, progress, xp):
        return self.target_epsilon + 0.0 * progress

    def get_config(self):
        return {"target_epsilon": self.target_epsilon}


@register
class Step(EpsilonSchedule):
    """A jump from 0 to the target, for ablations.

    Do not use it to train a robust model. In the paper, runs with a jump
    collapse to chance accuracy (arXiv 2509.23325, Table 7) unless the jump
    comes very early. The schedule therefore raises a warning.

    Args:
        target_epsilon: Float. Final epsilon, on the [0, 1] scale of pixels.
        step_at: Float. Where epsilon jumps, as a fraction of the training.
            Defaults to 12/50.

    Example:
    ```python
    keras_epsched.schedules.Step(4 / 255, step_at=0.25)
    ```
    """

    def __init__(self, target_epsilon, step_at=12 / 50):
        self.target_epsilon = _check_radius(target_epsilon)
        self.step_at = _check_fraction(step_at, "step_at")
        if self.step_at > 0 and self.target_epsilon > 0:
            _warn_of_jump(self.step_at, self.target_epsilon)

    def compute(self, progress, xp):
        return xp.where(progress >= self.step_at, self.target_epsilon, 0.0)

    def get_config(self):
        return {
            "target_epsilon": self.target_epsilon,
            "step_at": self.step_at,
        }


@register
class PiecewiseLinear(EpsilonSchedule):
    """Straight lines between given points, constant before and after them.

    Use it for a schedule of your own shape.

    Args:
        points: List of `(progress, epsilon)` pairs. Progress lies in [0, 1]
            and must increase strictly. Epsilon is on the [0, 1] scale of
            pixels. The last epsilon is the target.

    Example:
    ```python
    keras_epsched.schedules.PiecewiseLinear(
        [(0.1, 0.0), (0.4, 1 / 255), (0.8, 4 / 255)]
    )
    ```
    """

    def __init__(self, points):
        points = [tuple(point) for point in points]
        if not points or any(len(point) != 2 for point in points):
            raise ValueError(
                "`points` must be a list of at least one (progress, epsilon) "
                f"pair. Received: points={points}"
            )
        self.points = [
            (_check_fraction(at, "progress"), _check_radius(epsilon))
            for at, epsilon in points
        ]
        positions = [at for at, _ in self.points]
        if any(b <= a for a, b in zip(positions, positions[1:], strict=False)):
            raise ValueError(
                "The progress values of `points` must increase strictly. "
                "Equal values would be a jump. Received: progress values "
                f"{positions}"
            )
        self.target_epsilon = self.points[-1][1]

    def compute(self, progress, xp):
        value = self.points[0][1] + 0.0 * progress
        for (a, low), (b, high) in zip(
            self.points, self.points[1:], strict=False
        ):
            line = low + (high - low) * (progress - a) / (b - a)
            value = xp.where(progress >= a, line, value)
        last, target = self.points[-1]
        return xp.where(progress >= last, target, value)

    def get_config(self):
        return {"points": self.points}


@register
class Peak(PiecewiseLinear):
    """0, then a ramp to above the target, and down to it before the end.

    Use it if the accuracy at the target itself matters. The network trains at
    a higher epsilon than it is judged at, and at the target in the last
    epochs. Where the target is hard for the network, this costs much clean
    accuracy. Let the learning rate fall only when epsilon has risen, see
    `HeldCosineDecay`. With these positions, a training of fewer than ten
    epochs ends above the target, unless epsilon is set before each batch
    (`update_freq="batch"`).

    Args:
        target_epsilon: Float. Final epsilon, on the [0, 1] scale of pixels.
        peak: Float. The highest epsilon, as a multiple of the target. Defaults
            to `1.25`.
        ramp_start: Float. Where the ramp starts, as a fraction of the training.
            Defaults to `0.1`.
        ramp_end: Float. Where the peak is reached. Defaults to `0.6`.
        fall_start: Float or `None`. Where epsilon begins to fall. Defaults to
            half way from `ramp_end` to the end, which is 0.8.
        fall_end: Float or `None`. Where epsilon has fallen to the target.
            Defaults to three quarters of that way, which is 0.9.

    Raises:
        ValueError: If `peak` is below 1, or the positions do not increase.

    Example:
    ```python
    schedule = keras_epsched.schedules.Peak(4 / 255)
    schedule(0.7), schedule(1.0)  # (5 / 255, 4 / 255)
    ```
    """

    def __init__(
        self,
        target_epsilon,
        peak=1.25,
        ramp_start=0.1,
        ramp_end=0.6,
        fall_start=None,
        fall_end=None,
    ):
        if not (isinstance(peak, numbers.Real) and 1 <= peak < math.inf):
            raise ValueError(
                "`peak` is the highest epsilon, as a multiple of the target. "
                f"Expected a number from 1 on. Received: peak={peak!r}"
            )
        _check_fraction(ramp_end, "ramp_end")
        positions = {
            "ramp_start": ramp_start,
            "ramp_end": ramp_end,
            "fall_start": (1 + ramp_end) / 2
            if fall_start is None
            else fall_start,
            "fall_end": (3 + ramp_end) / 4 if fall_end is None else fall_end,
        }
        ordered = [_check_fraction(at, name) for name, at in positions.items()]
        if any(b <= a for a, b in zip(ordered, ordered[1:], strict=False)):
            raise ValueError(
                "`ramp_start`, `ramp_end`, `fall_start` and `fall_end` must "
                f"increase strictly. Received: {positions}"
            )
        highest = float(peak) * _check_radius(target_epsilon)
        values = (0.0, highest, highest, target_epsilon)
        super().__init__(zip(ordered, values, strict=True))
        self.peak = float(peak)

    def get_config(self):
        names = ("ramp_start", "ramp_end", "fall_start", "fall_end")
        positions = [at for at, _ in self.points]
        return {
            "target_epsilon": self.target_epsilon,
            "peak": self.peak,
            **dict(zip(names, positions, strict=True)),
        }


@register
class RandomUniform(EpsilonSchedule):
    """A random epsilon from [0, target] for each interval of the training.

    This is the paper's ablation "uniform" (Table 8). Pass `num_draws=epochs`
    to draw once per epoch, as in the paper. The value depends only on the seed
    and on `floor(progress * num_draws)`, so a resumed run gets the same
    values.

    Args:
        target_epsilon: Float. Largest epsilon, on the [0, 1] scale of pixels.
        num_draws: Int. Number of equal intervals in the whole training.
        seed: Int. Seed of the random numbers. Defaults to `0`.

    Example:
    ```python
    keras_epsched.schedules.RandomUniform(4 / 255, num_draws=50, seed=1)
    ```
    """

    def __init__(self, target_epsilon, num_draws, seed=0):
        self.target_epsilon = _check_radius(target_epsilon)
        if not isinstance(num_draws, numbers.Integral) or num_draws < 1:
            raise ValueError(
                "`num_draws` must be a positive integer, usually the number "
                f"of epochs. Received: num_draws={num_draws}"
            )
        self.num_draws = int(num_draws)
        self.seed = int(seed)
        self._draws = self.target_epsilon * np.random.default_rng(
            self.seed
        ).random(self.num_draws)

    def compute(self, progress, xp):
        # The small addition keeps epoch / epochs in its interval after
        # rounding.
        index = xp.floor(progress * self.num_draws + 1e-4)
        index = xp.clip(index, 0, self.num_draws - 1)
        if xp is np:
            return self._draws[index.astype("int64")]
        return ops.take(
            ops.convert_to_tensor(self._draws, "float32"),
            ops.cast(index, "int32"),
        )

    def get_config(self):
        return {
            "target_epsilon": self.target_epsilon,
            "num_draws": self.num_draws,
            "seed": self.seed,
        }


def parse_hinges(text: str) -> tuple[float, float]:
    """Reads two hinges from a text such as `"12/50:37/50"`.

    Args:
        text: String. Two fractions of the training, separated by a colon.
            Each is a decimal number or a fraction.

    Returns:
        A pair of floats.

    Raises:
        ValueError: If the text does not contain two fractions in [0, 1], the
            smaller one first.

    Example:
    >>> parse_hinges("1/4:0.75")
    (0.25, 0.75)
    """
    try:
        start, end = (float(fractions.Fraction(e)) for e in text.split(":"))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"Expected two hinges, for example 12/50:37/50. Received: {text!r}"
        ) from error
    if not 0 <= start <= end <= 1:
        raise ValueError(
            "Expected two hinges, as fractions of the training in [0, 1], "
            "with the first not larger than the second. Received: "
            f"{text!r}"
        )
    return start, end


def parse_points(text: str) -> list[tuple[float, float]]:
    """Reads the points of a `PiecewiseLinear`.

    Args:
        text: String. Pairs of progress and epsilon, for example
            `"0.1:0;0.8:4/255"`.

    Returns:
        A list of pairs of floats.

    Raises:
        ValueError: If the text does not contain such pairs.

    Example:
    >>> parse_points("0.1:0;0.8:0.3")
    [(0.1, 0.0), (0.8, 0.3)]
    """
    points = []
    try:
        for point in text.split(";"):
            progress, epsilon = map(fractions.Fraction, point.split(":"))
            points.append((float(progress), float(epsilon)))
        return points
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(
            "Expected pairs of progress and epsilon, for example "
            f"0.1:0;0.8:4/255. Received: {text!r}"
        ) from error


# Schedules by name, from a target epsilon and two hinges.
NAMES: dict[str, Callable[[float, float, float], EpsilonSchedule]] = {
    "standard": lambda target, start, end: Constant(0.0),
    "fixed": lambda target, start, end: Constant(target),
    "scheduled": TwoHinge,
    "cosine": CosineRamp,
    "smooth": SmoothRamp,
    "warmup": lambda target, start, end: LinearWarmup(target, end),
    "step": lambda target, start, end: Step(target, start),
    "peak": lambda target, start, end: Peak(target),
}
# The names whose schedules have these hinges.
WITH_HINGES = ("scheduled", "cosine", "smooth", "warmup", "step")


def check_name(name: str) -> None:
    """Raises a `ValueError` if `named` would not accept the name.

    Args:
        name: String. Name of a schedule, see `named`.

    Raises:
        ValueError: If there is no such schedule.
    """
    if ";" in name:
        PiecewiseLinear(parse_points(name))
    elif ":" in name:
        parse_hinges(name)
    elif name not in (*NAMES, "random"):
        raise ValueError(
            "Expected the name of a schedule: "
            f"{', '.join((*NAMES, 'random'))}; or two hinges, for example "
            f"12/50:37/50. Received: {name!r}"
        )


def named(
    name: str,
    target_epsilon: float,
    ramp_start: float = 12 / 50,
    ramp_end: float = 37 / 50,
    num_draws: int = 50,
    seed: int = 0,
) -> EpsilonSchedule:
    """Returns the schedule with a name, as launchers and studies use it.

    Args:
        name: String, one of
            - `"standard"`: `Constant(0.0)`, no adversarial training;
            - `"fixed"`: `Constant`;
            - `"scheduled"`: `TwoHinge`, the paper's schedule;
            - `"cosine"`: `CosineRamp`;
            - `"smooth"`: `SmoothRamp`;
            - `"warmup"`: `LinearWarmup`;
            - `"step"`: `Step`;
            - `"peak"`: `Peak`, with positions of its own;
            - `"random"`: `RandomUniform`;
            - two hinges such as `"12/50:30/50"`: `TwoHinge` with these hinges;
            - points such as `"0.1:0;0.4:1/255;0.8:4/255"`: `PiecewiseLinear`
              through these pairs of progress and epsilon.
        target_epsilon: Float. Final epsilon, on the [0, 1] scale of pixels.
        ramp_start: Float. First hinge, as a fraction of the training. `"step"`
            jumps there. Defaults to 12/50.
        ramp_end: Float. Second hinge, as a fraction of the training.
            `"warmup"` ends there. Defaults to 37/50.
        num_draws: Int. Number of draws of `"random"`, usually the number of
            epochs. Defaults to `50`.
        seed: Int. Seed of `"random"`. Defaults to `0`.

    Returns:
        An `EpsilonSchedule`.

    Raises:
        ValueError: If there is no such schedule, or if the last point of a
            `PiecewiseLinear` is not at the target epsilon.

    Example:
    ```python
    keras_epsched.schedules.named("scheduled", 4 / 255)
    keras_epsched.schedules.named("1/4:0.75", 4 / 255)
    ```
    """
    check_name(name)
    if name in NAMES:
        return NAMES[name](target_epsilon, ramp_start, ramp_end)
    if name == "random":
        return RandomUniform(target_epsilon, num_draws, seed)
    if ";" in name:
        schedule = PiecewiseLinear(parse_points(name))
        if not math.isclose(schedule.target_epsilon, target_epsilon):
            raise ValueError(
                "The last point of a schedule must be at the target epsilon "
                f"{target_epsilon:g}. Received: {name!r}"
            )
        return schedule
    return TwoHinge(target_epsilon, *parse_hinges(name))


def get(identifier) -> EpsilonSchedule:
    """Returns a schedule from an object or from its serialised `dict`.

    Args:
        identifier: `EpsilonSchedule`, or the `dict` that
            `keras.saving.serialize_keras_object` returns for one.

    Returns:
        An `EpsilonSchedule`.

    Raises:
        ValueError: If `identifier` is neither.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if not isinstance(identifier, EpsilonSchedule):
        raise ValueError(
            "Expected an `EpsilonSchedule`, for example "
            "`keras_epsched.schedules.TwoHinge(4 / 255)`. Received: "
            f"{identifier!r} of type {type(identifier).__name__}"
        )
    return identifier
