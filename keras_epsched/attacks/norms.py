"""The norms l-infinity, l2 and l1: projections, steepest steps and starts.

All functions work on batches of images of any shape, in the units of the
pixels. Radii have the shape `(batch, 1, ..., 1)`, one for each image. `box` is
the pair of the lowest and highest pixel value.
"""

import math

import numpy as np
from keras import ops

from keras_epsched.attacks import noise
from keras_epsched.epsilons import check_norm

# The order of each norm in `numpy.linalg.norm`.
ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}
_BISECTIONS = 30
_NEWTON_STEPS = 10
# The error of a float32 sum over many pixels, as a share of the radius.
_ROUNDING = 1e-5
# Keeps points inside of the ball despite the rounding of float32 sums.
_INSIDE = 1.0 - 1e-6


def _axes(x):
    return tuple(range(1, len(x.shape)))


def _sum(x):
    return ops.sum(x, axis=_axes(x), keepdims=True)


def _max(x):
    return ops.max(x, axis=_axes(x), keepdims=True)


def _divide(numerator, denominator):
    """Division that gives 0 where the denominator is 0."""
    safe = ops.where(denominator > 0, denominator, 1.0)
    return ops.where(denominator > 0, numerator / safe, 0.0)


def _room(x, direction, box):
    """How far each pixel can move along `direction` within the box."""
    up, down = box[1] - x, x - box[0]
    return ops.maximum(ops.where(direction > 0, up, down), 0.0)


def _attach(x, delta, box):
    """Returns `x + delta`, rounded towards `x`."""
    moved = x + delta
    ulp = 1.2e-7 * ops.abs(moved)
    too_far = ops.abs(moved - x) > ops.abs(delta)
    moved = ops.where(too_far, moved - ops.sign(delta) * ulp, moved)
    # The correction must not go beyond `x`.
    moved = ops.where(delta > 0, ops.maximum(moved, x), ops.minimum(moved, x))
    return ops.clip(moved, box[0], box[1])


def _bisect(too_low, low, high):
    """Shrinks [low, high] around the point where `too_low` turns false."""
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        raise_low = too_low(middle)
        low = ops.where(raise_low, middle, low)
        high = ops.where(raise_low, high, middle)
    return low, high


def _descent(x, gradient, value, box):
    """Returns how steps bring `value + gradient * step` to 0.

    The four results are the direction of each pixel, its weight, its room in
    the box, and the needed change of the value. Weights and the needed change
    are divided by the largest entry of the gradient.
    """
    direction = -ops.sign(value) * ops.sign(gradient)
    largest = _max(ops.abs(gradient))
    weight = _divide(ops.abs(gradient), largest)
    need = _divide(ops.abs(value), largest)
    return direction, weight, _room(x, direction, box), need


def _newton(gain, need):
    """Returns the multiplier at which the gain equals `need`.

    The gain is concave and piecewise linear. Newton's method from below never
    exceeds the solution.
    """
    multiplier = ops.zeros_like(need)
    for _ in range(_NEWTON_STEPS):
        reached, slope = gain(multiplier)
        missing = ops.maximum(need - reached, 0.0)
        multiplier = multiplier + _divide(missing, slope)
    return multiplier


def slack(norm, radius, box):
    """Returns how far rounding may move a point beyond the radius."""
    ulp = float(np.spacing(np.float32(max(map(abs, box)))))
    return 2 * ulp + (0.0 if norm == "linf" else _ROUNDING) * radius


def in_box(moved, box):
    """Returns for each image whether all pixels are finite and in the box."""
    return ops.all((moved >= box[0]) & (moved <= box[1]), axis=_axes(moved))


class Norm:
    """Base class of norms: which points lie inside, and the way back."""

    name: str

    def contains(self, moved, x, radius, box):
        """Returns which points lie in the ball (up to rounding) and the box."""
        limit = radius + slack(self.name, radius, box)
        near = self.size(moved - x) <= ops.reshape(limit, (-1,))
        return near & in_box(moved, box)

    def confine(self, moved, x, radius, box):
        """Moves points outside towards the image, into the ball and the box.

        Points inside do not change at all. This is much faster than a
        projection and needs no loop.
        """
        moved = ops.clip(moved, box[0], box[1])
        delta = moved - x
        size = ops.reshape(self.size(delta), (-1, *(1 for _ in x.shape[1:])))
        drawn = delta * _divide(radius * _INSIDE, size)
        near = size <= radius + slack(self.name, radius, box)
        return ops.where(near, moved, _attach(x, drawn, box))


