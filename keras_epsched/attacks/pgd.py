"""Projected gradient descent, and attacks with a single step."""

from keras import ops

from keras_epsched import backend
from keras_epsched.attacks.base import Attack, loss_title
from keras_epsched.attacks.tracker import Tracker
from keras_epsched.configurable import register


@register
class PGD(Attack):
    """Projected gradient descent (PGD) with steps of a fixed length.

    Use it for adversarial training. The length of a step is a share of
    epsilon, so it follows an epsilon schedule automatically.

    In training the last point is returned, which takes `steps` input
    gradients. In evaluation an image is broken if any of the points is
    misclassified.

    Reference: Madry et al., "Towards Deep Learning Models Resistant to
    Adversarial Attacks", ICLR 2018 (arXiv 1706.06083).

    Args:
        steps: Int. Number of gradient steps. Defaults to `7`.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.
        loss: String or function. The loss to maximise, see `Attack`.
        step_ratio: Float or `None`. Length of a step as a share of epsilon.
            `None` means `2.5 / steps`. With `"l2"` and a random start, the
            default reaches a loss about 2 % below the optimum of a linear
            model. `step_ratio=0.4` reaches the optimum.
        random_start: Boolean. Whether to start at a random point of the ball.
            Defaults to `True`.

    Example:
    ```python
    attack = keras_epsched.attacks.PGD(steps=7)
    trainer = keras_epsched.AdversarialTrainer(classifier, attack=attack)
    ```
    """

    def __init__(
        self,
        steps=7,
        norm="linf",
        loss="ce",
        step_ratio=None,
        random_start=True,
    ):
        super().__init__(steps, norm, loss)
        if step_ratio is not None and not step_ratio > 0:
            raise ValueError(
                "`step_ratio` must be positive. It is the length of a step as "
                f"a share of epsilon. Received: step_ratio={step_ratio}"
            )
        self.step_ratio = step_ratio
        self.random_start = bool(random_start)

    def get_config(self):
        return {
            **super().get_config(),
            "step_ratio": self.step_ratio,
            "random_start": self.random_start,
        }

    def particulars(self):
        own = []
        if self.step_ratio is not None:
            own.append(f"steps of {self.step_ratio:g} epsilon")
        if not self.random_start:
            own.append("no random start")
        return [*own, *super().particulars()]

    def start_point(self, problem, key):
        """Returns where the steps begin."""
        if self.random_start:
            return problem.random_start(key)
        return problem.project(problem.images)

    def next_point(self, problem, moved, gradient):
        """Returns the point after a step along the gradient."""
        ratio = 2.5 / self.steps if self.step_ratio is None else self.step_ratio
        length = ratio * problem.radius
        step = problem.norm.step(gradient, moved, length, problem.box)
        return problem.project(moved + step)

    def training_passes(self, num_classes):
        # The last point is not evaluated.
        return self.steps, self.steps

    def perturb_problem(self, problem, key):
        def body(_, moved):
            gradient = problem.gradient(moved).gradient
            return self.next_point(problem, moved, gradient)

        start = self.start_point(problem, key)
        return backend.fori_loop(0, self.steps, body, start)

    def search_problem(self, problem, key, variant):
        tracker = Tracker(problem)

        def body(index, carry):
            moved, state, no_gradient = carry
            seen = problem.gradient(moved)
            state = tracker.update(state, moved, seen)
            zero = ops.where(index == 0, seen.vanishes, no_gradient)
            return self.next_point(problem, moved, seen.gradient), state, zero

        start = problem.begin_at(self.start_point(problem, key))
        begin = tracker.begin()
        moved, state, zero = backend.fori_loop(
            0, self.steps, body, (start, begin, begin["broken"])
        )
        state = tracker.update(state, moved, problem.judge(moved))
        return tracker.result(state, zero)


@register
class FGSM(PGD):
    """Fast gradient sign method (FGSM): one step of length epsilon.

    Use it for fast adversarial training. With `random_start=True` and
    `step_ratio=1.25` it is the attack of Wong et al. (ICLR 2020, arXiv
    2001.03994). Do not use it to measure robustness: it is optimal for linear
    models, but far too weak for all others.

    Reference: Goodfellow et al., ICLR 2015 (arXiv 1412.6572).

    Args:
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        loss: String or function. The loss to maximise, see `Attack`.
        step_ratio: Float. Length of the step as a share of epsilon. Defaults
            to `1.0`.
        random_start: Boolean. Whether to start at a random point of the ball.
            Defaults to `False`.

    Example:
    ```python
    attack = keras_epsched.attacks.FGSM(random_start=True, step_ratio=1.25)
    ```
    """

    def __init__(
        self, norm="linf", loss="ce", step_ratio=1.0, random_start=False
    ):
        super().__init__(1, norm, loss, step_ratio, random_start)

    def get_config(self):
        config = super().get_config()
        del config["steps"]
        return config

    def headline(self):
        return f"{type(self).__name__} on {loss_title(self.loss)}"

    def particulars(self):
        own = []
        if self.step_ratio != 1.0:
            own.append(f"a step of {self.step_ratio:g} epsilon")
        if self.random_start:
            own.append("random start")
        return [*own, *Attack.particulars(self)]


@register
class NFGSM(Attack):
    """N-FGSM: one step of length epsilon from noise larger than epsilon.

    Use it for fast adversarial training. It is as fast as `FGSM`, and
    catastrophic overfitting is much less likely. The noise stays in the image,
    so the result may be up to `noise_ratio + step_ratio` times epsilon away
    from it, outside of the ball. N-FGSM is therefore for training only.

    Reference: de Jorge et al., NeurIPS 2022 (arXiv 2202.01181), for
    l-infinity.

    Args:
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.
        loss: String or function. The loss to maximise, see `Attack`.
        noise_ratio: Float. Radius of the uniform noise, as a multiple of
            epsilon. Defaults to `2.0`.
        step_ratio: Float. Length of the step as a share of epsilon. Defaults
            to `1.0`.

    Example:
    ```python
    attack = keras_epsched.attacks.NFGSM()
    trainer = keras_epsched.AdversarialTrainer(classifier, attack=attack)
    ```
    """

    stays_in_ball = False

    def __init__(self, norm="linf", loss="ce", noise_ratio=2.0, step_ratio=1.0):
        super().__init__(1, norm, loss)
        for name, ratio in (
            ("noise_ratio", noise_ratio),
            ("step_ratio", step_ratio),
        ):
            if not ratio > 0:
                raise ValueError(
                    f"`{name}` must be positive. It is a multiple of epsilon. "
                    f"Received: {name}={ratio}"
                )
        self.noise_ratio = noise_ratio
        self.step_ratio = step_ratio

    def get_config(self):
        config = super().get_config()
        del config["steps"]
        return {
            **config,
            "noise_ratio": self.noise_ratio,
            "step_ratio": self.step_ratio,
        }

    def training_passes(self, num_classes):
        return 1, 1

    def headline(self):
        return f"N-FGSM on {loss_title(self.loss)}"

    def particulars(self):
        own = []
        if self.noise_ratio != 2.0:
            own.append(f"noise of {self.noise_ratio:g} epsilon")
        if self.step_ratio != 1.0:
            own.append(f"a step of {self.step_ratio:g} epsilon")
        return [*own, *super().particulars()]

    def perturb_problem(self, problem, key):
        moved = problem.widened(self.noise_ratio).random_start(key)
        gradient = problem.gradient(moved).gradient
        length = self.step_ratio * problem.radius
        step = problem.norm.step(gradient, moved, length, problem.box)
        return moved + step
