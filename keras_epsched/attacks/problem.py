"""One batch under attack: the ball, the box, the network, its gradient."""

import copy
import math
import operator
from typing import NamedTuple

import keras
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import losses, norms

# Size of the largest entry of the gradient that is sent back into the
# network: far from both ends of float16, in which the network may compute,
# also where a temperature scales the logits by a thousand.
_COTANGENT = 16.0
# A gradient vanishes where no perturbation whatever changes the logits by this
# share of their size, to first order: float32 would round it away.
_VANISHING = 1e-6


class Judgement(NamedTuple):
    """What the network says of one point for each image.

    Attributes:
        loss: Float32 of shape `(batch,)`.
        broken: Boolean of shape `(batch,)`: the network errs.
    """

    loss: object
    broken: object


class Gradient(NamedTuple):
    """A `Judgement`, and where the loss rises from there.

    Attributes:
        loss: Float32 of shape `(batch,)`.
        broken: Boolean of shape `(batch,)`: the network errs.
        gradient: Float32 tensor like the images. It has the right direction
            for each image; its length is arbitrary.
        vanishes: Boolean of shape `(batch,)`: it is zero, or so small that
            rounding would swallow it.
    """

    loss: object
    broken: object
    gradient: object
    vanishes: object


class Linearisation(NamedTuple):
    """A loss to first order.

    Attributes:
        loss: Float32 of shape `(batch,)`.
        gradient: Float32 tensor like the images, true to scale.
        logits: Float32 of shape `(batch, num_classes)`.
    """

    loss: object
    gradient: object
    logits: object


