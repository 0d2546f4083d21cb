"""What trainings and evaluations cost, counted in steps and passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_epsched import callbacks
from keras_epsched.evaluation.progress import most_runs

_ADAPTIVE = (callbacks.AutoEpsilonScheduler, callbacks.PacedEpsilonScheduler)
# Share of the passes of an evaluation that its self-checks may add.
_SELF_CHECKS = 0.1


@dataclasses.dataclass(frozen=True)
class Passes:
    """Passes of images through the network.

    Args:
        forward: Int.
        backward: Int.
        weight: Int. Those backward passes that give gradients of the weights,
            not of the image alone.
    """

    forward: int = 0
    backward: int = 0
    weight: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(
            self.forward + other.forward,
            self.backward + other.backward,
            self.weight + other.weight,
        )

    def __mul__(self, times: float) -> Passes:
        return Passes(
            round(self.forward * times),
            round(self.backward * times),
            round(self.weight * times),
        )

    @property
    def work(self) -> int:
        """The same in forward passes.

        The gradient of an image takes the products of matrices of a forward
        pass once more, and the gradient of the weights again.
        """
        return self.forward + self.backward + self.weight


def of_step(trainer, attacked: bool) -> Passes:
    """Passes of one image in a training step.

    Args:
        trainer: `AdversarialTrainer`.
        attacked: Boolean. Whether epsilon is above 0.
    """
    # Weights that are perturbed take a gradient of their own.
    views = trainer.objective.num_views
    views *= 2 if trainer.weight_perturbation else 1
    passes = Passes(views, views, views)
    if attacked:
        classes = trainer.model.output_shape[-1]
        forward, backward = trainer.attack.training_passes(classes)
        forward += trainer.objective.attack_loss_passes
        passes += Passes(forward, backward)
    return passes


def of_probe(trainer, attacked: bool) -> Passes:
    """Passes of one image in a step of a linear probe."""
    passes = Passes(1, 1, 1)
    if attacked:
        classes = trainer.model.output_shape[-1]
        passes += Passes(*trainer.attack.training_passes(classes))
    return passes


def is_adaptive(scheduler: callbacks.EpsilonScheduler) -> bool:
    """Whether the training itself decides when epsilon rises."""
    return isinstance(scheduler, _ADAPTIVE)


def attacked_steps(
    scheduler: callbacks.EpsilonScheduler, epochs: int, steps: int
) -> list[int]:
    """Returns the number of steps of each epoch that attack.

    If the schedule is adaptive, these are all steps.

    Args:
        scheduler: The callback that sets epsilon.
        epochs: Int.
        steps: Int. Steps of an epoch.
    """
    if is_adaptive(scheduler):
        return [steps] * epochs
    batches = np.arange(steps) * (scheduler.update_freq == "batch")
    progress = (np.arange(epochs)[:, None] + batches / steps) / epochs
    return (scheduler.schedule(progress) > 0).sum(axis=1).tolist()


def of_epochs(
    trainer, attacked: Sequence[int], steps: int, batch_size: int
) -> Passes:
    """Passes of all images in epochs of a training.

    Args:
        trainer: `AdversarialTrainer`.
        attacked: Sequence of the number of steps of each epoch that attack.
        steps: Int. Steps of an epoch.
        batch_size: Int. Images of a step.
    """
    count = sum(attacked)
    without = len(attacked) * steps - count
    images = of_step(trainer, False) * without + of_step(trainer, True) * count
    return images * batch_size


def of_evaluation(
    attack, num_classes: int, num_epsilons: int, bisect: bool, images: int
) -> Passes:
    """Returns about the most passes that an evaluation takes.

    Every image is taken to be classified correctly, and to withstand each
    attack. The self-checks are counted.

    Args:
        attack: `Attack` or `AttackEnsemble`.
        num_classes: Int.
        num_epsilons: Int. Epsilons above 0.
        bisect: Boolean. Whether the sweep bisects.
        images: Int. Images of the split.
    """
    members = getattr(attack, "members", (attack,))
    runs = most_runs(members, num_classes, num_epsilons, bisect)
    total = Passes(forward=1)
    for member, times in zip(members, runs, strict=True):
        total += Passes(*member.passes(num_classes)) * times
    return total * ((1 + _SELF_CHECKS) * images)
