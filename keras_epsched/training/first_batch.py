"""A look at the data before the first step of a training."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_epsched import checks

_NO_LABELS = "adversarial training needs labels: data must yield (x, y)"


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


def peek(x, y=None):
    """Returns images and labels to look at, or `None` where one cannot.

    Arrays are returned whole; of a dataset it is the first batch. A generator
    would lose what is taken from it, and is left alone.
    """
    if y is not None:
        return x, y
    if hasattr(x, "shape"):
        raise ValueError(_NO_LABELS)
    if isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif hasattr(x, "take") and hasattr(x, "element_spec"):
        batch = next(iter(x.take(1)), None)
    else:
        return None
    if batch is None:
        raise ValueError("expected training data. Received: an empty dataset")
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            f"{_NO_LABELS}. Received: a batch of type {type(batch).__name__}"
        )
    return batch[0], batch[1]


def check(trainer, x, y=None, most=64):
    """Checks data, logits and loss of a trainer.

    Returns:
        Up to `most` images and labels as arrays, or `None`.

    Raises:
        ValueError: If any of them is not fit for an attack.
    """
    _check_loss(trainer)
    found = peek(x, y)
    if found is None:
        return None
    images, labels = (ops.convert_to_numpy(each) for each in found)
    checks.check_images(images, trainer.value_range)
    # From everywhere: arrays are often sorted by class.
    rows = np.linspace(0, len(images) - 1, min(len(images), most)).astype(int)
    images, few_labels = images[rows], labels[rows]
    logits = ops.convert_to_numpy(trainer(images, training=False))
    checks.check_logits(logits)
    checks.check_labels(labels, logits.shape[1])
    return images, few_labels


def _check_loss(trainer):
    loss = getattr(trainer, "loss", None)
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if inspect.isfunction(loss):
        arguments = inspect.signature(loss).parameters
        default = getattr(arguments.get("from_logits"), "default", True)
        probabilities = default is False
    else:
        probabilities = getattr(loss, "from_logits", True) is False
    if probabilities:
        raise ValueError(
            "the classifier returns logits, but the compiled loss expects "
            "probabilities. Compile with `keras.losses."
            "SparseCategoricalCrossentropy(from_logits=True)` (or the "
            f"categorical one). Received: loss={loss!r}"
        )


def remember_split(model, dataset) -> None:
    """Notes on the classifier which split it has seen."""
    split = getattr(dataset, "split_info", None)
    if split is not None:
        seen = tuple(getattr(model, "training_splits", ()))
        model.training_splits = (*seen, split)


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
