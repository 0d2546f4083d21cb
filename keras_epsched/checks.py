"""Checks of images, labels and logits, before anything is computed on them.

An attack on data of the wrong scale, or through a softmax, fails silently and
makes a network look robust. Training and evaluation therefore look first.
"""

import sys

import keras
import numpy as np
from keras import ops

# Share of the range by which resized pixels may lie outside it.
_SLACK = 1e-5
# By how much the sum of a softmax in bfloat16 may miss 1.
_SUM = 2e-2
# Outputs of so many classes do not all lie in [0, 1] by chance, also where the
# head is new and all images get about the same.
_MANY = 8


def static_images(images):
    """Returns images as float32, of a shape that the graph knows.

    Raises:
        ValueError: If only the running graph knows the size of the images.
    """
    images = ops.cast(images, "float32")
    if None in images.shape[1:]:
        raise ValueError(
            "the size of the images must be known before training. Received: "
            f"images of shape {tuple(images.shape)}. Resize them to one size, "
            "or state it: `dataset.map(lambda x, y: (tf.ensure_shape(x, "
            "(None, 224, 224, 3)), y))`"
        )
    return images


def class_labels(labels, num_classes: int):
    """Returns the class of each image, from any usual form of labels.

    Args:
        labels: Integers of shape `(batch,)` or `(batch, 1)`, or one-hot or
            smoothed labels of shape `(batch, num_classes)`; their class is the
            arg max.
        num_classes: Int. Number of logits.

    Returns:
        An int32 tensor of shape `(batch,)`.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == 2 and labels.shape[-1] == num_classes:
        return ops.cast(ops.argmax(labels, axis=-1), "int32")
    return ops.cast(ops.reshape(labels, (-1,)), "int32")


def check_value_range(value_range) -> tuple[float, float]:
    """Returns the pixel range as two floats, lowest first."""
    try:
        low, high = (float(bound) for bound in value_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise ValueError(
            "`value_range` must be the pair (lowest, highest) of the pixel "
            f"values, as (0, 255). Received: value_range={value_range}"
        )
    return low, high


def check_images(images, value_range, scale: bool = True) -> None:
    """Raises a `ValueError` unless the images are finite and in range.

    Args:
        images: Array of shape `(batch, ...)`.
        value_range: Pair. Lowest and highest pixel value.
        scale: Boolean. Also refuse what seems to be scaled to [0, 1]; not for
            a later batch of few images, which may just be dark.
    """
    images = np.asarray(images)
    low, high = check_value_range(value_range)
    if images.ndim < 2:
        raise ValueError(
            "images must come in batches, of shape (batch, height, width, "
            f"channels). Received: an array of shape {images.shape}"
        )
    if images.size == 0:
        raise ValueError("expected images. Received: an empty batch")
    if not np.all(np.isfinite(images)):
        raise ValueError("images contain NaN or infinity: clean the data first")
    least, most = float(np.min(images)), float(np.max(images))
    # Resizing may round a white pixel to a little more than white.
    slack = _SLACK * (high - low)
    if least < low - slack or most > high + slack:
        raise ValueError(
            f"images must have pixel values in value_range=({low:g}, "
            f"{high:g}), before any normalisation. Received: values from "
            f"{least:.8g} to {most:.8g}. Pass the `value_range` of your "
            "images, and put normalisation inside the model."
        )
    if (
        scale
        and np.issubdtype(images.dtype, np.floating)
        and high - low > 10
        and most - low <= 1
        and least < most
    ):
        raise ValueError(
            f"images have values from {least:g} to {most:g}, but "
            f"value_range=({low:g}, {high:g}): they seem to be scaled to "
            "[0, 1]. Multiply them by 255, or pass value_range=(0, 1) (the "
            "model must then expect such pixels)."
        )


def check_labels(labels, num_classes: int) -> None:
    """Raises a `ValueError` unless every label is one of the classes."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == num_classes:
        if not np.allclose(labels.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError(
                "one-hot or smoothed labels must sum to 1 for each image. "
                f"Received: sums from {labels.sum(axis=1).min():g} to "
                f"{labels.sum(axis=1).max():g}"
            )
        return
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.shape[1] != 1):
        raise ValueError(
            f"labels must be integers of shape (batch,), or of shape (batch, "
            f"{num_classes}) for {num_classes} classes. Received: an array of "
            f"shape {labels.shape}"
        )
    if not np.all(labels == np.round(labels)):
        raise ValueError(
            f"labels must be whole numbers. Received: {labels.ravel()[:5]}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, for the {num_classes} "
            f"logits of the model. Received: labels from {labels.min()} to "
            f"{labels.max()}. Build the classifier with the right "
            "`num_classes`; -1 stands for images whose labels were never "
            "published, as in some test sets: evaluate on the validation set."
        )


