"""The models of keras.applications by name, with their normalisation."""

import inspect
import os
import sys

import keras
import numpy as np

from keras_epsched.models import heads
from keras_epsched.models.networks import Network

PREFIX = "keras.applications."


def names() -> list[str]:
    """Returns the names of all models of keras.applications.

    Returns:
        Sorted names, such as `"ConvNeXtBase"`.
    """
    members = inspect.getmembers(keras.applications, inspect.isfunction)
    return [name for name, _ in members]


def normalisation(name: str) -> tuple[list[float], list[float], bool]:
    """Returns what a model of keras.applications expects of pixels.

    It is read off the family's own `preprocess_input`, which is affine and at
    most reverses the channels: black gives the offset, pure red, green and
    blue give the rest. Families that normalise inside the model leave pixels
    as they are.

    Args:
        name: Name of the model, such as `"ResNet50"`.

    Returns:
        Scale and offset for each of the channels red, green, blue on 0..255,
        and whether the channels are to be reversed after that.

    Raises:
        ValueError: `preprocess_input` mixes channels.

    Example:
    ```python
    scale, offset, reverse = normalisation("MobileNet")  # 1/127.5, -1, False
    ```
    """
    constructor = getattr(keras.applications, name)
    preprocess = sys.modules[constructor.__module__].preprocess_input
    probes = np.zeros((4, 1, 1, 3))
    probes[1:, 0, 0] = 255.0 * np.eye(3)
    black, *pure = np.asarray(preprocess(probes), "float64")[:, 0, 0]
    matrix = (np.stack(pure) - black) / 255.0
    reverse = not matrix.diagonal().all()
    if reverse:
        matrix, black = matrix[:, ::-1], black[::-1]
    if np.abs(matrix - np.diag(matrix.diagonal())).max() > 1e-12:
        raise ValueError(
            f"The preprocessing of keras.applications.{name} mixes channels: "
            "pass `scale` and `offset`."
        )
    return matrix.diagonal().tolist(), black.tolist(), reverse


def load(
    name: str,
    num_classes: int | None,
    *,
    image_size: tuple[int, int] | None,
    weights: str | os.PathLike | None,
    backbone_config: dict,
    dtype: str | keras.DTypePolicy | None,
) -> Network:
    """Builds a model of keras.applications.

    With `num_classes` it gives features. Those of ConvNeXt are normalised
    behind the pooling, as in the original: `include_top=False` would drop
    that layer, with its pretrained weights.

    Args:
        name: Name of the model, such as `"ResNet50"`.
        num_classes: Classes of a new head. `None` keeps the ImageNet head.
        image_size: `(height, width)`. `None` leaves it free where features
            are asked for, and is the model's own size with its head.
        weights: `"pretrained"` downloads those of ImageNet. With `None` or a
            path the weights are random.
        backbone_config: Further arguments of the constructor.
        dtype: Dtype policy.

    Returns:
        The network. A file of weights is not loaded yet.

    Raises:
        ValueError: The model does not take these arguments.
        ConnectionError: The weights could not be downloaded.
    """
    whole = num_classes is None or name.startswith("ConvNeXt")
    pretrained = weights == "pretrained"
    arguments = {
        "include_top": whole,
        "weights": None,
        **({"classifier_activation": None} if whole else {}),
        **backbone_config,
    }
    constructor = getattr(keras.applications, name)
    shape = {} if image_size is None else {"input_shape": (*image_size, 3)}
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(dtype or policy)
        if pretrained and whole:
            # Keras wants the default size then; only Dense layers mind.
            model = constructor(**{**arguments, "weights": "imagenet"})
            if image_size not in (None, model.input_shape[1:3]):
                own, model = model, constructor(**arguments, **shape)
                model.set_weights(own.get_weights())
        else:
            given = {"weights": "imagenet" if pretrained else None}
            model = constructor(**{**arguments, **given}, **shape)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"keras.applications.{name} does not take image_size={image_size}, "
            f"backbone_config={backbone_config}: {error}"
        ) from error
    except Exception as error:
        if "URL fetch failure" not in str(error):
            raise
        raise ConnectionError(
            f"The ImageNet weights of keras.applications.{name} could not be "
            f"downloaded ({error}). Download that file elsewhere, and put it "
            "into ~/.keras/models or pass its path as `weights`."
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    _keep_pixels_in_float32(model)
    holders = [model]
    if num_classes is not None and whole:
        model = heads.without_head(model)
        holders += [model, _before_pooling(model)]
    known = backbone_config.get("include_preprocessing", True)
    scale, offset, reverse = normalisation(name)
    if name.startswith("EfficientNetB") and not pretrained:
        scale, offset = _rest_of_efficientnet()
    return Network(
        model,
        needs_head=num_classes is not None,
        image_size=image_size,
        scale=scale if known else None,
        offset=offset if known else None,
        reversed_channels=reverse,
        holders=tuple(holders),
        is_preset=True,
    )


def _keep_pixels_in_float32(model):
    """Lets normalising layers at the start of a model work in float32."""
    for layer in model.layers[1:]:
        if not isinstance(
            layer, keras.layers.Rescaling | keras.layers.Normalization
        ):
            return
        layer.dtype_policy = "float32"


def _rest_of_efficientnet():
    """Scale and offset that complete the normalisation of EfficientNet.

    Its normalising layer divides by the root of what it should divide by.
    Keras mends that behind the layer, but only where it downloads the
    weights: a file of the same weights would see other numbers. This does the
    same in front of the layer.
    """
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (
        [s**-0.5 for s in std],
        [255 * m * (1 - s**-0.5) for m, s in zip(mean, std, strict=True)],
    )


def _before_pooling(model):
    """What `include_top=False` would give of a ConvNeXt."""
    pooling = keras.layers.GlobalAveragePooling2D
    layer = next(layer for layer in model.layers if isinstance(layer, pooling))
    return keras.Model(model.input, layer.input)
