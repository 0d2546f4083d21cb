"""Robust validation: its attack, its epsilon, and what is said of them."""

import contextlib
import warnings

import keras
from keras import ops

from keras_epsched import checks
from keras_epsched.attacks import noise
from keras_epsched.epsilons import format_epsilon
from keras_epsched.training import passes


def attack_batch(trainer, data, count=None) -> tuple:
    """Attacks a batch by the `validation_attack`, at the target epsilon.

    Args:
        trainer: `AdversarialTrainer`.
        data: `(x, y)` or `(x, y, sample_weight)`, as `test_step` gets.
        count: Integer tensor or `None`: how many of the images count, all
            by default. The others fill up the batch.

    Returns:
        A pair: a float32 tensor, 1 for each image that is broken and 0 for
        the others; and the weights of the images, or `None`.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    images = checks.static_images(x)
    places = ops.arange(ops.shape(images)[0])
    target = ops.convert_to_tensor(trainer._target_epsilon)
    # Without a scheduler there is no target but the current epsilon.
    current = ops.convert_to_tensor(trainer._epsilon)
    result = trainer.validation_attack.search(
        passes.frozen_logits(trainer, False),
        images,
        trainer.class_labels(y, images),
        ops.where(target > 0, target, current),
        # The same starts at every validation: values are comparable.
        noise.make_key(0, places),
        trainer.value_range,
    )
    counts = None if count is None else ops.cast(places < count, "float32")
    return ops.cast(result.broken, "float32"), counts


@contextlib.contextmanager
def validating(trainer):
    """A context for a validation, whose logs are its own."""
    at_zero = max(trainer.target_epsilon, trainer.epsilon) == 0
    if trainer.validation_attack is not None and at_zero:
        warnings.warn(
            "epsilon and its target are 0, so `robust_accuracy` is the "
            "clean accuracy. Train with an `EpsilonScheduler`, or set "
            "`trainer.target_epsilon`.",
            # Where `evaluate` is called.
            stacklevel=4,
        )
    before, trainer._validating = trainer._validating, True
    trainer.validation_batch_size = 0
    try:
        yield
    finally:
        trainer._validating = before


def say_attack(callback, log: str, attack) -> None:
    """Prints what a log is measured by, where `fit` prints its progress.

    Args:
        callback: `keras.callbacks.Callback` of a training that begins, at the
            target epsilon of whose trainer it is measured.
        log: String. Name of the log.
        attack: `Attack`.
    """
    trainer = callback.model
    epsilon = trainer.target_epsilon or trainer.epsilon
    if epsilon > 0 and (callback.params or {}).get("verbose"):
        at = format_epsilon(epsilon, attack.norm)
        print(f"{log}: under {attack.title}, at epsilon {at}", flush=True)


class AttackNote(keras.callbacks.Callback):
    """Says which attack `val_robust_accuracy` is under."""

    def on_train_begin(self, logs=None):
        say_attack(self, "val_robust_accuracy", self.model.validation_attack)
