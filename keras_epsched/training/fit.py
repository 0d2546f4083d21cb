"""Prepares a call of `AdversarialTrainer.fit`, before Keras trains.

`fit` reads these attributes of a callback, if it has them. Callbacks of
`keras_epsched.callbacks` inherit them from `TrainerCallback`:

- `fit_order`, by default 0: callbacks with a lower number are called first.
- `drives_epsilon`, by default `False`: whether the callback sets epsilon.
- `before_fit`: a method that receives what `fit` was given.
"""

import warnings

import keras
from keras import ops

from keras_epsched import provenance
from keras_epsched.training import batchnorm, first_batch, validation
from keras_epsched.training.batchnorm_monitor import BatchNormMonitor
from keras_epsched.training.compiler_trial import CompilerTrial

# Most images of the first batch that are looked at.
_MOST_IMAGES = 64


def arrange(
    trainer,
    x,
    y,
    *,
    batch_size,
    callbacks,
    validation_split,
    validation_data,
    shuffle,
    steps_per_epoch,
) -> tuple:
    """Checks the data of a training, and completes and orders its callbacks.

    Args:
        trainer: `AdversarialTrainer`.
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        batch_size: As in `keras.Model.fit`.
        callbacks: As in `keras.Model.fit`.
        validation_split: As in `keras.Model.fit`.
        validation_data: As in `keras.Model.fit`.
        shuffle: As in `keras.Model.fit`.
        steps_per_epoch: As in `keras.Model.fit`.

    Returns:
        The replacements of `x`, `validation_data` and `callbacks`.

    Raises:
        ValueError: If data, logits or loss do not allow an attack.
    """
    callbacks = _as_list(callbacks)
    _set_directions(callbacks)
    # With it, Keras spreads one pass over the data over several epochs.
    spread = steps_per_epoch is not None
    seek = None if spread else getattr(x, "seek", None)
    if seek is not None:
        # The look then sees the same batch when a training resumes.
        seek(0)
    most = min(batch_size or _MOST_IMAGES, _MOST_IMAGES)
    batch, x = first_batch.check(trainer, x, y, most)
    validation_data = _check_validation(
        trainer, validation_data, len(batch[0]) if batch else most
    )
    _warn_of_no_attack(trainer, callbacks)
    first = [*trainer.objective.callbacks()]
    if not spread:
        first.append(EpochSeeker(x, validation_data))
    if batchnorm.adapts(trainer.model):
        if trainer.batchnorm_momentum is None:
            first.insert(0, batchnorm.ShortEpochMomentum())
        if batch is not None:
            first.append(BatchNormMonitor(*batch))
    last = [StateBuilder(batch), CompilerTrial()]
    if trainer.validation_attack is not None and (
        validation_data is not None or validation_split
    ):
        # After the scheduler, which knows the target.
        last.insert(0, validation.AttackNote())
    given = sorted(callbacks, key=_order)
    callbacks = [
        *first,
        *(each for each in given if _order(each) <= 0),
        *last,
        *(each for each in given if _order(each) > 0),
    ]
    for each in callbacks:
        if hasattr(each, "before_fit"):
            each.before_fit(x, seek, shuffle, callbacks)
    provenance.remember_split(trainer.model, provenance.split_of(x))
    return x, validation_data, callbacks


def _as_list(callbacks):
    """Callbacks as a new list, from any form that `fit` takes."""
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise ValueError(
            "pass `callbacks` as a list: the trainer adds its own to it. "
            "Received: a `keras.callbacks.CallbackList`"
        )
    if isinstance(callbacks, (list, tuple)):
        return list(callbacks)
    return [callbacks]


def _order(callback):
    return getattr(callback, "fit_order", 0)


def _set_directions(callbacks):
    """Tells callbacks such as `EarlyStopping` that a high accuracy is good.

    Keras knows this only for metrics that were given to `compile`.
    """
    for each in callbacks:
        monitored = str(getattr(each, "monitor", ""))
        if getattr(each, "mode", None) == "auto" and monitored.endswith(
            "accuracy"
        ):
            each.mode = "max"


def _check_validation(trainer, validation_data, size):
    """Checks validation data, and returns its replacement.

    Looks at as many images as in the training data, because the pass is
    compiled for that number.
    """

    def look(*data):
        return first_batch.check(trainer, *data, most=size, filled=True)[1]

    if not isinstance(validation_data, (tuple, list)):
        return look(validation_data)
    if len(validation_data) not in (2, 3) or isinstance(
        validation_data[0], (tuple, list)
    ):
        raise ValueError(
            "`validation_data` must be a pair of arrays (images, "
            "labels), with weights behind, or a dataset. Received: a "
            f"list of {len(validation_data)} others"
        )
    look(*validation_data[:2])
    return validation_data


def _warn_of_no_attack(trainer, callbacks):
    driven = any(getattr(each, "drives_epsilon", False) for each in callbacks)
    if trainer.epsilon == 0 and not driven:
        warnings.warn(
            "epsilon is 0 and no `EpsilonScheduler` is among the "
            "callbacks: this is standard fine-tuning, without any attack. "
            "If you mean it, pass EpsilonScheduler(Constant(0.0)).",
            # Where `fit` is called.
            stacklevel=4,
        )


class EpochSeeker(keras.callbacks.Callback):
    """Tells data which epoch begins, so that their order depends on it."""

    def __init__(self, *datasets):
        super().__init__()
        self.datasets = [each for each in datasets if hasattr(each, "seek")]

    def on_epoch_begin(self, epoch, logs=None):
        for each in self.datasets:
            each.seek(epoch)


class StateBuilder(keras.callbacks.Callback):
    """Makes the state of optimizer and metrics before the first step.

    Without it, Keras on TensorFlow (without a distribution strategy) makes them
    while it traces the first step. It then discards that trace, and traces the
    step and its attack a second time.
    """

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_begin(self, logs=None):
        trainer = self.model
        if not trainer.optimizer.built:
            trainer.optimizer.build(trainer.trainable_variables)
        metrics = trainer._compile_metrics
        if self.batch and metrics is not None and not metrics.built:
            images, labels = self.batch
            logits = ops.zeros((len(labels), trainer.num_classes))
            trainer.compute_metrics(images, labels, logits)
            trainer.reset_metrics()
