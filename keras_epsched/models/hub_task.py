"""Turns classifiers into KerasHub tasks, which save KerasHub presets."""

import pathlib
import tempfile

import keras
import numpy as np
from keras import ops

from keras_epsched import optional

# Height and width of the images to compare on, if the input size is free.
_ANY_SIZE = 96
_POOLINGS = (None, "avg", "max", "token", "gap")
# Tolerance of the logits, by the dtype that the network computes in.
_TOLERANCES = {
    "float64": 1e-3,
    "float32": 1e-3,
    "float16": 1e-2,
    "bfloat16": 1e-1,
}


def to_keras_hub(net: keras.Model) -> keras.Model:
    """Returns a classifier as a `keras_hub.models.ImageClassifier`.

    Use it to hand a trained model to KerasHub: the task has `save_to_preset`
    and `upload_preset`. KerasHub's `from_preset` and
    `keras_epsched.models.classifier` can read the saved preset.

    The preprocessor of the task holds the normalisation, so `predict` takes
    the same pixels as the classifier, in the classifier's `value_range`. The
    preprocessor is not part of the graph, so attack the classifier, not the
    task.

    The task has copies of the weights. It computes in float32, even if the
    classifier uses mixed precision, because KerasHub cannot read presets of
    mixed precision. Before the task is returned, its logits of random images
    are compared with the classifier's.

    Args:
        net: `keras.Model` that `classifier` made from a KerasHub preset, or
            that `load` read from a file of such a model.

    Returns:
        The task, uncompiled. Its `predict` takes pixels and returns logits.

    Raises:
        ValueError: If no image classifier of KerasHub matches the network.
        ImportError: If KerasHub is not installed.

    Example:
    ```python
    import keras_hub

    net = keras_epsched.models.classifier("resnet_letters", 10)
    # Fine-tune `net` here.
    keras_epsched.models.to_keras_hub(net).save_to_preset("robust_resnet")
    task = keras_hub.models.ImageClassifier.from_preset("robust_resnet")
    ```
    """
    keras_hub = optional.package("keras_hub", "`to_keras_hub`")
    backbones = [
        layer
        for layer in net._flatten_layers()
        if isinstance(layer, keras_hub.models.Backbone)
    ]
    if len(backbones) != 1:
        raise _unfit(net, f"it has {len(backbones)} backbones of KerasHub")
    task_class = _task_class(keras_hub, type(backbones[0]))
    if task_class is None:
        kind = type(backbones[0]).__name__
        raise _unfit(net, f"KerasHub has no classifier of a {kind}")
    head = _outside(net, backbones[0])
    backbone = _in_float32(backbones[0])
    preprocessor = _preprocessor(net, task_class)
    shape = (2, *(length or _ANY_SIZE for length in net.input_shape[1:]))
    images = np.random.default_rng(0).uniform(0, 255, shape)
    expected = _logits(net, images)
    tolerance = _TOLERANCES[backbones[0].compute_dtype]
    for pooling in _POOLINGS:
        chosen = {} if pooling is None else {"pooling": pooling}
        try:
            task = task_class(
                backbone=backbone,
                num_classes=net.output_shape[-1],
                preprocessor=preprocessor,
                head_dtype="float32",
                **chosen,
            )
        except (ValueError, TypeError):
            # This class does not have this pooling.
            continue
        own = _outside(task, backbone)
        if [v.shape for v in own] != [v.shape for v in head]:
            continue
        for target, source in zip(own, head, strict=True):
            target.assign(source)
        found = _logits(task, preprocessor(ops.cast(images, "float32")))
        if found.shape == expected.shape and np.allclose(
            found, expected, rtol=tolerance, atol=tolerance
        ):
            return task
    raise _unfit(
        net,
        f"its head or normalisation differs from that of a "
        f"{task_class.__name__}",
    )


def _task_class(keras_hub, backbone_class):
    """Returns the image classifier of a class of backbones, or `None`."""
    for name in dir(keras_hub.models):
        found = getattr(keras_hub.models, name)
        if (
            isinstance(found, type)
            and issubclass(found, keras_hub.models.ImageClassifier)
            and found.backbone_cls is backbone_class
        ):
            return found
    return None


def _in_float32(backbone):
    """Returns a float32 copy of a backbone, with LoRA updates merged."""
    config = {**backbone.get_config(), "dtype": "float32"}
    copy = type(backbone).from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        # Saving merges LoRA, and weights are matched by order, not by name.
        path = pathlib.Path(folder) / "backbone.weights.h5"
        backbone.save_weights(path)
        copy.load_weights(path)
    return copy


def _preprocessor(net, task_class):
    """Returns a preprocessor with the normalisation of the classifier."""
    normalisation = {}
    for layer in net.layers:
        if isinstance(layer, keras.layers.Rescaling):
            normalisation = {"scale": layer.scale, "offset": layer.offset}
    size = net.input_shape[1:3]
    converter = task_class.preprocessor_cls.image_converter_cls(
        image_size=None if None in size else size,
        dtype="float32",
        **normalisation,
    )
    return task_class.preprocessor_cls(
        image_converter=converter, dtype="float32"
    )


def _outside(model, backbone):
    """Returns the weights of the head: all that are not the backbone's."""
    inside = {id(weight) for weight in backbone.weights}
    return [
        weight
        for weight in model.weights
        if id(weight) not in inside and "seed" not in weight.path
    ]


def _logits(model, images):
    return ops.convert_to_numpy(model(images, training=False))


def _unfit(net, reason):
    return ValueError(
        f"The classifier {net.name!r} cannot become an image classifier of "
        f'KerasHub: {reason}. Save it with `net.save("net.keras")` instead.'
    )