def single_output(outputs):
    """Returns the output of a classifier in float32.

    Raises:
        ValueError: If there are several outputs.
    """
    if isinstance(outputs, (dict, list, tuple)):
        keyed = isinstance(outputs, dict)
        names = f"a dict of {list(outputs)}" if keyed else str(len(outputs))
        raise ValueError(
            "the classifier must have one output, the logits. Received: "
            f"{names}. Wrap the one to attack: `keras.Model(model.inputs, "
            f"model.output[{next(iter(outputs))!r}])`"
            if keyed
            else "the classifier must have one output, the logits. Received: "
            f"{names} outputs. Wrap the one to attack: "
            "`keras.Model(model.inputs, model.outputs[0])`"
        )
    return ops.cast(outputs, "float32")


def check_logits(logits, model=None) -> None:
    """Raises a `ValueError` unless the outputs look like logits.

    Args:
        logits: Array, what a classifier gives for some images.
        model: `keras.Model` that gave them, or `None`: whether it ends in
            sigmoids decides where they are of few classes.
    """
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            "the classifier must return logits of shape (batch, num_classes) "
            "with at least 2 classes (for a binary task, two logits). "
            f"Received: an output of shape {logits.shape}"
        )
    if not np.all(np.isfinite(logits)):
        raise ValueError(
            "the classifier returns NaN or infinity on clean images: its "
            "weights or its preprocessing are broken"
        )
    least, most = logits.min(), logits.max()
    sums_to_one = np.allclose(logits.sum(axis=1), 1.0, atol=_SUM)
    # All of a head of zeros are 0.
    many = logits.shape[1] >= _MANY and least < most
    many = many or _ends_in_sigmoids(model)
    if least >= 0 and most <= 1 and (sums_to_one or many):
        raise ValueError(
            "the classifier returns probabilities (a softmax or sigmoids): "
            f"values from {least:.3g} to {most:.3g}. Logits are needed: "
            "through a softmax, gradients of confident predictions round to "
            "zero and the attack fails silently. Remove the last activation "
            "(`activation=None`) and use `from_logits=True` in the loss."
        )


# Layers that change neither values nor what they mean.
_NEUTRAL = ("Dropout", "Reshape", "Flatten", "Identity", "InputLayer")


def _ends_in_sigmoids(model) -> bool:
    """Whether the last layer of a graph is, or has, a bounded activation."""
    for layer in _from_the_end(model):
        kind = type(layer).__name__
        activation = getattr(layer, "activation", None)
        name = getattr(activation, "__name__", "")
        if kind in _NEUTRAL or (kind == "Activation" and name == "linear"):
            continue
        return "sigmoid" in f"{kind} {name}".lower()
    return False


def _from_the_end(model):
    """Yields the layers of a model from the last on, while there is one way."""
    if isinstance(model, keras.Sequential):
        for layer in reversed(model.layers):
            yield from _from_the_end(layer)
    elif getattr(model, "_operations", None) and len(model.outputs) == 1:
        inputs = model.outputs
        while len(inputs) == 1:
            layer, node, _ = inputs[0]._keras_history
            yield from _from_the_end(layer)
            inputs = layer._inbound_nodes[node].input_tensors
    else:
        yield model


def check_takes_pixels(model) -> None:
    """Raises a `ValueError` if the normalisation of a model would be lost.

    A KerasHub task normalises in its preprocessor, which `predict` and `fit`
    call and which is no part of the graph.
    """
    hub = sys.modules.get("keras_hub")
    if hub is None:
        return
    for layer in model._flatten_layers():
        if not isinstance(layer, hub.models.Task):
            continue
        if getattr(layer, "preprocessor", None) is None:
            continue
        inner = "" if layer is model else f" inside of {model.name!r}"
        converter = getattr(layer.preprocessor, "image_converter", None)
        size = getattr(converter, "image_size", None)
        size = f" of {size[0]} x {size[1]}" if size else ""
        raise ValueError(
            f"the KerasHub task {layer.name!r}{inner} normalises images in its "
            "preprocessor, outside of the graph, where an attack does not "
            f"reach. Make a classifier of it that takes pixels{size}: "
            "`keras_epsched.models.classifier(task)`, with a number of classes "
            "for a new head. If your images are normalised as the task "
            "expects, set `task.preprocessor = None`."
        )