class Problem:
    """One batch under attack: the ball, the box and the network.

    Attributes:
        norm: The norm of the ball, of `attacks.norms`.
        images: Float32 tensor `(batch, ...)` of pixels.
        labels: Int32 tensor of shape `(batch,)`.
        radius: Float32 tensor of shape `(batch, 1, ..., 1)`, in the units of
            the pixels.
        box: Pair of the lowest and highest pixel value.
        loss: Function `(labels, logits) -> (batch,)` to maximise.

    Args:
        attack: `Attack`, for its norm, its loss and its draws.
        logits_fn: Function from images to logits `(batch, num_classes)`.
        images: Tensor `(batch, ...)` of pixels in `value_range`.
        labels: Integer tensor of shape `(batch,)`.
        epsilon: Float tensor, scalar or of shape `(batch,)`: the radius, on
            the [0, 1] scale.
        value_range: Pair of the lowest and highest pixel value.
        loss: Function to maximise instead of the attack's own, or `None`.
        start: Images to start from instead of the attack's own start, or
            `None`.
        use_start: Boolean tensor of shape `(batch,)`: which images do.
    """

    def __init__(
        self,
        attack,
        logits_fn,
        images,
        labels,
        epsilon,
        value_range,
        loss=None,
        start=None,
        use_start=None,
    ):
        low, high = (float(bound) for bound in value_range)
        self.norm = norms.get(attack.norm)
        self.loss = losses.get(attack.loss) if loss is None else loss
        self.eot = attack.eot
        self.logits_fn = logits_fn
        self.images = ops.cast(images, "float32")
        self.labels = ops.cast(labels, "int32")
        self.box = (low, high)
        self.column = (-1, *(1 for _ in self.images.shape[1:]))
        radius = ops.cast(epsilon, "float32") * (high - low)
        radius = ops.broadcast_to(radius, ops.shape(self.labels))
        self.radius = ops.reshape(radius, self.column)
        self.start = start
        self.use_start = use_start

    # === Points ===

    def project(self, moved):
        """Projects onto the ball around the images and the box."""
        return self.norm.project(moved, self.images, self.radius, self.box)

    def confine(self, moved, to_ball=True):
        """Moves points into the ball and the box, and leaves others alone.

        Unlike `project`, it keeps a point that lies inside bit for bit, and
        gives pixels that are not finite the value of the image.

        Args:
            moved: Tensor like the images.
            to_ball: Boolean. Whether the ball counts, or the box alone.
        """
        moved = ops.where(ops.isfinite(moved), moved, self.images)
        if not to_ball:
            return ops.clip(moved, *self.box)
        return self.norm.confine(moved, self.images, self.radius, self.box)

    def contains(self, moved):
        """Which points lie in the box, and in the ball up to rounding."""
        return self.norm.contains(moved, self.images, self.radius, self.box)

    def in_box(self, moved):
        """Which points lie in the box, at any distance."""
        return norms.in_box(moved, self.box)

    def random_start(self, key, on_sphere=False):
        """A random point of the ball for each image."""
        return self.norm.start(
            self.images, self.radius, key, self.box, on_sphere
        )

    def begin_at(self, own_start):
        """The attack's own start, or the given one where it is wanted."""
        if self.start is None:
            return own_start
        return self.select(self.use_start, self.project(self.start), own_start)

    def widened(self, factor):
        """The same problem in a larger ball."""
        wider = copy.copy(self)
        wider.radius = factor * self.radius
        return wider

    def mask(self, flags):
        """Shapes one flag (or number) an image for use on pixels."""
        return ops.reshape(flags, self.column)

    def select(self, flags, yes, no):
        """Chooses image by image."""
        return ops.where(self.mask(flags), yes, no)

    # === The network ===

    def logits(self, moved):
        """Logits in float32."""
        return ops.cast(self.logits_fn(moved), "float32")

    def mean_logits(self, moved):
        """Logits, averaged over the draws of a randomised network."""
        return self._mean(lambda: self.logits(moved))

    def num_classes(self):
        """Number of logits."""
        return self.logits(self.images[:1]).shape[-1]

    def is_broken(self, logits):
        """Misclassified, or not a finite answer."""
        wrong = ops.cast(ops.argmax(logits, axis=-1), "int32") != self.labels
        finite = ops.all(ops.isfinite(logits), axis=-1)
        return wrong | ~finite

    def judge(self, moved) -> Judgement:
        """Returns the loss of points, and whether the network errs there."""
        logits = self.mean_logits(moved)
        return Judgement(self.loss(self.labels, logits), self.is_broken(logits))

    def targets(self, logits, number):
        """The classes to aim at, in the order of the logits.

        Args:
            logits: Float32 tensor `(batch, num_classes)` of the clean images.
            number: Integer tensor of shape `(batch,)`: which target; 0 is the
                class of the highest logit but that of the label.

        Returns:
            An int32 tensor of shape `(batch,)`.
        """
        own = ops.one_hot(self.labels, logits.shape[-1], dtype="bool")
        order = ops.argsort(ops.where(own, math.inf, -logits), axis=-1)
        target = ops.take_along_axis(order, number[:, None], -1)[:, 0]
        return ops.cast(target, "int32")

    # === The gradient ===

    def linearise(self, moved, loss) -> Linearisation:
        """Returns a loss at points to first order, true to scale."""
        found = self._differentiate(moved, loss, _true_to_scale)
        return found._replace(gradient=found.gradient / _COTANGENT)

    def gradient(self, moved) -> Gradient:
        """Returns the loss of points, and the gradient that leads upwards.

        Of a randomised network it is the mean over `eot` draws, and no single
        draw decides whether the network errs.
        """
        if self.eot > 1:
            found = self._mean(lambda: self.linearise(moved, self.loss))
            # Averages of vanishing losses are small without being wrong.
            vanishes = self._is_below(found.gradient, 0.0)
        else:
            found = self._differentiate(moved, self.loss, _of_one_size)
            size = _COTANGENT * ops.max(ops.abs(found.logits), axis=-1)
            vanishes = self.is_vanishing(found.gradient, size)
        broken = self.is_broken(found.logits)
        return Gradient(found.loss, broken, found.gradient, vanishes)

    def is_vanishing(self, gradient, size):
        """Whether nothing in the box changes a value of a size noticeably."""
        return self._is_below(gradient, _VANISHING * size)

    def _is_below(self, gradient, threshold):
        low, high = self.box
        axes = tuple(range(1, len(gradient.shape)))
        reach = (high - low) * ops.sum(ops.abs(gradient), axis=axes)
        return reach <= threshold

    def _mean(self, draw):
        """Mean over the draws of a randomised network."""
        total = draw()
        for _ in range(1, self.eot):
            total = keras.tree.map_structure(operator.add, total, draw())
        return keras.tree.map_structure(lambda each: each / self.eot, total)

    def _differentiate(self, moved, loss, cotangent):
        """One pass forward and one back.

        `cotangent` says what is sent back into the network, of the loss and
        the function that leads from it to the logits.
        """
        logits, pull_logits = backend.vjp(self.logits_fn, moved)
        float_logits = ops.cast(logits, "float32")
        value, pull_loss = backend.vjp(
            lambda logits: loss(self.labels, logits), float_logits
        )
        sent = cotangent(value, pull_loss)
        gradient = pull_logits(ops.cast(sent, logits.dtype))
        # A step along NaN would leave the image, and count as breaking it.
        gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
        return Linearisation(value, gradient, float_logits)


def _true_to_scale(value, pull):
    """The gradient at the logits, in units that float16 holds."""
    return pull(ops.full_like(value, _COTANGENT))


def _of_one_size(value, pull):
    """The direction of the gradient at the logits, of one size for all."""
    cotangent = pull(ops.ones_like(value))
    size = ops.max(ops.abs(cotangent), axis=-1, keepdims=True)
    safe = ops.where(size > 0, size, 1.0)
    return ops.where(size > 0, cotangent / safe * _COTANGENT, 0.0)
