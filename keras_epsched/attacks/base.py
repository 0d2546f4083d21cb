"""What all gradient attacks share: bounds, bookkeeping and the gradient."""

import copy
import math
import numbers
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import losses, norms
from keras_epsched.configurable import Configurable

# Size of the largest entry of the gradient that is sent back into the
# network: far from both ends of float16, in which the network may compute,
# also where a temperature scales the logits by a thousand.
_COTANGENT = 16.0
# A gradient vanishes where no perturbation whatever changes the logits by this
# share of their size, to first order: float32 would round it away.
_VANISHING = 1e-6
# How titles name the losses that have a name.
_LOSS_TITLES = {
    "ce": "cross-entropy",
    "margin": "the logit margin",
    "dlr": "the difference of logits ratio",
}


class SearchResult(NamedTuple):
    """What `Attack.search` found for each image of a batch.

    Attributes:
        adversarial: Float32 images: the one that broke it, else the best.
            Of attacks that minimise the distance the nearest one that breaks
            it, which may lie outside the ball.
        broken: Boolean of shape `(batch,)`: it is misclassified.
        best: Float32 images of highest loss, to start from at a larger
            radius.
        zero_gradient: Boolean of shape `(batch,)`: the first gradient was
            zero or vanishingly small, so the attack could not work.
        distance: Float32 of shape `(batch,)`, or `None`: the smallest epsilon
            at which the attack breaks the image, infinity if it found none.
            Given by attacks that minimise it, whatever the radius.
    """

    adversarial: object
    broken: object
    best: object
    zero_gradient: object
    distance: object = None


class Attack(Configurable):
    """Base class of attacks that follow the gradient within a ball.

    An attack has two uses. In training, `perturb` returns the images to train
    on. In evaluation, `search` looks for a misclassified point: an image once
    broken stays broken, whatever later steps do.

    Both run inside a compiled function, take a radius per image, and act on
    pixels in `value_range`. Steps depend on the direction of the gradient
    only, so the loss of every image is rescaled such that its gradient at the
    logits has a fixed size: that keeps float16 networks, and very confident
    ones, from rounding the attack to zero. (A mean over draws of a randomised
    network needs their true sizes, and is not protected.)

    Subclasses define `_search`, and `_perturb` if they are fit for training,
    on a `Problem`.

    Args:
        steps: Int. Number of gradient steps.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        loss: String or function. What is maximised: `"ce"`, `"margin"`,
            `"dlr"`, or a function `(labels, logits) -> (batch,)`.
    """

    def __init__(self, steps, norm="linf", loss="ce"):
        self.steps = check_count(steps, "steps")
        self.norm = norms.get(norm).name
        if isinstance(loss, dict):
            loss = losses.get(loss)
        losses.get(loss)
        self.loss = loss

    def get_config(self):
        loss = self.loss
        if callable(loss):
            loss = keras.saving.serialize_keras_object(loss)
        return {"steps": self.steps, "norm": self.norm, "loss": loss}

    @property
    def title(self) -> str:
        """The attack as people name it: `"APGD-10 on cross-entropy"`.

        It says what an attack of its kind is chosen by, and which of the other
        arguments differ from the defaults. `repr` has all of them.
        """
        return ", ".join((self._headline(), *self._particulars()))

    def _headline(self):
        """The first part of the title."""
        name = type(self).__name__
        return f"{name}-{self.steps} on {loss_title(self.loss)}"

    def _particulars(self):
        """What the title adds of arguments that differ from the defaults."""
        return [] if self.norm == "linf" else [self.norm]

    def num_variants(self, num_classes: int) -> int:
        """Number of different runs: restarts, or classes to aim at."""
        return 1

    def check_shape(self, shape) -> None:
        """Raises a `ValueError` if images of this shape cannot be attacked."""

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of one `search`, per image."""
        return self.steps + 1, self.steps

    def perturb(
        self,
        logits_fn: Callable,
        images,
        labels,
        epsilon,
        key,
        value_range: tuple[float, float] = (0, 255),
        loss: Callable | None = None,
    ):
        """Returns adversarial images to train on.

        Args:
            logits_fn: Function from images to logits `(batch, num_classes)`.
            images: Float32 tensor `(batch, ...)` of pixels in `value_range`.
            labels: Integer tensor of shape `(batch,)`.
            epsilon: Float tensor, scalar or of shape `(batch,)`: the radius,
                on the [0, 1] scale.
            key: Integer tensor of shape `(batch,)`, from `noise.make_key`.
            value_range: Pair of the lowest and highest pixel value.
            loss: Function `(labels, logits) -> (batch,)` to maximise instead
                of the attack's own, as an objective may ask.

        Returns:
            A float32 tensor like `images`, without gradient.

        Raises:
            NotImplementedError: If the attack is for evaluation only.
        """
        problem = Problem(
            self, logits_fn, images, labels, epsilon, value_range, loss
        )
        return ops.stop_gradient(self._perturb(problem, key))

    @property
    def can_train(self) -> bool:
        """Whether `perturb` is there, and the attack fit for training."""
        return type(self)._perturb is not Attack._perturb

    @property
    def can_evaluate(self) -> bool:
        """Whether `search` is there, and the attack fit for evaluation."""
        return type(self)._search is not Attack._search

    def _perturb(self, problem, key):
        raise NotImplementedError(f"{self!r} is for evaluation only")

    def search(
        self,
        logits_fn: Callable,
        images,
        labels,
        epsilon,
        key,
        value_range: tuple[float, float] = (0, 255),
        start=None,
        use_start=None,
        variant=None,
    ) -> SearchResult:
        """Looks for a misclassified point around each image.

        Args:
            logits_fn: Function from images to logits `(batch, num_classes)`.
            images: Float32 tensor `(batch, ...)` of pixels in `value_range`.
            labels: Integer tensor of shape `(batch,)`.
            epsilon: Float tensor, scalar or of shape `(batch,)`: the radius,
                on the [0, 1] scale.
            key: Integer tensor of shape `(batch,)`, from `noise.make_key`.
            value_range: Pair of the lowest and highest pixel value.
            start: Images to start from instead of the attack's own start,
                projected onto the ball first.
            use_start: Boolean tensor of shape `(batch,)`: which images do.
            variant: Integer tensor of shape `(batch,)`: which of the
                `num_variants` runs this is; the first by default. The random
                numbers of a run follow from `key` alone.

        Returns:
            A `SearchResult`.
        """
        problem = Problem(self, logits_fn, images, labels, epsilon, value_range)
        if variant is None:
            variant = ops.zeros_like(problem.labels)
        variant = ops.cast(variant, "int32")
        return self._search(problem, key, start, use_start, variant)

    def _search(self, problem, key, start, use_start, variant):
        raise NotImplementedError(f"{self!r} is for training only")


def loss_title(loss: str | Callable) -> str:
    """Returns a loss as titles name it, a function by its own name."""
    if callable(loss):
        return getattr(loss, "__name__", type(loss).__name__)
    return _LOSS_TITLES.get(loss, f"the {loss.replace('_', ' ')}")


def counted(number: int, noun: str) -> str:
    """Returns a number of things in words, as `"5,000 queries"`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def check_count(value, name: str) -> int:
    """Returns a positive integer, or raises a `ValueError`."""
    # Those of NumPy as well.
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


