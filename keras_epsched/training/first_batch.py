"""A look at the data before the first step of a training."""

import keras
import numpy as np
from keras import ops

from keras_epsched import batches, checks

# Relative difference of two losses that are the same.
_SAME_LOSS = 1e-4
# Losses of probabilities by name: their values do not tell it.
_OF_PROBABILITIES = {"dice", "tversky"}


def as_list(callbacks) -> list:
    """Returns callbacks as a new list, from any form that `fit` takes."""
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


def set_directions(callbacks) -> None:
    """Tells callbacks such as `EarlyStopping` that accuracies are to rise.

    Keras finds that out by itself for the metrics given to `compile` alone.
    """
    for each in callbacks:
        monitored = str(getattr(each, "monitor", ""))
        if getattr(each, "mode", None) == "auto" and monitored.endswith(
            "accuracy"
        ):
            each.mode = "max"


def check(trainer, x, y=None, most=64):
    """Checks data, logits and loss of a trainer.

    Args:
        trainer: `AdversarialTrainer`.
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        most: Int. Most images that the network looks at.

    Returns:
        A pair: up to `most` images and labels as arrays, or `None`, and what
        to train on in place of `x`, see `batches.look`.

    Raises:
        ValueError: If any of them is not fit for an attack.
    """
    found, x = batches.look(x, y)
    if found is None:
        return None, x
    images, labels = found
    checks.check_images(images, trainer.value_range)
    # From everywhere: arrays are often sorted by class.
    rows = np.linspace(0, len(images) - 1, min(len(images), most)).astype(int)
    images, few_labels = images[rows], labels[rows]
    logits = checks.single_output(trainer(images, training=False))
    logits = ops.convert_to_numpy(logits)
    checks.check_logits(logits, trainer.model)
    checks.check_labels(labels, logits.shape[1])
    _check_loss(trainer, few_labels, logits.shape)
    return (images, few_labels), x


def _check_loss(trainer, labels, shape):
    """Refuses a compiled loss that takes logits for probabilities.

    By what it says of itself, and by what it gives, whatever it is made of.
    Cross-entropy of logits stays the same when all of them are shifted. A loss
    of probabilities cuts negative values off or divides by their sum, so that
    twice as negative ones change nothing, or it has no value for them.
    """
    loss = getattr(trainer, "_compile_loss", None)
    if loss is None:
        return
    objects = keras.tree.flatten(trainer.loss)
    said = any(getattr(each, "from_logits", None) is False for each in objects)
    logits = np.random.default_rng(0).normal(0, 2, shape).astype("float32")

    def value(outputs):
        return float(loss(labels, ops.convert_to_tensor(outputs)))

    if not said:
        if np.isclose(value(logits), value(logits + 3), rtol=_SAME_LOSS):
            return
        negative = -np.abs(logits) - 1
        once = value(negative)
        # A loss of the direction of logits does not change with their length,
        # but with the order and the sign of them.
        said = any(_name(each) in _OF_PROBABILITIES for each in objects)
        said = said or not np.isfinite(once)
        said = said or (
            np.isclose(once, value(2 * negative), rtol=_SAME_LOSS)
            and any(
                np.isclose(once, value(other), rtol=_SAME_LOSS)
                for other in (-negative, np.roll(negative, 1, axis=1))
            )
        )
    if said:
        raise ValueError(
            "the classifier returns logits, but the compiled loss expects "
            "probabilities. Compile with `keras.losses."
            "SparseCategoricalCrossentropy(from_logits=True)` (or the "
            f"categorical one). Received: loss={trainer.loss!r}"
        )


def _name(loss):
    """Name of a loss, be it a name, a function or an object."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None)
    return (name or type(loss).__name__).lower()


class EpochSeeker(keras.callbacks.Callback):
    """Tells data which epoch begins: what they yield then follows from it."""

    def __init__(self, *datasets):
        super().__init__()
        self.datasets = [each for each in datasets if hasattr(each, "seek")]

    def on_epoch_begin(self, epoch, logs=None):
        for each in self.datasets:
            each.seek(epoch)


class StateBuilder(keras.callbacks.Callback):
    """Makes the state of optimizer and metrics before the first step.

    Keras does so itself but on TensorFlow without a distribution strategy,
    where they come into being while the step is traced: that trace is thrown
    away, and the step with all of its attack is traced a second time.
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
            logits = trainer(images, training=False)
            trainer.compute_metrics(images, labels, logits)
            trainer.reset_metrics()
