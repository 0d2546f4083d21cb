"""Checks the data, the logits and the loss before the training."""

import keras
import numpy as np
from keras import ops

from keras_epsched import batches, checks
from keras_epsched.training import passes

# Relative difference of two losses that are the same.
_SAME_LOSS = 1e-4
# Losses of probabilities that are recognised by name, because their values do
# not show it.
_OF_PROBABILITIES = {"dice", "tversky"}


def check(trainer, x, y=None, most=64, filled=False):
    """Checks data, logits and loss of a trainer.

    Args:
        trainer: `AdversarialTrainer`.
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        most: Int. Largest number of images that the network predicts.
        filled: Boolean. Whether the prediction is compiled for `most` images,
            even if there are fewer. A function that was compiled before can
            then be used again.

    Returns:
        A pair: up to `most` images and labels as arrays, or `None`; and the
        data to train on instead of `x` (see `batches.look`).

    Raises:
        ValueError: If the images, the labels, the logits or the loss cannot
            be used with an attack.
    """
    found, x = batches.look(x, y)
    if found is None:
        return None, x
    images, labels = found
    checks.check_images(images, trainer.value_range)
    # Rows from the whole batch, because arrays are often sorted by class.
    rows = np.linspace(0, len(images) - 1, min(len(images), most)).astype(int)
    size = most if filled else len(rows)
    logits = _logits(trainer, images[rows], size)
    checks.check_logits(logits, trainer.model)
    checks.check_labels(labels, logits.shape[1])
    images, few_labels = images[rows], labels[rows]
    _check_loss(trainer, few_labels, logits.shape)
    return (images, few_labels), x


def _logits(trainer, images, size):
    """Returns logits of images, without changing any variable."""
    images = np.asarray(images, "float32")
    if not trainer.model.built:
        trainer.infer_outputs(images.shape)
    network = passes.frozen_logits(trainer, False)

    def look(images):
        return checks.single_output(network(images))

    if not trainer.run_eagerly:
        look = trainer._compiled_look.of(
            trainer, look, reads=trainer.model, batch_size=size
        )
    return ops.convert_to_numpy(look(images))


def _check_loss(trainer, labels, shape):
    """Refuses a compiled loss that expects probabilities.

    It looks at the attribute `from_logits` and at values of the loss.
    Cross-entropy of logits does not change if all logits are shifted by the
    same number. A loss of probabilities clips negative values or divides by
    their sum. So for negative inputs, it does not change when they are
    doubled, or it is not finite.
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
        # A loss of the direction of logits does not depend on their length
        # either, but on their order and sign.
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
            "The classifier returns logits, but the compiled loss expects "
            "probabilities. Compile with `loss=keras.losses."
            "SparseCategoricalCrossentropy(from_logits=True)`; for one-hot "
            "labels, `CategoricalCrossentropy(from_logits=True)`. "
            f"Received: loss={trainer.loss!r}"
        )


def _name(loss):
    """Returns the name of a loss, which may be a name or an object."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None)
    return (name or type(loss).__name__).lower()