class Problem:
    """One batch under attack: the ball, the box and the network."""

    def __init__(
        self,
        attack,
        logits_fn,
        images,
        labels,
        epsilon,
        value_range,
        loss=None,
    ):
        low, high = (float(bound) for bound in value_range)
        self.norm = norms.get(attack.norm)
        self.loss = losses.get(attack.loss) if loss is None else loss
        self.eot = getattr(attack, "eot", 1)
        self.logits_fn = logits_fn
        self.images = ops.cast(images, "float32")
        self.labels = ops.cast(labels, "int32")
        self.box = (low, high)
        self.column = (-1, *(1 for _ in self.images.shape[1:]))
        radius = ops.cast(epsilon, "float32") * (high - low)
        radius = ops.broadcast_to(radius, ops.shape(self.labels))
        self.radius = ops.reshape(radius, self.column)

    def project(self, moved):
        """Projects onto the ball around the images and the box."""
        return self.norm.project(moved, self.images, self.radius, self.box)

    def random_start(self, key, on_sphere=False):
        """A random point of the ball for each image."""
        return self.norm.start(
            self.images, self.radius, key, self.box, on_sphere
        )

    def mask(self, flags):
        """Shapes one flag (or number) an image for use on pixels."""
        return ops.reshape(flags, self.column)

    def select(self, flags, yes, no):
        """Chooses image by image."""
        return ops.where(self.mask(flags), yes, no)

    def is_broken(self, logits):
        """Misclassified, or not a finite answer."""
        wrong = ops.cast(ops.argmax(logits, axis=-1), "int32") != self.labels
        finite = ops.all(ops.isfinite(logits), axis=-1)
        return wrong | ~finite

    def logits(self, moved):
        """Logits in float32."""
        return ops.cast(self.logits_fn(moved), "float32")

    def judge(self, moved):
        """Returns the loss and whether the network errs."""
        logits = self.mean_logits(moved)
        return self.loss(self.labels, logits), self.is_broken(logits)

    def mean_logits(self, moved):
        """Logits, averaged over the draws of a randomised network."""
        return self._mean(lambda: (self.logits(moved),))[0]

    def _mean(self, draw):
        """Mean of tensors over the draws of a randomised network."""
        total = draw()
        for _ in range(1, self.eot):
            total = [a + b for a, b in zip(total, draw(), strict=True)]
        return [each / self.eot for each in total]

    def num_classes(self):
        """Number of logits."""
        return self.logits(self.images[:1]).shape[-1]

    def widened(self, factor):
        """The same problem in a larger ball."""
        wider = copy.copy(self)
        wider.radius = factor * self.radius
        return wider

    def rivals(self, logits, variant):
        """The class to aim at: the next ones in the order of the logits.

        Args:
            logits: Float32 tensor `(batch, num_classes)` of the clean images.
            variant: Integer tensor of shape `(batch,)`; 0 is the highest
                logit but that of the label.

        Returns:
            An int32 tensor of shape `(batch,)`.
        """
        own = ops.one_hot(self.labels, logits.shape[-1], dtype="bool")
        order = ops.argsort(ops.where(own, math.inf, -logits), axis=-1)
        rival = ops.take_along_axis(order, variant[:, None], -1)[:, 0]
        return ops.cast(rival, "int32")

    def linearise(self, moved, loss):
        """Returns a loss, its gradient, true to scale, and the logits."""
        logits, pull_logits = backend.vjp(self.logits_fn, moved)
        float_logits = ops.cast(logits, "float32")
        value, pull_loss = backend.vjp(
            lambda logits: loss(self.labels, logits), float_logits
        )
        cotangent = pull_loss(ops.full_like(value, _COTANGENT))
        gradient = pull_logits(ops.cast(cotangent, logits.dtype))
        gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
        return value, gradient / _COTANGENT, float_logits

    def gradient(self, moved):
        """Returns the loss, whether the network errs, the gradient, its flag.

        The gradient has the right direction for each image; its length is
        arbitrary, see `Attack`. The flag tells whether it vanishes. Of a
        randomised network it is the mean over `eot` draws, and no single draw
        decides whether the network errs.
        """
        if self.eot > 1:
            loss, gradient, logits = self._mean(
                lambda: self.linearise(moved, self.loss)
            )
            # Averages of vanishing losses are small without being wrong.
            zero = self._is_below(gradient, 0.0)
            return loss, self.is_broken(logits), gradient, zero
        logits, pull_logits = backend.vjp(self.logits_fn, moved)
        float_logits = ops.cast(logits, "float32")
        loss, pull_loss = backend.vjp(
            lambda logits: self.loss(self.labels, logits), float_logits
        )
        cotangent = pull_loss(ops.ones_like(loss))
        size = ops.max(ops.abs(cotangent), axis=-1, keepdims=True)
        safe = ops.where(size > 0, size, 1.0)
        cotangent = ops.where(size > 0, cotangent / safe * _COTANGENT, 0.0)
        gradient = pull_logits(ops.cast(cotangent, logits.dtype))
        # A step along NaN would leave the image, and count as breaking it.
        gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
        size = _COTANGENT * ops.max(ops.abs(float_logits), axis=-1)
        vanishes = self.is_vanishing(gradient, size)
        return loss, self.is_broken(float_logits), gradient, vanishes

    def is_vanishing(self, gradient, size):
        """Whether nothing in the box changes a value of a size noticeably."""
        return self._is_below(gradient, _VANISHING * size)

    def _is_below(self, gradient, threshold):
        low, high = self.box
        axes = tuple(range(1, len(gradient.shape)))
        reach = (high - low) * ops.sum(ops.abs(gradient), axis=axes)
        return reach <= threshold


