"""Square Attack: random search without gradients."""

import numpy as np
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack, counted
from keras_epsched.attacks.tracker import Tracker
from keras_epsched.configurable import register

# The numbers of queries, out of 10,000, after which the window's area halves.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_PLANNED = 10_000
# Usual numbers of channels of images.
_CHANNELS = (1, 3, 4)


def window_sides(queries, height, width, share, rescale=False):
    """Returns the side of the window of each query.

    Args:
        queries: Int. Number of queries.
        height: Int. Height of the images.
        width: Int. Width of the images.
        share: Float. Share of the pixels that the first window covers.
        rescale: Boolean. Whether the plan for 10,000 queries is compressed to
            `queries` queries.

    Returns:
        An int array of shape `(queries,)`.
    """
    query = np.arange(queries) * (_PLANNED / queries if rescale else 1)
    halved = np.searchsorted(_HALVINGS, query.astype(int), side="left")
    sides = np.sqrt(share / 2.0**halved * height * width)
    return np.clip(np.round(sides), 1, min(height, width)).astype("int32")


def pyramid(height, width):
    """Returns a bump: rings that fall off with the square of the distance."""
    longest = max(height, width) // 2
    rows = np.abs(np.arange(height) - height // 2)[:, None]
    columns = np.abs(np.arange(width) - width // 2)[None]
    depth = longest - np.maximum(rows, columns)
    rings = np.cumsum(1.0 / (longest + 1.0 - np.arange(longest + 1)) ** 2)
    return rings[depth]


def two_bumps(side):
    """Returns two bumps of opposite sign that fill a square."""
    upper = side // 2
    bumps = np.zeros((side, side))
    bumps[:upper] = pyramid(upper, side)
    bumps[upper:] = -pyramid(side - upper, side)
    return bumps


@register
class Square(Attack):
    """Square Attack: random search with square windows, without gradients.

    Use it to find out whether the gradients of a network mislead other
    attacks. It needs only the logits. If it breaks images that gradient
    attacks do not break, the gradients are misleading.

    Each query changes one square window at a random position of each image.
    The change is kept if it increases the loss. The windows get smaller during
    the search. The search ends early if the whole batch is broken, but its
    cost is counted in full. Images must have the shape
    `(height, width, channels)`.

    Reference: Andriushchenko et al., ECCV 2020 (arXiv 1912.00049); for `"l1"`
    Croce & Hein, ICML 2021 (arXiv 2103.01208).

    Args:
        queries: Int. Number of queries after the first one. Defaults to
            `5000`.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.
        share: Float in (0, 1]. Share of the image that the first window
            covers. Defaults to `0.8`.
        rescale: Boolean. The windows shrink by a plan for 10,000 queries. If
            false, the search stops within the plan after `queries` queries, as
            in AutoAttack. If true, the whole plan is compressed to `queries`
            queries, which is sometimes much stronger. Defaults to `False`.

    Example:
    ```python
    attack = keras_epsched.attacks.Square(queries=5000)
    ```
    """

    def __init__(self, queries=5000, norm="linf", share=0.8, rescale=False):
        super().__init__(queries, norm, "margin")
        if not 0 < share <= 1:
            raise ValueError(
                f"`share` must lie in (0, 1]. Received: share={share}"
            )
        self.share = float(share)
        self.rescale = bool(rescale)

    def get_config(self):
        return {
            "queries": self.steps,
            "norm": self.norm,
            "share": self.share,
            "rescale": self.rescale,
        }

    def headline(self):
        return f"Square, {counted(self.steps, 'query')}"

    def particulars(self):
        own = []
        if self.share != 0.8:
            own.append(f"windows from {100 * self.share:g} % of the image")
        if self.rescale:
            own.append("rescaled windows")
        return [*own, *super().particulars()]

    def window_sides(self, height, width):
        """Returns the side of the window of each query."""
        return window_sides(self.steps, height, width, self.share, self.rescale)

    def check_shape(self, shape):
        if len(shape) != 4:
            raise ValueError(
                "`Square` needs images of shape (batch, height, width, "
                f"channels). Received: shape {tuple(shape)}"
            )
        _, height, _, channels = shape
        if height in _CHANNELS and channels not in _CHANNELS:
            raise ValueError(
                "`Square` needs images with channels last, of shape (batch, "
                f"height, width, channels). Received: shape {tuple(shape)}, "
                "which seems to have channels first. Attack a model with "
                "channels last: `keras.Sequential([keras.Input((height, width, "
                "channels)), keras.layers.Permute((3, 1, 2)), model])`"
            )

    def passes(self, num_classes):
        return self.steps + 1, 0

    def search_problem(self, problem, key, variant):
        self.check_shape(problem.images.shape)
        tracker = Tracker(problem)
        proposals = (Windows if self.norm == "linf" else Bumps)(self, problem)
        moved = problem.begin_at(proposals.first(key))
        state = tracker.update(tracker.begin(), moved, problem.judge(moved))

        def unfinished(query, state):
            return (query < self.steps) & ~ops.all(state["broken"])

        def body(query, state):
            draw = noise.make_key(key, query + 1)
            moved = proposals.next(query, state["best"], draw)
            state = tracker.update(state, moved, problem.judge(moved))
            return query + 1, state

        _, state = backend.while_loop(unfinished, body, (0, state))
        return tracker.result(state)


def _offsets(key, size, side):
    """Positions of all rows (or columns) relative to a random window."""
    places = ops.cast(size - side + 1, "float32")
    first = ops.floor(noise.uniform(key, (1,)) * places)
    return ops.arange(size)[None] - ops.cast(first, "int32")


def _window(key, height, width, side):
    """A random window of each image, as a mask, rows and columns."""
    rows = _offsets(noise.make_key(key, 1), height, side)[:, :, None, None]
    columns = _offsets(noise.make_key(key, 2), width, side)[:, None, :, None]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return inside, rows, columns


class Windows:
    """Proposals for l-infinity: one window, moved to corners of the ball."""

    def __init__(self, attack, problem):
        self.problem = problem
        _, self.height, self.width, self.channels = problem.images.shape
        self.sides = attack.window_sides(self.height, self.width)

    def first(self, key):
        """Returns the first proposal: vertical stripes."""
        signs = noise.signs(key, (1, self.width, self.channels))
        problem = self.problem
        return problem.project(problem.images + problem.radius * signs)

    def next(self, query, best, key):
        """Returns a window with a random sign for each channel."""
        problem = self.problem
        side = ops.take(ops.convert_to_tensor(self.sides), query)
        inside, _, _ = _window(key, self.height, self.width, side)
        signs = noise.signs(key, (1, 1, self.channels))
        moved = ops.where(inside, problem.images + problem.radius * signs, best)
        return problem.project(moved)


class Bumps:
    """Proposals for l2 and l1: one window gets the budget of another.

    Pairs of bumps with opposite signs change a smooth network more than flat
    squares.
    """

    def __init__(self, attack, problem):
        self.problem = problem
        self.power = {"l2": 2.0, "l1": 1.0}[attack.norm]
        _, self.height, self.width, self.channels = problem.images.shape
        shortest = min(self.height, self.width)
        sides = attack.window_sides(self.height, self.width)
        # Odd, because a bump has one pixel at its top.
        sides = np.maximum(sides, 3) // 2 * 2 + 1
        self.sides = np.minimum(sides, (shortest - 1) // 2 * 2 + 1)
        levels = sorted(set(self.sides.tolist()))
        self.level = np.searchsorted(levels, self.sides).astype("int32")
        self.largest = levels[-1]
        shape = (len(levels), self.largest, self.largest)
        self.patterns = np.zeros(shape, "float32")
        for pattern, side in zip(self.patterns, levels, strict=True):
            pattern[:side, :side] = two_bumps(side)

    def _mass(self, delta):
        """Sum of `abs(delta) ** power` over the pixels of each channel."""
        return ops.sum(ops.abs(delta) ** self.power, (1, 2), keepdims=True)

    def _norm(self, delta):
        return self._mass(delta) ** (1.0 / self.power)

    def first(self, key):
        """Returns pairs of bumps with random signs all over the image."""
        side = max(min(self.height, self.width) // 5, 1)
        rows, columns = np.arange(self.height), np.arange(self.width)
        tile = two_bumps(side) if side > 1 else np.ones((1, 1))
        bumps = tile[np.ix_(rows % side, columns % side)].astype("float32")
        cells = (self.height - 1) // side + 1, (self.width - 1) // side + 1
        signs = noise.signs(key, (*cells, self.channels))
        signs = ops.take(signs, rows // side, axis=1)
        signs = ops.take(signs, columns // side, axis=2)
        return self._spread(signs * bumps[:, :, None])

    def _spread(self, delta):
        """The point on the sphere in the direction of `delta`."""
        problem = self.problem
        size = ops.sum(self._mass(delta), -1, keepdims=True)
        size = size ** (1.0 / self.power) + 1e-12
        return problem.project(problem.images + delta / size * problem.radius)

    def next(self, query, best, key):
        """Returns a window that gets the budget of another window.

        It gets the unused part of the ball's radius as well.
        """
        problem = self.problem
        side = ops.take(ops.convert_to_tensor(self.sides), query)
        size = (self.height, self.width, side)
        taker, rows, columns = _window(noise.make_key(key, 3), *size)
        giver, _, _ = _window(noise.make_key(key, 4), *size)
        delta = best - problem.images

        used = ops.sum(self._mass(delta), -1, keepdims=True)
        unused = ops.maximum(problem.radius**self.power - used, 0.0)
        both = self._mass(ops.where(taker | giver, delta, 0.0))
        available = both + unused / self.channels

        signs = noise.signs(key, (1, 1, self.channels))
        old = ops.where(taker, delta, 0.0)
        old = old / (self._norm(old) + 1e-12)
        new = old + signs * self._bumps(query, taker, rows, columns, key)
        new = new / (self._norm(new) + 1e-12)
        new = new * available ** (1.0 / self.power)
        rest = ops.where(taker | giver, 0.0, delta)
        return self._spread(rest + new)

    def _bumps(self, query, inside, rows, columns, key):
        """The bumps in their window, in a random one of two orientations."""
        level = ops.take(ops.convert_to_tensor(self.level), query)
        pattern = ops.take(ops.convert_to_tensor(self.patterns), level, axis=0)
        pattern = ops.reshape(pattern, (-1,))
        rows = ops.clip(rows, 0, self.largest - 1)
        columns = ops.clip(columns, 0, self.largest - 1)
        upright = ops.take(pattern, rows * self.largest + columns)
        lying = ops.take(pattern, columns * self.largest + rows)
        turned = noise.signs(noise.make_key(key, 5), (1, 1, 1)) > 0
        bumps = ops.where(inside, ops.where(turned, lying, upright), 0.0)
        return bumps / (self._norm(bumps) + 1e-12)
