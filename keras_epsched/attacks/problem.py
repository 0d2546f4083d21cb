"""A batch under attack: the ball, the box, the network and its gradient."""

import copy
import math
import operator
from typing import NamedTuple

import keras
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import losses, norms

# The largest entry of the gradient at the logits is scaled to this size. It is
# far from both ends of float16, in which the network may compute, even if a
# temperature scales the logits by a thousand.
_COTANGENT = 16.0
# A gradient counts as vanishing if, to first order, no perturbation changes the
# logits by this share of their size. float32 would round such a change away.
_VANISHING = 1e-6


class Judgement(NamedTuple):
    """The result of the network at one point for each image.

    Attributes:
        loss: Float32 tensor of shape `(batch,)`.
        broken: Boolean tensor of shape `(batch,)`: true if the point is
            misclassified.
    """

    loss: object
    broken: object


class Gradient(NamedTuple):
    """A `Judgement` together with the gradient of the loss.

    Attributes:
        loss: Float32 tensor of shape `(batch,)`.
        broken: Boolean tensor of shape `(batch,)`: true if the point is
            misclassified.
        gradient: Float32 tensor of the shape of the images. Its direction is
            that of the gradient, and its length is arbitrary.
        vanishes: Boolean tensor of shape `(batch,)`: true if the gradient is
            zero or so small that rounding hides it.
    """

    loss: object
    broken: object
    gradient: object
    vanishes: object


class Linearisation(NamedTuple):
    """A loss, its gradient and the logits.

    Attributes:
        loss: Float32 tensor of shape `(batch,)`.
        gradient: Float32 tensor of the shape of the images, with its true
            length.
        logits: Float32 tensor of shape `(batch, num_classes)`.
    """

    loss: object
    gradient: object
    logits: object


