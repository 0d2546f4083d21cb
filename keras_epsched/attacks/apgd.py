"""Auto-PGD: projected gradient descent that chooses its own step."""

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

_WIDE_SHARE = 0.3  # share of the steps in each of the wider balls of l1


@register
class APGD(Attack):
    """Auto-PGD: momentum, and a step that halves when it stops paying.

    The attack of the paper, in training (7 steps) and evaluation (10). It
    needs no step size. The point of best loss is what training gets, and
    where the search returns to when the step is halved.

    For `"l1"` it moves a sparse set of pixels whose number follows the
    sparsity of the best perturbation, without momentum, and spends the first
    30 % of its steps in a ball of three times the radius, the next 30 % in one
    of twice the radius.

    After a return to the best point the momentum is forgotten: the difference
    of two unrelated points is no direction. For `"l1"` only pixels with room
    in the box are moved. Everything else is as published.

    References: Croce & Hein, ICML 2020 (arXiv 2003.01690); for `"l1"` Croce &
    Hein, ICML 2021 (arXiv 2103.01208).

    Args:
        steps: Int. Number of gradient steps.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        loss: String or function. What is maximised, see `attacks.losses`.
        random_start: Boolean. Start at a random point on the sphere.
        restarts: Int. Number of runs of an evaluation, from different starts.
        eot: Int. Number of draws of a randomised network at each step, over
            which gradients and logits are averaged ("expectation over
            transformation", Athalye et al., ICML 2018, arXiv 1802.00420).
            What seems to be broken must be so on as many fresh draws: of a
            hundred noisy looks one would err.

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
        # Each of the three balls of l1 ends with a look at the last point.
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
        """Looks again, by fresh draws, at what seems to be broken.

        The point that was first to do so may have done it by a lucky draw; the
        one of highest loss is the safer candidate.
        """
        best, first = (
            found.broken & problem.is_broken(problem.mean_logits(moved))
            for moved in (found.best, found.adversarial)
        )
        adversarial = problem.select(best, found.best, found.adversarial)
        return found._replace(adversarial=adversarial, broken=best | first)

    def _run(self, problem, moved, steps):
        """Steps of one ball, from a given start."""
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
    """Auto-PGD towards other classes, one run for each (APGD-T).

    The targets are the classes of highest logits of the clean image. Any
    misclassification counts.

    Reference: Croce & Hein, ICML 2020 (arXiv 2003.01690).

    Args:
        steps: Int. Number of gradient steps.
        norm: String. `"linf"`, `"l2"` or `"l1"`.
        targets: Int. Number of classes to aim at; all others where there are
            fewer.
        random_start: Boolean. Start at a random point on the sphere.
        eot: Int. As in `APGD`.
        loss: String. What is maximised: `"dlr"`, the targeted difference of
            logits ratio of AutoAttack, `"margin"` or `"probability_margin"`.

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
        # The order of the clean logits.
        return forward + self.eot, backward

    def search_problem(self, problem, key, variant):
        targets = problem.targets(problem.mean_logits(problem.images), variant)
        loss = losses.get_targeted(self.loss)
        problem.loss = lambda labels, logits: loss(labels, targets, logits)
        return super().search_problem(problem, key, variant)