class Linf(Norm):
    """l-infinity: each pixel changes by at most epsilon."""

    name = "linf"

    def size(self, delta):
        """Norm of each image's perturbation, shape `(batch,)`."""
        return ops.max(ops.abs(delta), axis=_axes(delta))

    def confine(self, moved, x, radius, box):
        # Clipping does not change points inside, and costs less than a check.
        return self.project(moved, x, radius, box)

    def project(self, moved, x, radius, box):
        """Nearest point of `moved` in the ball around `x` and the box."""
        moved = ops.clip(moved, x - radius, x + radius)
        return ops.clip(moved, box[0], box[1])

    def step(self, gradient, x, length, box):
        """Step of norm `length` that increases a linear function most."""
        return length * ops.sign(gradient)

    def dual_size(self, gradient):
        """Dual norm of each image's gradient, shape `(batch,)`."""
        return ops.sum(ops.abs(gradient), axis=_axes(gradient))

    def to_hyperplane(self, x, gradient, value, box):
        """Smallest step in the box to where `value + gradient * step` is 0.

        If there is no such point in the box, it is the step to the nearest
        corner.
        """
        direction, weight, room, need = _descent(x, gradient, value, box)

        def gain(size):
            free = ops.where(size < room, weight, 0.0)
            return _sum(weight * ops.minimum(size, room)), _sum(free)

        return direction * ops.minimum(_newton(gain, need), room)

    def start(self, x, radius, key, box, on_sphere=False):
        """Random point: uniform in the ball, or on its surface."""
        direction = 2.0 * noise.uniform(key, tuple(x.shape[1:])) - 1.0
        if on_sphere:
            direction = direction / _max(ops.abs(direction))
        return self.project(x + radius * direction, x, radius, box)


class L2(Norm):
    """l2: the Euclidean length of the change is at most epsilon."""

    name = "l2"

    def size(self, delta):
        """Norm of each image's perturbation, shape `(batch,)`."""
        return ops.sqrt(ops.sum(ops.square(delta), axis=_axes(delta)))

    def project(self, moved, x, radius, box):
        """Nearest point of `moved` in the ball around `x` and the box.

        It has the form `clip(x + scale * delta)`. If the clipped pixels are
        known, `scale` is a square root. The set of clipped pixels only grows
        from one round to the next and is complete after a few rounds. The
        result lies inside the ball after every round.
        """
        delta = moved - x
        room = _room(x, delta, box)
        radius = radius * _INSIDE
        square = ops.square(delta)
        scale = ops.minimum(1.0, _divide(radius, ops.sqrt(_sum(square))))
        for _ in range(8):
            clipped = scale * ops.abs(delta) >= room
            fixed = _sum(ops.where(clipped, ops.square(room), 0.0))
            free = _sum(ops.where(clipped, 0.0, square))
            rest = ops.maximum(ops.square(radius) - fixed, 0.0)
            better = ops.sqrt(_divide(rest, free))
            better = ops.where(free > 0, better, 1.0)
            scale = ops.clip(better, scale, 1.0)
        delta = ops.sign(delta) * ops.minimum(scale * ops.abs(delta), room)
        # Rounding may move the point slightly out of the ball.
        norm = ops.sqrt(_sum(ops.square(delta)))
        delta = delta * ops.minimum(1.0, _divide(radius, norm))
        return _attach(x, delta, box)

    def step(self, gradient, x, length, box):
        """Step of norm `length` that increases a linear function most."""
        # Divided by the largest entry first, because squares of small
        # gradients underflow in float32.
        gradient = _divide(gradient, _max(ops.abs(gradient)))
        norm = ops.sqrt(_sum(ops.square(gradient)))
        return length * _divide(gradient, norm)

    def dual_size(self, gradient):
        """Dual norm of each image's gradient, shape `(batch,)`."""
        return self.size(gradient)

    def to_hyperplane(self, x, gradient, value, box):
        """As `Linf.to_hyperplane`, with the smallest Euclidean length."""
        direction, weight, room, need = _descent(x, gradient, value, box)

        def gain(scale):
            free = ops.where(scale * weight < room, ops.square(weight), 0.0)
            moves = ops.minimum(scale * weight, room)
            return _sum(weight * moves), _sum(free)

        return direction * ops.minimum(_newton(gain, need) * weight, room)

    def start(self, x, radius, key, box, on_sphere=False):
        """Random point: uniform in the ball, or on its surface."""
        shape = tuple(x.shape[1:])
        direction = self.step(noise.normal(key, shape), x, radius, box)
        if not on_sphere:
            share = noise.uniform(noise.make_key(key, 1), (1,) * len(shape))
            direction = direction * share ** (1.0 / math.prod(shape))
        return self.project(x + direction, x, radius, box)


