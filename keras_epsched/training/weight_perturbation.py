"""Adversarial weight perturbation: a step against the worst nearby weights."""

import keras
from keras import ops

from keras_epsched import backend


def kernels(trainer) -> list:
    """Trainable variables that are perturbed: all but biases and scales."""
    return [each for each in trainer.trainable_variables if each.ndim >= 2]


def deltas(trainer, data) -> list:
    """Moves each kernel up the loss of a batch, in its own measure.

    `gamma * norm(w) * g / norm(g)` for each kernel `w` with the gradient `g`
    of the objective's loss on the perturbed batch. The pass leaves every
    variable as it was.

    Reference: Wu et al., NeurIPS 2020 (arXiv 2004.05884).

    Args:
        trainer: `AdversarialTrainer` with `weight_perturbation`.
        data: What `perturb` returned.

    Returns:
        A list of tensors, one for each of `kernels(trainer)`.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    moved = kernels(trainer)
    places = {id(each) for each in moved}
    others = [
        (each, each.value)
        for each in (*trainer.variables, *trainer._seed_states())
        if id(each) not in places
    ]

    def loss(values):
        pairs = [*zip(moved, values, strict=True), *others]
        with keras.StatelessScope(pairs):
            y_pred = trainer(x, training=True)
            return trainer.compute_loss(
                x, y, y_pred, sample_weight, training=True
            )

    values = [each.value for each in moved]
    gradients = backend.gradients(loss, values)
    return [
        trainer.weight_perturbation
        * ops.norm(ops.reshape(value, (-1,)))
        / (ops.norm(ops.reshape(gradient, (-1,))) + 1e-20)
        * gradient
        for value, gradient in zip(values, gradients, strict=True)
    ]
