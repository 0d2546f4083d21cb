"""Runs the network with other values of its variables."""

from collections.abc import Callable

import keras
from keras import ops

from keras_epsched import backend


def frozen_logits(trainer, training: bool) -> Callable:
    """Returns a function from images to logits that changes no variable.

    Args:
        trainer: `AdversarialTrainer`.
        training: Boolean. The mode of the network.
    """

    def logits_fn(images):
        # Includes the trainer's own variables, which an objective may read.
        own = trainer._trainable_variables + trainer._non_trainable_variables
        values = [
            (each, backend.frozen(each))
            for each in (*trainer.model.variables, *own)
        ]
        # Calls the trainer, because its call context passes `training` to the
        # layers of a model that has no such argument.
        with keras.StatelessScope(values):
            return trainer(images, training=training)

    return logits_fn


def with_values(values, model: keras.Model, run: Callable):
    """Runs a function in which some variables of a model have other values.

    These variables are not changed. Other variables, such as moving
    statistics and seeds, are updated as usual.

    Args:
        values: Pairs of a variable and the tensor to use as its value.
        model: `keras.Model` that has the variables.
        run: Function without arguments that calls the model.

    Returns:
        The result of `run`.
    """
    values = {id(variable): value for variable, value in values}
    variables = model.variables
    # Sets all variables, because an inner scope hides the values that an
    # outer scope has set.
    scope = keras.StatelessScope(
        [(each, values.get(id(each), each.value)) for each in variables]
    )
    before = [scope.get_current_value(each) for each in variables]
    with scope:
        result = run()
    for variable, old in zip(variables, before, strict=True):
        new = scope.get_current_value(variable)
        if new is not old and id(variable) not in values:
            variable.assign(new)
    return result


def weight_perturbations(trainer, data) -> dict:
    """Returns the perturbation of each kernel that raises a batch's loss.

    It is `gamma * norm(w) * g / norm(g)` for each kernel `w`. Here `g` is the
    gradient of the objective's loss on the perturbed batch, and `gamma` is the
    `weight_perturbation` of the trainer. Biases and scales are not perturbed.
    No variable is changed.

    Reference: Wu et al., NeurIPS 2020 (arXiv 2004.05884).

    Args:
        trainer: `AdversarialTrainer` in a training step.
        data: The result of `perturb`.

    Returns:
        A dict from the `id` of a variable to a tensor. It is empty if
        `weight_perturbation` is 0.

    Raises:
        ValueError: If the strategy or the optimizer does not allow it.
    """
    if not trainer.weight_perturbation:
        return {}
    _check_weights_can_move(trainer)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    kernels = [each for each in trainer.trainable_variables if each.ndim >= 2]
    places = {id(each) for each in kernels}
    others = [
        (each, each.value)
        for each in (*trainer.variables, *trainer._seed_states())
        if id(each) not in places
    ]

    def loss(values):
        pairs = [*zip(kernels, values, strict=True), *others]
        with keras.StatelessScope(pairs):
            y_pred = trainer(x, training=True)
            return trainer.compute_loss(
                x, y, y_pred, sample_weight, training=True
            )

    values = [each.value for each in kernels]
    gradients = backend.gradients(loss, values)
    return {
        id(kernel): trainer.weight_perturbation
        * _norm(value)
        / (_norm(gradient) + 1e-20)
        * gradient
        for kernel, value, gradient in zip(
            kernels, values, gradients, strict=True
        )
    }


def _norm(tensor):
    return ops.norm(ops.reshape(tensor, (-1,)))


def _check_weights_can_move(trainer):
    if backend.num_replicas() > 1:
        raise ValueError(
            "`weight_perturbation` is not available under a `tf.distribute` "
            "strategy with several replicas, because their weights would "
            "become different. Use one replica, or `keras.distribution` on "
            "JAX. Received: "
            f"weight_perturbation={trainer.weight_perturbation}"
        )
    if getattr(trainer.optimizer, "use_ema", False):
        raise ValueError(
            "`weight_perturbation` is not available with an optimizer that "
            "averages the weights (`use_ema=True`), because Keras would "
            "average the perturbed weights. Set one of them to its default. "
            f"Received: optimizer={trainer.optimizer.name!r}"
        )
