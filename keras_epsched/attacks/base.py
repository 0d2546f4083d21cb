"""The base class of attacks: what all of them promise."""

import numbers
from collections.abc import Callable

import keras
from keras import ops

from keras_epsched.attacks import losses, norms
from keras_epsched.attacks.problem import Problem
from keras_epsched.attacks.tracker import SearchResult, confine_result
from keras_epsched.configurable import Configurable

# How titles name the losses that have a name.
_LOSS_TITLES = {
    "ce": "cross-entropy",
    "margin": "the logit margin",
    "dlr": "the difference of logits ratio",
}
# What subclasses overrode once, and what they override now.
_RENAMED = {
    "_perturb": "perturb_problem(self, problem, key)",
    "_search": "search_problem(self, problem, key, variant)",
    "_headline": "headline(self)",
    "_particulars": "particulars(self)",
}


class Attack(Configurable):
    """Base class of attacks that move images within a ball.

    An attack has two uses. In training, `perturb` returns the images to train
    on. In evaluation, `search` looks for a misclassified point: an image once
    broken stays broken, whatever later steps do.

    Both run inside a compiled function, take a radius per image, and act on
    pixels in `value_range`. Steps depend on the direction of the gradient
    only, so the loss of every image is rescaled such that its gradient at the
    logits has a fixed size: that keeps float16 networks, and very confident
    ones, from rounding the attack to zero. (A mean over draws of a randomised
    network needs their true sizes, and is not protected.)

    **Your own attack.** A subclass defines `perturb_problem` to be fit for
    training and `search_problem` to be fit for evaluation. Both get a
    `Problem`, which has the ball, the box and the gradient. A subclass may
    also define `headline` and `particulars`, which make its title;
    `num_variants`, the number of its runs; `passes`, their cost; and
    `training_passes`, the cost of `perturb_problem` where that is another.

    `perturb` and `search` enforce the ball and the box, up to the rounding of
    float32. A point that `perturb_problem` returns outside is moved inside. A
    point that `search_problem` returns outside does not break its image. A
    pixel that is not finite is outside. Two class attributes declare
    exceptions:

    - `stays_in_ball = False`: images to train on may leave the ball, as those
      of `NFGSM` do, but not the box.
    - `minimises_distance = True`: `search_problem` looks for the nearest
      misclassified point, as `FAB` does, and may find one outside of the
      ball, but not outside of the box. Its `broken` says whether it found any.
      `search` measures the distance, and whether it exceeds the radius.

    Args:
        steps: Int. Number of gradient steps.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        loss: String or function. What is maximised: `"ce"`, `"margin"`,
            `"dlr"`, or a function `(labels, logits) -> (batch,)`.

    Example:
    ```python
    from keras_epsched import backend
    from keras_epsched.attacks import Attack, Tracker, noise


    @keras.saving.register_keras_serializable("my_package")
    class RandomPoints(Attack):
        "The worst of random points on the sphere, without any gradient."

        def search_problem(self, problem, key, variant):
            tracker = Tracker(problem)

            def body(index, state):
                draw = noise.make_key(key, index)
                moved = problem.random_start(draw, on_sphere=True)
                return tracker.update(state, moved, problem.judge(moved))

            state = backend.fori_loop(0, self.steps, body, tracker.begin())
            return tracker.result(state)

        def perturb_problem(self, problem, key):
            return self.search_problem(problem, key, None).best

        def passes(self, num_classes):
            return self.steps, 0

        def headline(self):
            return f"{self.steps} random points"


    report = keras_epsched.evaluate(
        classifier, data.test, grid, RandomPoints(steps=10)
    )
    ```
    """

    stays_in_ball = True
    minimises_distance = False
    # Draws of a randomised network that are averaged.
    eot = 1

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # It would never be called, and the attack be another one in silence.
        for old, new in _RENAMED.items():
            if hasattr(cls, old):
                raise ValueError(
                    f"`{cls.__name__}` defines `{old}`, which attacks no "
                    f"longer call: define `{new}` instead. See "
                    "`keras_epsched.attacks.Attack`"
                )

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
        return ", ".join((self.headline(), *self.particulars()))

    def headline(self) -> str:
        """Returns the first part of the title."""
        name = type(self).__name__
        return f"{name}-{self.steps} on {loss_title(self.loss)}"

    def particulars(self) -> list[str]:
        """Returns what the title adds of arguments that are not default."""
        return [] if self.norm == "linf" else [self.norm]

    def num_variants(self, num_classes: int) -> int:
        """Number of different runs: one for each restart and target."""
        return 1

    def check_shape(self, shape) -> None:
        """Raises a `ValueError` if images of this shape cannot be attacked."""

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of one `search`, per image."""
        return self.steps + 1, self.steps

    def training_passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of one `perturb`, per image."""
        return self.passes(num_classes)

    @property
    def can_train(self) -> bool:
        """Whether `perturb` is there, and the attack fit for training."""
        return type(self).perturb_problem is not Attack.perturb_problem

    @property
    def can_evaluate(self) -> bool:
        """Whether `search` is there, and the attack fit for evaluation."""
        return type(self).search_problem is not Attack.search_problem

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
            A float32 tensor like `images`, without gradient, in the box and,
            unless the attack declares otherwise, in the ball.

        Raises:
            NotImplementedError: If the attack is for evaluation only.
        """
        problem = Problem(
            self, logits_fn, images, labels, epsilon, value_range, loss
        )
        moved = self.perturb_problem(problem, key)
        return ops.stop_gradient(problem.confine(moved, self.stays_in_ball))

    def perturb_problem(self, problem: Problem, key):
        """Moves a batch, for training. Subclasses override it.

        Args:
            problem: `Problem`.
            key: Integer tensor of shape `(batch,)`, for `attacks.noise` and
                `Problem.random_start`.

        Returns:
            A float32 tensor like `problem.images`.
        """
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
            A `SearchResult`. No point outside of the ball or the box counts
            as breaking an image.

        Raises:
            NotImplementedError: If the attack is for training only.
        """
        problem = Problem(
            self,
            logits_fn,
            images,
            labels,
            epsilon,
            value_range,
            start=start,
            use_start=use_start,
        )
        if variant is None:
            variant = ops.zeros_like(problem.labels)
        variant = ops.cast(variant, "int32")
        found = self.search_problem(problem, key, variant)
        return confine_result(problem, found, self.minimises_distance)

    def search_problem(self, problem: Problem, key, variant) -> SearchResult:
        """Looks for misclassified points. Subclasses override it.

        Args:
            problem: `Problem`. `Problem.begin_at` takes the attack's own start
                and returns where to begin: a sweep hands points of other
                radii on.
            key: Integer tensor of shape `(batch,)`, for `attacks.noise` and
                `Problem.random_start`.
            variant: Int32 tensor of shape `(batch,)`: which of the
                `num_variants` runs this is.

        Returns:
            A `SearchResult`, as `Tracker.result` makes it. `distance` is not
            read.
        """
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
