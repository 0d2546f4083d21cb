"""Builds models of keras.applications, and reads their normalisation."""

import inspect
import os
import sys

import keras
import numpy as np

from keras_epsched.models import heads
from keras_epsched.models.networks import Network

PREFIX = "keras.applications."


def names() -> list[str]:
    """Returns the names of all models of keras.applications, sorted."""
    members = inspect.getmembers(keras.applications, inspect.isfunction)
    return [name for name, _ in members]


def normalisation(name: str) -> tuple[list[float], list[float], bool]:
    """Returns the normalisation that a model of keras.applications expects.

    It is measured on the family's own `preprocess_input`, which is affine and
    may reverse the channels. A black pixel gives the offset. Pure red, green
    and blue pixels give the scale and the order. Families that normalise
    inside the model get scale 1 and offset 0.

    Args:
        name: Name of the model, such as `"ResNet50"`.

    Returns:
        Scale and offset for each of the channels red, green and blue, on
        pixels in 0..255; and whether to reverse the channels after that.

    Raises:
        ValueError: If `preprocess_input` mixes channels.

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
            f"The preprocessing of keras.applications.{name} mixes channels, "
            "so it cannot be written as one scale and offset for each "
            "channel. Pass `scale` and `offset`."
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

    With `num_classes`, the model returns features. ConvNeXt keeps the
    normalisation layer after its pooling, as the original network does:
    `include_top=False` would drop that layer and its pretrained weights.

    Args:
        name: Name of the model, such as `"ResNet50"`.
        num_classes: Number of classes of a new head. `None` keeps the
            ImageNet head.
        image_size: `(height, width)`. `None` leaves the size free for a model
            that returns features, and uses the model's own size for a model
            with its head.
        weights: `"pretrained"` downloads the ImageNet weights. With `None` or
            a path, the weights are random.
        backbone_config: Further arguments of the constructor.
        dtype: Dtype policy.

    Returns:
        The network. A file of weights is not loaded yet.

    Raises:
        ValueError: If the model does not take these arguments.
        ConnectionError: If the weights cannot be downloaded.
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
            # Keras accepts only the default size with its ImageNet head.
            # The weights fit another size too, unless a Dense layer follows
            # the unpooled features.
            model = constructor(**{**arguments, "weights": "imagenet"})
            if image_size not in (None, model.input_shape[1:3]):
                own, model = model, constructor(**arguments, **shape)
                model.set_weights(own.get_weights())
        else:
            given = {"weights": "imagenet" if pretrained else None}
            model = constructor(**{**arguments, **given}, **shape)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"keras.applications.{name} does not take image_size={image_size} "
            f"with backbone_config={backbone_config}. Keras says: {error}"
        ) from error
    except Exception as error:
        if "URL fetch failure" not in str(error):
            raise
        raise ConnectionError(
            f"The ImageNet weights of keras.applications.{name} could not be "
            f"downloaded ({error}). Download that file on another machine, "
            "then copy it into ~/.keras/models or pass its path as `weights`."
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
    """Makes the normalising layers at the start of a model use float32."""
    for layer in model.layers[1:]:
        if not isinstance(
            layer, keras.layers.Rescaling | keras.layers.Normalization
        ):
            return
        layer.dtype_policy = "float32"


def _rest_of_efficientnet():
    """Returns the scale and offset that EfficientNet's own layer lacks.

    The normalising layer divides by the square root of the standard deviation
    instead of the standard deviation. Keras corrects this after the layer, but
    only when it downloads the weights, so weights from a file would get
    different inputs. The returned numbers make the same correction before the
    layer.
    """
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (
        [s**-0.5 for s in std],
        [255 * m * (1 - s**-0.5) for m, s in zip(mean, std, strict=True)],
    )


def _before_pooling(model):
    """Returns the part of a ConvNeXt that `include_top=False` would build."""
    pooling = keras.layers.GlobalAveragePooling2D
    layer = next(layer for layer in model.layers if isinstance(layer, pooling))
    return keras.Model(model.input, layer.input)
