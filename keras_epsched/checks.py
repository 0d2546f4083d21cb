"""Checks of images, labels and logits before training and evaluation.

An attack on images of the wrong scale, or through a softmax, fails silently
and makes a network look robust. These checks raise an error instead.
"""

import sys

import keras
import numpy as np
from keras import ops

# Resized pixels may lie outside of the range by this share of the range.
_SLACK = 1e-5
# The sum of a softmax in bfloat16 may differ from 1 by this much.
_SUM = 2e-2
# With this many classes, logits do not all lie in [0, 1] by chance, even with a
# new head that gives all images similar outputs.
_MANY = 8


def static_images(images):
    """Returns images as float32, if their size is known to the graph.

    Args:
        images: Tensor `(batch, ...)`.

    Raises:
        ValueError: If the size of the images is not known in advance.
    """
    images = ops.cast(images, "float32")
    if None in images.shape[1:]:
        raise ValueError(
            "The size of the images must be known before training. Received: "
            f"images of shape {tuple(images.shape)}. Resize them to one size, "
            "or declare their size: `dataset.map(lambda x, y: "
            "(tf.ensure_shape(x, (None, 224, 224, 3)), y))`"
        )
    return images


def class_labels(labels, num_classes: int):
    """Returns the class of each image.

    Args:
        labels: Integers of shape `(batch,)` or `(batch, 1)`, or one-hot or
            smoothed labels of shape `(batch, num_classes)`, whose class is
            the largest entry.
        num_classes: Int. Number of classes.

    Returns:
        An int32 tensor of shape `(batch,)`.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == 2 and labels.shape[-1] == num_classes:
        return ops.cast(ops.argmax(labels, axis=-1), "int32")
    return ops.cast(ops.reshape(labels, (-1,)), "int32")


def check_value_range(value_range) -> tuple[float, float]:
    """Returns the pixel range as two floats, the lower one first.

    Args:
        value_range: Pair. Lowest and highest pixel value.

    Raises:
        ValueError: If it is not a pair in ascending order.
    """
    try:
        low, high = (float(bound) for bound in value_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise ValueError(
            "`value_range` must be a pair of the lowest and the highest pixel "
            "value, for example (0, 255). Received: "
            f"value_range={value_range}"
        )
    return low, high


def check_images(images, value_range, scale: bool = True) -> None:
    """Raises a `ValueError` unless the images are finite and in range.

    Args:
        images: Array of shape `(batch, ...)`.
        value_range: Pair. Lowest and highest pixel value.
        scale: Boolean. Whether images that seem to be scaled to [0, 1] are an
            error too. Pass `False` for later batches: a small batch may
            contain only dark images.
    """
    images = np.asarray(images)
    low, high = check_value_range(value_range)
    if images.ndim < 2:
        raise ValueError(
            "Images must come in batches of shape (batch, height, width, "
            f"channels). Received: an array of shape {images.shape}"
        )
    if images.size == 0:
        raise ValueError("A batch must have images. Received: an empty batch")
    if not np.all(np.isfinite(images)):
        raise ValueError(
            "All pixels must be finite. Received: images with NaN or infinity. "
            "Remove these images from the data."
        )
    least, most = float(np.min(images)), float(np.max(images))
    # Resizing may round a white pixel to a little more than white.
    slack = _SLACK * (high - low)
    if least < low - slack or most > high + slack:
        raise ValueError(
            f"Pixel values must lie in value_range=({low:g}, {high:g}), "
            f"before any normalisation. Received: values from {least:.8g} to "
            f"{most:.8g}. Pass the `value_range` of your images, and put the "
            "normalisation inside of the model."
        )
    if (
        scale
        and np.issubdtype(images.dtype, np.floating)
        and high - low > 10
        and most - low <= 1
        and least < most
    ):
        raise ValueError(
            f"Pixel values must be on the scale of value_range=({low:g}, "
            f"{high:g}). Received: values from {least:g} to {most:g}, which "
            "seem to be scaled to [0, 1]. Multiply them by 255. If the model "
            "expects pixels in [0, 1], pass value_range=(0, 1)."
        )


def check_labels(labels, num_classes: int) -> None:
    """Raises a `ValueError` unless every label is one of the classes.

    Args:
        labels: Array of labels: integers, one-hot or smoothed.
        num_classes: Int. Number of classes.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == num_classes:
        if not np.allclose(labels.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError(
                "One-hot or smoothed labels must sum to 1 for each image. "
                f"Received: sums from {labels.sum(axis=1).min():g} to "
                f"{labels.sum(axis=1).max():g}"
            )
        return
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.shape[1] != 1):
        raise ValueError(
            "Labels must be integers of shape (batch,), or one-hot labels of "
            f"shape (batch, {num_classes}) for {num_classes} classes. "
            f"Received: an array of shape {labels.shape}"
        )
    if not np.all(labels == np.round(labels)):
        raise ValueError(
            f"Labels must be whole numbers. Received: {labels.ravel()[:5]}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Labels must lie between 0 and {num_classes - 1}, because the "
            f"model has {num_classes} logits. Received: labels from "
            f"{labels.min()} to {labels.max()}. Build the classifier with the "
            "right `num_classes`. A label of -1 marks images whose labels were "
            "never published, as in some test sets: use the validation set."
        )


