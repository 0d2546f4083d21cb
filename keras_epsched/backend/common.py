"""What several backends share."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops


class TrainerSteps:
    """The steps of a trainer whose variables are changed in place.

    A mixin before `keras.Model`, for a class that has `perturb(data)`,
    `weight_perturbations(data)`, `in_step()` and `measure_robustness(data)`.
    """

    # Whether a training may choose its compiler.
    compiler_is_open = False

    def train_step(self, data):
        """One step: perturb, then the step of `keras.Model`."""
        data = self.perturb(data)
        perturbations = self.weight_perturbations(data)
        perturbed = [
            v for v in self.trainable_variables if id(v) in perturbations
        ]
        for variable in perturbed:
            variable.assign_add(perturbations[id(variable)])
        with self.in_step():
            logs = super().train_step(data)
        for variable in perturbed:
            variable.assign_sub(perturbations[id(variable)])
        return logs

    def test_step(self, data):
        """One step of validation: clean, and robust if asked for."""
        logs = self.clean_test_step(data)
        if self.validation_attack is None:
            return logs
        return self.robust_test_step(data)

    def clean_test_step(self, data):
        """The step of `keras.Model`."""
        return super().test_step(data)

    def robust_test_step(self, data, count=None):
        """The attack on a batch, whose first `count` images are meant."""
        self.measure_robustness(data, count)
        return self.get_metrics_result()


def independent():
    """The error for logits that no gradient leads through."""
    return ValueError(
        "the logits do not depend on the image by differentiable "
        "operations, so no gradient attack is possible. Preprocess "
        "inside the model with Keras layers, not with rounding, "
        "integer casts or NumPy functions."
    )


def current(scope: keras.StatelessScope, variable):
    """Value of a variable at the end of a scope."""
    value = scope.get_current_value(variable)
    return variable.value if value is None else value


def to_numpy(tree):
    """A tree of tensors as NumPy arrays; `None` stays."""
    return keras.tree.map_structure(
        lambda each: None if each is None else ops.convert_to_numpy(each), tree
    )


def fill(tree, size: int):
    """Arrays with a number of rows, the first one again where they end.

    An attack that ends early when all is broken still can.
    """
    return keras.tree.map_structure(
        lambda rows: np.concatenate(
            [rows, rows[:1].repeat(size - len(rows), 0)]
        ),
        tree,
    )


def filled(function: Callable, batch_size: int) -> Callable:
    """A function of batches of any size, by one of a fixed size."""

    def run(*arrays):
        size = len(keras.tree.flatten(arrays)[0])
        if size < batch_size:
            arrays = fill(arrays, batch_size)
        return keras.tree.map_structure(
            lambda each: None if each is None else each[:size],
            to_numpy(function(*arrays)),
        )

    return run


def full_batch(trainer, data) -> tuple:
    """A batch of validation, filled up to the largest so far.

    Returns:
        The pair of images and labels, and how many of them are meant.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    count = x.shape[0]
    trainer.validation_batch_size = max(trainer.validation_batch_size, count)
    if count < trainer.validation_batch_size:
        x, y = fill(to_numpy((x, y)), trainer.validation_batch_size)
    return (x, y), np.array(count, "int32")


def pass_over(trainer, calls: int, answer: Callable) -> None:
    """Replaces the next calls of the compiled step of a trainer.

    Args:
        trainer: `keras.Model` that is being fitted.
        calls: Int. How many, 1 or more.
        answer: Function with the arguments and result of the step.
    """
    step, left = trainer.train_function, calls

    def instead(*arguments):
        nonlocal left
        left -= 1
        if not left:
            trainer.train_function = step
        return answer(*arguments)

    trainer.train_function = instead


def no_random_state() -> list:
    """Nothing: Keras draws from its own seeds, which are variables."""
    return []


def set_no_random_state(states: list) -> None:
    """Does nothing."""