class L1(Norm):
    """l1: the sum of the absolute changes is at most epsilon."""

    name = "l1"

    def size(self, delta):
        """Norm of each image's perturbation, shape `(batch,)`."""
        return ops.sum(ops.abs(delta), axis=_axes(delta))

    def project(self, moved, x, radius, box):
        """Nearest point of `moved` in the ball around `x` and the box.

        All changes are reduced by a common threshold, then clipped to the
        room in the box. The threshold is found by bisection. The result is
        the exact projection. Reference: Croce & Hein, ICML 2021 (arXiv
        2103.01208).
        """
        delta = moved - x
        room = _room(x, delta, box)
        radius = radius * _INSIDE

        def shrunk(threshold):
            return ops.clip(ops.abs(delta) - threshold, 0.0, room)

        highest = _max(ops.abs(delta))
        _, threshold = _bisect(
            lambda threshold: _sum(shrunk(threshold)) > radius,
            ops.zeros_like(highest),
            highest,
        )
        inside = _sum(shrunk(0.0)) <= radius
        threshold = ops.where(inside, 0.0, threshold)
        return _attach(x, ops.sign(delta) * shrunk(threshold), box)

    def step(self, gradient, x, length, box):
        """Step of norm `length` that increases a linear function most.

        Pixels are moved as far as the box allows, the largest gradient first,
        until the length is used up. Pixels with equal gradients share the
        rest.
        """
        room = _room(x, gradient, box)
        weight = ops.where(room > 0, ops.abs(gradient), 0.0)
        weight = _divide(weight, _max(weight))
        return ops.sign(gradient) * self._fill(weight, room, 1.0, length)

    def _fill(self, weight, room, price, total):
        """Moves pixels as far as possible, the largest weight first.

        It stops when the sum of all moves, each times its price, is `total`.
        """

        def used(threshold):
            return _sum(ops.where(weight >= threshold, price * room, 0.0))

        low, high = _bisect(
            lambda threshold: used(threshold) >= total,
            ops.zeros_like(total),
            2.0 * ops.ones_like(total),
        )
        full = ops.where(weight >= high, room, 0.0)
        edge = (weight >= low) & (weight < high) & (weight > 0)
        edge = ops.where(edge, room, 0.0)
        share = _divide(total - _sum(price * full), _sum(price * edge))
        return full + ops.clip(share, 0.0, 1.0) * edge

    def dual_size(self, gradient):
        """Dual norm of each image's gradient, shape `(batch,)`."""
        return ops.max(ops.abs(gradient), axis=_axes(gradient))

    def to_hyperplane(self, x, gradient, value, box):
        """As `Linf.to_hyperplane`, with the smallest sum of the changes."""
        direction, weight, room, need = _descent(x, gradient, value, box)
        return direction * self._fill(weight, room, weight, need)

    def sparse_step(self, gradient, x, length, box, share):
        """Equal moves of a share of the pixels, with total length `length`.

        This is the step of L1-APGD (arXiv 2103.01208). It moves the pixels of
        largest gradient among those with room in the box. `share` has the
        shape `(batch, 1, ...)`.
        """
        room = _room(x, gradient, box)
        weight = ops.where(room > 0, ops.abs(gradient), 0.0)
        weight = _divide(weight, _max(weight))
        wanted = ops.round(share * math.prod(x.shape[1:]))
        wanted = ops.maximum(wanted, 1.0)

        def chosen(threshold):
            return ops.cast((weight >= threshold) & (weight > 0), "float32")

        threshold, _ = _bisect(
            lambda threshold: _sum(chosen(threshold)) >= wanted,
            ops.zeros_like(length),
            2.0 * ops.ones_like(length),
        )
        moves = chosen(threshold)
        return length * ops.sign(gradient) * _divide(moves, _sum(moves))

    def start(self, x, radius, key, box, on_sphere=False):
        """Random point: uniform in the ball, or a projected normal draw."""
        shape = tuple(x.shape[1:])
        if on_sphere:
            direction = noise.normal(key, shape)
        else:
            draws = noise.laplace(key, shape)
            share = noise.uniform(noise.make_key(key, 1), (1,) * len(shape))
            direction = _divide(draws, _sum(ops.abs(draws)))
            direction = direction * share ** (1.0 / math.prod(shape))
        return self.project(x + radius * direction, x, radius, box)


def get(norm: str) -> Linf | L2 | L1:
    """Returns the norm with a name.

    Args:
        norm: String. `"linf"`, `"l2"` or `"l1"`.
    """
    classes: dict[str, type[Linf | L2 | L1]] = {
        "linf": Linf,
        "l2": L2,
        "l1": L1,
    }
    return classes[check_norm(norm)]()