def single_output(outputs):
    """Returns the output of a classifier as float32.

    Args:
        outputs: What the classifier returns.

    Raises:
        ValueError: If the classifier has several outputs.
    """
    if isinstance(outputs, (dict, list, tuple)):
        keyed = isinstance(outputs, dict)
        names = f"a dict of {list(outputs)}" if keyed else str(len(outputs))
        raise ValueError(
            "The classifier must have one output, the logits. Received: "
            f"{names}. Make a model of the one to attack: "
            "`keras.Model(model.inputs, "
            f"model.output[{next(iter(outputs))!r}])`"
            if keyed
            else "The classifier must have one output, the logits. Received: "
            f"{names} outputs. Make a model of the one to attack: "
            "`keras.Model(model.inputs, model.outputs[0])`"
        )
    return ops.cast(outputs, "float32")


def check_logits(logits, model=None) -> None:
    """Raises a `ValueError` unless the outputs look like logits.

    Args:
        logits: Array, the outputs of a classifier for some images.
        model: `keras.Model` that returned them, or `None`. With few classes,
            outputs in [0, 1] are an error only if the model ends in a
            sigmoid.
    """
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            "The classifier must return logits of shape (batch, num_classes) "
            "with at least 2 classes. A binary task needs two logits. "
            f"Received: an output of shape {logits.shape}"
        )
    if not np.all(np.isfinite(logits)):
        raise ValueError(
            "The logits must be finite. Received: NaN or infinity on clean "
            "images. Check the weights and the preprocessing of the "
            "classifier."
        )
    least, most = logits.min(), logits.max()
    sums_to_one = np.allclose(logits.sum(axis=1), 1.0, atol=_SUM)
    # A new head of zeros returns only zeros, which are valid logits.
    many = logits.shape[1] >= _MANY and least < most
    many = many or _ends_in_sigmoids(model)
    if least >= 0 and most <= 1 and (sums_to_one or many):
        raise ValueError(
            "The classifier must return logits. Received: probabilities (of a "
            f"softmax or sigmoids) from {least:.3g} to {most:.3g}. The "
            "gradients of confident probabilities round to zero, and the "
            "attack would fail silently. Remove the last activation "
            "(`activation=None`, or `model.layers[-1].activation = "
            "keras.activations.linear` of a trained model) and use "
            "`from_logits=True` in the loss."
        )


# Layers that do not turn logits into something else.
_NEUTRAL = ("Dropout", "Reshape", "Flatten", "Identity", "InputLayer")


def _ends_in_sigmoids(model) -> bool:
    """Whether a model ends in a sigmoid layer or activation."""
    for layer in _from_the_end(model):
        kind = type(layer).__name__
        activation = getattr(layer, "activation", None)
        name = getattr(activation, "__name__", "")
        if kind in _NEUTRAL or (kind == "Activation" and name == "linear"):
            continue
        return "sigmoid" in f"{kind} {name}".lower()
    return False


def _from_the_end(model):
    """Yields the layers from the last one back to the first branch."""
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
    """Raises a `ValueError` if attacks would skip a model's normalisation.

    A KerasHub task normalises images in its preprocessor. `predict` and `fit`
    call the preprocessor, but it is not part of the graph that is attacked.

    Args:
        model: `keras.Model`.
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
            "The classifier must normalise pixels inside of its graph. "
            f"Received: the KerasHub task {layer.name!r}{inner}, which "
            "normalises images in its preprocessor, so that attacks would skip "
            f"it. Make a classifier that takes pixels{size}: "
            "`keras_epsched.models.classifier(task)`. Pass the number of "
            "classes too for a new head. If your images are already "
            "normalised for the task, set `task.preprocessor = None`."
        )
