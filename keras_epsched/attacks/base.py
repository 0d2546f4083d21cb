"""The base class of attacks."""

import numbers
from collections.abc import Callable

import keras
from keras import ops

from keras_epsched.attacks import losses, norms
from keras_epsched.attacks.problem import Problem
from keras_epsched.attacks.tracker import SearchResult, confine_result
from keras_epsched.configurable import Configurable

# The names of losses in titles.
_LOSS_TITLES = {
    "ce": "cross-entropy",
    "margin": "the logit margin",
    "dlr": "the difference of logits ratio",
}
# Methods that subclasses of older versions override, and their new names.
_RENAMED = {
    "_perturb": "perturb_problem(self, problem, key)",
    "_search": "search_problem(self, problem, key, variant)",
    "_headline": "headline(self)",
    "_particulars": "particulars(self)",
}


class Attack(Configurable):
    """Base class of adversarial attacks.

    Subclass it to write your own attack. Use one of its subclasses, such as
    `APGD`, for training and evaluation.

    An attack has two uses. In training, `perturb` returns the images to train
    on. In evaluation, `search` looks for a misclassified point. An image that
    was broken at any step counts as broken, whatever later steps do.

    Both methods run inside a compiled function, take one perturbation budget
    per image, and act on pixels in `value_range`. The *ball* is the set of
    points within the budget, and the *box* is the set of points in
    `value_range`.

    Attack steps depend only on the direction of the gradient. The loss of each
    image is therefore rescaled so that its gradient at the logits has a fixed
    size. Otherwise the gradients of float16 networks and of very confident
    networks would round to zero. The rescaling is not possible with `eot`
    above 1, because a mean of gradients needs their true sizes.

    **Your own attack.** Define `perturb_problem` for training and
    `search_problem` for evaluation. Both get a `Problem`, which has the ball,
    the box and the gradient. You can also define:

    - `headline` and `particulars`, the parts of the title;
    - `num_variants`, the number of runs, for example one for each restart;
    - `passes`, the cost of `search`;
    - `training_passes`, the cost of `perturb`, if it differs from `passes`.

    `perturb` and `search` enforce the ball and the box, up to the rounding of
    float32. If `perturb_problem` returns a point outside, the point is moved
    inside. If `search_problem` returns a point outside, it does not count as
    breaking the image. A pixel that is not finite counts as outside. Two class
    attributes declare exceptions:

    - `stays_in_ball = False`: images to train on may leave the ball but not
      the box, as with `NFGSM`.
    - `minimises_distance = True`: `search_problem` looks for the nearest
      misclassified point, as with `FAB`. The point may lie outside of the ball
      but not outside of the box, and `broken` says whether a point was found.
      `search` measures its distance and compares it with the budget.

    Args:
        steps: Int. Number of gradient steps.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.
        loss: String or function. The loss to maximise: `"ce"` (cross-entropy),
            `"margin"`, `"dlr"`, `"probability_margin"`, or a function
            `(labels, logits) -> (batch,)`. Defaults to `"ce"`.

    Example:
    ```python
    from keras_epsched import backend
    from keras_epsched.attacks import Attack, Tracker, noise


    @keras.saving.register_keras_serializable("my_package")
    class RandomPoints(Attack):
        "Tries random points on the sphere, without gradients."

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
    # Number of outputs of a randomised network to average.
    eot = 1

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # The old method would never be called, and the attack would silently
        # do something else.
        for old, new in _RENAMED.items():
            if hasattr(cls, old):
                raise ValueError(
                    f"`{cls.__name__}` defines `{old}`, which is no longer "
                    f"called. Define `{new}` instead, see "
                    "`keras_epsched.attacks.Attack`."
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
        """A short name for tables and pages: `"APGD-10 on cross-entropy"`.

        It contains the main arguments, and other arguments only if they
        differ from their defaults. `repr` shows all arguments.
        """
        return ", ".join((self.headline(), *self.particulars()))

    def headline(self) -> str:
        """Returns the first part of the title."""
        name = type(self).__name__
        return f"{name}-{self.steps} on {loss_title(self.loss)}"

    def particulars(self) -> list[str]:
        """Returns texts on arguments that differ from their defaults."""
        return [] if self.norm == "linf" else [self.norm]

    def num_variants(self, num_classes: int) -> int:
        """Returns the number of runs: one for each restart or target class.

        Args:
            num_classes: Int. Number of classes.
        """
        return 1

    def check_shape(self, shape) -> None:
        """Raises a `ValueError` if images of this shape cannot be attacked.

        Args:
            shape: Tuple, the shape of a batch of images.
        """

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Returns the forward and backward passes of one `search` per image.

        Args:
            num_classes: Int. Number of classes.
        """
        return self.steps + 1, self.steps

    def training_passes(self, num_classes: int) -> tuple[int, int]:
        """Returns the forward and backward passes of one `perturb` per image.

        Args:
            num_classes: Int. Number of classes.
        """
        return self.passes(num_classes)

    @property
    def can_train(self) -> bool:
        """Whether the attack can be used for training (`perturb`)."""
        return type(self).perturb_problem is not Attack.perturb_problem

    @property
    def can_evaluate(self) -> bool:
        """Whether the attack can be used for evaluation (`search`)."""
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
            epsilon: Float tensor, scalar or of shape `(batch,)`: the
                perturbation budget, on the [0, 1] scale.
            key: Integer tensor of shape `(batch,)`, from `noise.make_key`. It
                decides the random numbers.
            value_range: Pair of the lowest and highest pixel value. Defaults
                to `(0, 255)`.
            loss: Optional function `(labels, logits) -> (batch,)` to maximise
                instead of the attack's own loss. Training objectives such as
                TRADES pass one.

        Returns:
            A float32 tensor of the shape of `images`, without gradient. It
            lies in the box. It lies in the ball too, unless
            `stays_in_ball` is false.

        Raises:
            NotImplementedError: If the attack is for evaluation only.
        """
        problem = Problem(
            self, logits_fn, images, labels, epsilon, value_range, loss
        )
        moved = self.perturb_problem(problem, key)
        return ops.stop_gradient(problem.confine(moved, self.stays_in_ball))

    def perturb_problem(self, problem: Problem, key):
        """Perturbs a batch for training. Subclasses override it.

        Args:
            problem: `Problem`.
            key: Integer tensor of shape `(batch,)`, for `attacks.noise` and
                `Problem.random_start`.

        Returns:
            A float32 tensor of the shape of `problem.images`.
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
            epsilon: Float tensor, scalar or of shape `(batch,)`: the
                perturbation budget, on the [0, 1] scale.
            key: Integer tensor of shape `(batch,)`, from `noise.make_key`. It
                decides the random numbers.
            value_range: Pair of the lowest and highest pixel value. Defaults
                to `(0, 255)`.
            start: Optional tensor of the shape of `images`: points to start
                from. They are projected onto the ball first.
            use_start: Boolean tensor of shape `(batch,)`: true for images
                that begin at `start`, false for the attack's own start.
            variant: Integer tensor of shape `(batch,)`: the number of the run,
                below `num_variants`. Defaults to 0.

        Returns:
            A `SearchResult`. A point outside of the ball or the box does not
            count as breaking an image.

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
            problem: `Problem`. Pass the attack's own start to
                `Problem.begin_at`, which returns where to begin. An evaluation
                may continue from points of another epsilon.
            key: Integer tensor of shape `(batch,)`, for `attacks.noise` and
                `Problem.random_start`.
            variant: Int32 tensor of shape `(batch,)`: the number of the run,
                below `num_variants`.

        Returns:
            A `SearchResult`, for example from `Tracker.result`. Its
            `distance` is ignored.
        """
        raise NotImplementedError(f"{self!r} is for training only")


def loss_title(loss: str | Callable) -> str:
    """Returns the name of a loss in titles.

    Args:
        loss: String or function.
    """
    if callable(loss):
        return getattr(loss, "__name__", type(loss).__name__)
    return _LOSS_TITLES.get(loss, f"the {loss.replace('_', ' ')}")


def counted(number: int, noun: str) -> str:
    """Returns a number with a noun, for example `"5,000 queries"`.

    Args:
        number: Int.
        noun: String, in the singular.
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def check_count(value, name: str) -> int:
    """Returns a positive integer, or raises a `ValueError`.

    Args:
        value: Integer of Python or NumPy.
        name: String. Name of the value in the error message.
    """
    # NumPy integers are accepted too.
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)
