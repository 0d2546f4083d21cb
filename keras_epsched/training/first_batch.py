"""A look at the data before the first step of a training."""

import keras
import numpy as np
from keras import ops

from keras_epsched import batches, checks
from keras_epsched.training import passes

# Relative difference of two losses that are the same.
_SAME_LOSS = 1e-4
# Losses of probabilities by name: their values do not tell it.
_OF_PROBABILITIES = {"dice", "tversky"}


def check(trainer, x, y=None, most=64, filled=False):
    """Checks data, logits and loss of a trainer.

    Args:
        trainer: `AdversarialTrainer`.
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        most: Int. Most images that the network looks at.
        filled: Boolean. Whether the pass is compiled for as many where there
            are fewer, so that one that was compiled before serves again.

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
    size = most if filled else len(rows)
    logits = _logits(trainer, images[rows], size)
    checks.check_logits(logits, trainer.model)
    checks.check_labels(labels, logits.shape[1])
    images, few_labels = images[rows], labels[rows]
    _check_loss(trainer, few_labels, logits.shape)
    return (images, few_labels), x


def _logits(trainer, images, size):
    """Logits of images, by a pass for `size` that changes no variable."""
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