class Problem:
    """A batch under attack: the ball, the box and the network.

    `Attack` passes a problem to `perturb_problem` and `search_problem`. Use
    its methods to write your own attack. The *ball* is the set of points
    within epsilon of an image, and the *box* is the set of points in the pixel
    range.

    Attributes:
        norm: The norm of the ball, from `attacks.norms`.
        images: Float32 tensor `(batch, ...)` of pixels.
        labels: Int32 tensor of shape `(batch,)`.
        radius: Float32 tensor of shape `(batch, 1, ..., 1)`: the radius of
            the ball, in the units of the pixels.
        box: Pair of the lowest and highest pixel value.
        loss: Function `(labels, logits) -> (batch,)` to maximise.

    Args:
        attack: `Attack`. Its `norm`, `loss` and `eot` are used.
        logits_fn: Function from images to logits `(batch, num_classes)`.
        images: Tensor `(batch, ...)` of pixels in `value_range`.
        labels: Integer tensor of shape `(batch,)`.
        epsilon: Float tensor, scalar or of shape `(batch,)`: the perturbation
            budget, on the [0, 1] scale.
        value_range: Pair of the lowest and highest pixel value.
        loss: Function to maximise instead of the attack's own loss, or
            `None`.
        start: Points to start from instead of the attack's own start, or
            `None`.
        use_start: Boolean tensor of shape `(batch,)`: true for images that
            begin at `start`.
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
        """Returns the nearest points in both the ball and the box."""
        return self.norm.project(moved, self.images, self.radius, self.box)

    def confine(self, moved, to_ball=True):
        """Moves points outside into the ball and the box.

        Unlike `project`, it does not change a point that lies inside, and it
        replaces pixels that are not finite by those of the image.

        Args:
            moved: Tensor of the shape of the images.
            to_ball: Boolean. If false, only the box is enforced.
        """
        moved = ops.where(ops.isfinite(moved), moved, self.images)
        if not to_ball:
            return ops.clip(moved, *self.box)
        return self.norm.confine(moved, self.images, self.radius, self.box)

    def contains(self, moved):
        """Returns which points lie in the ball (up to rounding) and the box."""
        return self.norm.contains(moved, self.images, self.radius, self.box)

    def in_box(self, moved):
        """Returns which points lie in the box, at any distance."""
        return norms.in_box(moved, self.box)

    def random_start(self, key, on_sphere=False):
        """Returns a random point of the ball for each image.

        Args:
            key: Integer tensor of shape `(batch,)`, from `noise.make_key`.
            on_sphere: Boolean. Whether the point lies on the surface of the
                ball.
        """
        return self.norm.start(
            self.images, self.radius, key, self.box, on_sphere
        )

    def begin_at(self, own_start):
        """Returns where to begin: `start` where given, else `own_start`."""
        if self.start is None:
            return own_start
        return self.select(self.use_start, self.project(self.start), own_start)

    def widened(self, factor):
        """Returns the same problem with the radius multiplied by `factor`."""
        wider = copy.copy(self)
        wider.radius = factor * self.radius
        return wider

    def mask(self, flags):
        """Reshapes one value per image so that it broadcasts over pixels."""
        return ops.reshape(flags, self.column)

    def select(self, flags, yes, no):
        """Returns `yes` for images with a true flag, and `no` for others."""
        return ops.where(self.mask(flags), yes, no)

    # === The network ===

    def logits(self, moved):
        """Returns logits in float32."""
        return ops.cast(self.logits_fn(moved), "float32")

    def mean_logits(self, moved):
        """Returns logits, averaged over `eot` calls of the network."""
        return self._mean(lambda: self.logits(moved))

    def num_classes(self):
        """Returns the number of classes."""
        return self.logits(self.images[:1]).shape[-1]

    def is_broken(self, logits):
        """Returns which logits are of another class or not finite."""
        wrong = ops.cast(ops.argmax(logits, axis=-1), "int32") != self.labels
        finite = ops.all(ops.isfinite(logits), axis=-1)
        return wrong | ~finite

    def judge(self, moved) -> Judgement:
        """Returns the loss of points, and whether they are misclassified."""
        logits = self.mean_logits(moved)
        return Judgement(self.loss(self.labels, logits), self.is_broken(logits))

    def targets(self, logits, number):
        """Returns target classes for a targeted attack.

        Args:
            logits: Float32 tensor `(batch, num_classes)` of the clean images.
            number: Integer tensor of shape `(batch,)`: the number of the
                target. 0 is the wrong class with the highest logit, 1 the one
                with the second highest logit, and so on.

        Returns:
            An int32 tensor of shape `(batch,)`.
        """
        own = ops.one_hot(self.labels, logits.shape[-1], dtype="bool")
        order = ops.argsort(ops.where(own, math.inf, -logits), axis=-1)
        target = ops.take_along_axis(order, number[:, None], -1)[:, 0]
        return ops.cast(target, "int32")

    # === The gradient ===

    def linearise(self, moved, loss) -> Linearisation:
        """Returns a loss at points, and its gradient with its true length.

        Args:
            moved: Tensor of the shape of the images.
            loss: Function `(labels, logits) -> (batch,)`.
        """
        found = self._differentiate(moved, loss, _true_to_scale)
        return found._replace(gradient=found.gradient / _COTANGENT)

    def gradient(self, moved) -> Gradient:
        """Returns the loss of points, its gradient, and which are broken.

        If `eot` is above 1, everything is averaged over `eot` calls of the
        network.

        Args:
            moved: Tensor of the shape of the images.
        """
        if self.eot > 1:
            found = self._mean(lambda: self.linearise(moved, self.loss))
            # A mean may be small without rounding errors, so only zero counts.
            vanishes = self._is_below(found.gradient, 0.0)
        else:
            found = self._differentiate(moved, self.loss, _of_one_size)
            size = _COTANGENT * ops.max(ops.abs(found.logits), axis=-1)
            vanishes = self.is_vanishing(found.gradient, size)
        broken = self.is_broken(found.logits)
        return Gradient(found.loss, broken, found.gradient, vanishes)

    def is_vanishing(self, gradient, size):
        """Returns where no step in the box changes a value noticeably.

        Args:
            gradient: Tensor of the shape of the images, of the value.
            size: Tensor of shape `(batch,)`, the size of the value.
        """
        return self._is_below(gradient, _VANISHING * size)

    def _is_below(self, gradient, threshold):
        low, high = self.box
        axes = tuple(range(1, len(gradient.shape)))
        reach = (high - low) * ops.sum(ops.abs(gradient), axis=axes)
        return reach <= threshold

    def _mean(self, draw):
        """Mean over `eot` calls of the network."""
        total = draw()
        for _ in range(1, self.eot):
            total = keras.tree.map_structure(operator.add, total, draw())
        return keras.tree.map_structure(lambda each: each / self.eot, total)

    def _differentiate(self, moved, loss, cotangent):
        """One forward pass and one backward pass.

        `cotangent` returns the gradient at the logits that is sent back into
        the network. Its arguments are the loss and the function that
        backpropagates the loss to the logits.
        """
        logits, pull_logits = backend.vjp(self.logits_fn, moved)
        float_logits = ops.cast(logits, "float32")
        value, pull_loss = backend.vjp(
            lambda logits: loss(self.labels, logits), float_logits
        )
        sent = cotangent(value, pull_loss)
        gradient = pull_logits(ops.cast(sent, logits.dtype))
        # A step along NaN would give an image of NaN, which would count as
        # broken.
        gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
        return Linearisation(value, gradient, float_logits)


def _true_to_scale(value, pull):
    """The gradient at the logits, times a constant that suits float16."""
    return pull(ops.full_like(value, _COTANGENT))


def _of_one_size(value, pull):
    """The gradient at the logits, scaled to one size for all images."""
    cotangent = pull(ops.ones_like(value))
    size = ops.max(ops.abs(cotangent), axis=-1, keepdims=True)
    safe = ops.where(size > 0, size, 1.0)
    return ops.where(size > 0, cotangent / safe * _COTANGENT, 0.0)
