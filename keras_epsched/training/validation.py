"""Robust validation: attacks the images and names the attack."""

import contextlib
import warnings

import keras
from keras import ops

from keras_epsched import checks
from keras_epsched.attacks import noise
from keras_epsched.epsilons import format_epsilon
from keras_epsched.training import passes


def attack_batch(trainer, data, count=None) -> tuple:
    """Attacks a batch with the `validation_attack`, at the target epsilon.

    Args:
        trainer: `AdversarialTrainer`.
        data: `(x, y)` or `(x, y, sample_weight)`, as `test_step` gets it.
        count: Integer tensor or `None`. Number of images that count; the rest
            only fill the batch. `None` counts all.

    Returns:
        A pair: a float32 tensor that is 1 for each misclassified image and 0
        for the others; and the weights of the images, or `None`.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    images = checks.static_images(x)
    places = ops.arange(ops.shape(images)[0])
    target = ops.convert_to_tensor(trainer._target_epsilon)
    # Without a scheduler there is no target, so the current epsilon is used.
    current = ops.convert_to_tensor(trainer._epsilon)
    result = trainer.validation_attack.search(
        passes.frozen_logits(trainer, False),
        images,
        trainer.class_labels(y, images),
        ops.where(target > 0, target, current),
        # The same random starts in every validation, for comparable values.
        noise.make_key(0, places),
        trainer.value_range,
    )
    counts = None if count is None else ops.cast(places < count, "float32")
    return ops.cast(result.broken, "float32"), counts


@contextlib.contextmanager
def validating(trainer):
    """Returns a context in which the trainer validates."""
    at_zero = max(trainer.target_epsilon, trainer.epsilon) == 0
    if trainer.validation_attack is not None and at_zero:
        warnings.warn(
            "Epsilon and its target are 0, so `robust_accuracy` is the "
            "clean accuracy. To measure robust accuracy, train with an "
            "`EpsilonScheduler`, or set `trainer.target_epsilon`, for example "
            "to 4 / 255.",
            # The line that calls `evaluate`.
            stacklevel=4,
        )
    before, trainer._validating = trainer._validating, True
    trainer.validation_batch_size = 0
    try:
        yield
    finally:
        trainer._validating = before


def say_attack(callback, log: str, attack) -> None:
    """Prints the attack behind an accuracy, if `fit` prints its progress.

    Args:
        callback: `keras.callbacks.Callback` of a training that begins. The
            accuracy is measured at the target epsilon of its trainer.
        log: String. Name of the accuracy in the logs.
        attack: `Attack`.
    """
    trainer = callback.model
    epsilon = trainer.target_epsilon or trainer.epsilon
    if epsilon > 0 and (callback.params or {}).get("verbose"):
        at = format_epsilon(epsilon, attack.norm)
        print(
            f"{log}: accuracy under {attack.title}, at epsilon {at}", flush=True
        )


class AttackNote(keras.callbacks.Callback):
    """Prints the attack with which `val_robust_accuracy` is measured."""

    def on_train_begin(self, logs=None):
        say_attack(self, "val_robust_accuracy", self.model.validation_attack)
