"""Auto-PGD: projected gradient descent that chooses its own step size."""

from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import losses
from keras_epsched.attacks.base import (
    Attack,
    check_count,
    counted,
    loss_title,
)
from keras_epsched.attacks.steppers import MomentumStepper, SparseStepper
from keras_epsched.attacks.tracker import Tracker
from keras_epsched.configurable import register

_WIDE_SHARE = 0.3  # share of the steps in each of the two larger balls of l1


@register
class APGD(Attack):
    """Auto-PGD: PGD with momentum that chooses its own step size.

    Use it for adversarial training and evaluation. It is the attack of the
    paper, with 7 steps in training and 10 steps in evaluation. It needs no
    step size: it halves the step when the loss stops rising, and then
    continues from the point of highest loss. Training gets this point.

    For `"l1"` it has no momentum and moves only some of the pixels. Their
    number depends on how sparse the best perturbation is. The first 30 % of
    the steps use a ball of three times the radius, and the next 30 % a ball of
    twice the radius.

    There are two differences from the published algorithm. After a return to
    the best point, the momentum starts anew, because the difference of two
    unrelated points is not a useful direction. For `"l1"`, only pixels that
    can still move within the pixel range are moved.

    References: Croce & Hein, ICML 2020 (arXiv 2003.01690); for `"l1"` Croce &
    Hein, ICML 2021 (arXiv 2103.01208).

    Args:
        steps: Int. Number of gradient steps. Defaults to `10`.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.
        loss: String or function. The loss to maximise, see `Attack`.
        random_start: Boolean. Whether to start at a random point on the
            sphere. Defaults to `True`.
        restarts: Int. Number of runs in an evaluation, each from another
            random start. Defaults to `1`.
        eot: Int. Number of calls of a randomised network at each step.
            Gradients and logits are averaged over the calls ("expectation
            over transformation", Athalye et al., ICML 2018, arXiv
            1802.00420). A broken image is confirmed with the same number of
            new calls, because a single call may be wrong by chance. Defaults
            to `1`, for networks without randomness.

    Example:
    ```python
    report = keras_epsched.evaluate(
        classifier,
        data.test,
        epsilons=keras_epsched.epsilon_grid(4 / 255),
        attack=keras_epsched.attacks.APGD(steps=10),
    )
    ```
    """

    def __init__(
        self,
        steps=10,
        norm="linf",
        loss="ce",
        random_start=True,
        restarts=1,
        eot=1,
    ):
        super().__init__(steps, norm, loss)
        self.random_start = bool(random_start)
        self.restarts = check_count(restarts, "restarts")
        self.eot = check_count(eot, "eot")

    def get_config(self):
        return {
            **super().get_config(),
            "random_start": self.random_start,
            "restarts": self.restarts,
            "eot": self.eot,
        }

    def particulars(self):
        own = []
        if not self.random_start:
            own.append("no random start")
        if self.restarts > 1:
            own.append(counted(self.restarts, "restart"))
        if self.eot > 1:
            own.append(f"averaged over {counted(self.eot, 'draw')}")
        return [*own, *super().particulars()]

    def num_variants(self, num_classes):
        return self.restarts

    def passes(self, num_classes):
        forward, backward = super().passes(num_classes)
        # Each of the three balls of l1 ends with an evaluation of the last
        # point.
        forward += 2 if self.norm == "l1" else 0
        forward += 2 if self.eot > 1 else 0
        return forward * self.eot, backward * self.eot

    def perturb_problem(self, problem, key):
        variant = ops.zeros_like(problem.labels)
        return self.search_problem(problem, key, variant).best

    def search_problem(self, problem, key, variant):
        if self.random_start:
            own_start = problem.random_start(key, on_sphere=True)
        else:
            own_start = problem.project(problem.images)
        moved = problem.begin_at(own_start)
        zero = None
        steps = self.steps
        if self.norm == "l1":
            for factor in (3.0, 2.0):
                first = int(_WIDE_SHARE * self.steps)
                if not first:
                    continue
                wide = problem.widened(factor)
                found = self._run(wide, moved, first)
                moved = problem.project(found.best)
                zero = found.zero_gradient if zero is None else zero
                steps -= first
        found = self._run(problem, moved, steps)
        if zero is not None:
            found = found._replace(zero_gradient=zero)
        if self.eot > 1:
            found = self._confirm(problem, found)
        return found

    def _confirm(self, problem, found):
        """Confirms broken images with new calls of the network.

        The first point that broke an image may have done so by chance. The
        point of highest loss is preferred if it breaks the image too.
        """
        best, first = (
            found.broken & problem.is_broken(problem.mean_logits(moved))
            for moved in (found.best, found.adversarial)
        )
        adversarial = problem.select(best, found.best, found.adversarial)
        return found._replace(adversarial=adversarial, broken=best | first)

    def _run(self, problem, moved, steps):
        """Runs some steps in one ball, from a given start."""
        tracker = Tracker(problem)
        sparse = self.norm == "l1"
        stepper = (SparseStepper if sparse else MomentumStepper)(problem, steps)

        def body(index, carry):
            moved, state, steps, no_gradient = carry
            seen = problem.gradient(moved)
            before = state["best_loss"]
            state = tracker.update(state, moved, seen)
            improved = state["best_loss"] > before
            gains = {"improved": improved, "loss": seen.loss}
            zero = ops.where(index == 0, seen.vanishes, no_gradient)
            moved, steps = stepper.advance(
                index, moved, seen.gradient, state["best"], gains, steps
            )
            return moved, state, steps, zero

        begin = tracker.begin()
        moved, state, _, zero = backend.fori_loop(
            0,
            steps,
            body,
            (moved, begin, stepper.begin(moved), begin["broken"]),
        )
        state = tracker.update(state, moved, problem.judge(moved))
        return tracker.result(state, zero)