class Tracker:
    """Keeps, image by image, the best point and the one that broke it.

    Its state is a `dict` of tensors, so that a compiled loop can carry it.
    """

    def __init__(self, problem):
        self.problem = problem

    def begin(self):
        """State before anything was evaluated."""
        images = self.problem.images
        never = ops.zeros_like(self.problem.labels, dtype="bool")
        return {
            "adversarial": images,
            "best": images,
            "best_loss": ops.full_like(
                self.problem.labels, -math.inf, dtype="float32"
            ),
            "broken": never,
        }

    def update(self, state, moved, loss, broken):
        """State after `moved` was evaluated."""
        select = self.problem.select
        better = loss > state["best_loss"]
        return {
            # The first point that breaks an image is kept.
            "adversarial": select(
                broken & ~state["broken"], moved, state["adversarial"]
            ),
            "best": select(better, moved, state["best"]),
            "best_loss": ops.where(better, loss, state["best_loss"]),
            "broken": state["broken"] | broken,
        }

    def result(self, state, zero_gradient):
        """The `SearchResult` of a finished search."""
        adversarial = self.problem.select(
            state["broken"], state["adversarial"], state["best"]
        )
        return SearchResult(
            ops.stop_gradient(adversarial),
            state["broken"],
            ops.stop_gradient(state["best"]),
            zero_gradient,
        )


def begin_at(problem, own_start, start, use_start):
    """The attack's own start, or the given one where it is wanted."""
    if start is None:
        return own_start
    return problem.select(use_start, problem.project(start), own_start)