@register
class TargetedAPGD(APGD):
    """Targeted Auto-PGD (APGD-T), with one run for each target class.

    Use it in an evaluation, usually after `APGD`: it often breaks images
    that untargeted attacks do not. The targets are the wrong classes with the
    highest logits of the clean image. An image is broken if it is
    misclassified as any class, not only as the target.

    Reference: Croce & Hein, ICML 2020 (arXiv 2003.01690).

    Args:
        steps: Int. Number of gradient steps of each run. Defaults to `100`.
        norm: String. `"linf"`, `"l2"` or `"l1"`. Defaults to `"linf"`.
        targets: Int. Number of target classes, at most the number of wrong
            classes. Defaults to `9`.
        random_start: Boolean. Whether to start at a random point on the
            sphere. Defaults to `True`.
        eot: Int. As in `APGD`.
        loss: String. The loss to maximise: `"dlr"`, the targeted difference
            of logits ratio of AutoAttack, `"margin"` or
            `"probability_margin"`. Defaults to `"dlr"`.

    Example:
    ```python
    attack = keras_epsched.attacks.TargetedAPGD(steps=100, targets=9)
    ```
    """

    def __init__(
        self,
        steps=100,
        norm="linf",
        targets=9,
        random_start=True,
        eot=1,
        loss="dlr",
    ):
        losses.get_targeted(loss)
        super().__init__(steps, norm, loss, random_start, 1, eot)
        self.targets = check_count(targets, "targets")

    def get_config(self):
        config = super().get_config()
        del config["restarts"]
        return {**config, "targets": self.targets}

    def headline(self):
        loss = loss_title(self.loss).removeprefix("the ")
        targets = counted(self.targets, "target")
        return f"APGD-T-{self.steps}, {targets} ({loss})"

    def num_variants(self, num_classes):
        return min(self.targets, num_classes - 1)

    def passes(self, num_classes):
        forward, backward = super().passes(num_classes)
        # One more forward pass for the order of the clean logits.
        return forward + self.eot, backward

    def search_problem(self, problem, key, variant):
        targets = problem.targets(problem.mean_logits(problem.images), variant)
        loss = losses.get_targeted(self.loss)
        problem.loss = lambda labels, logits: loss(labels, targets, logits)
        return super().search_problem(problem, key, variant)
