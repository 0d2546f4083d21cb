"""Finds the network for a name, a folder, a file or a model."""

import os
import warnings

import keras

from keras_epsched import optional
from keras_epsched.models import (
    applications,
    bundled,
    heads,
    hub,
    names,
    presets,
)
from keras_epsched.models.networks import Network


def find(
    source: str | os.PathLike | keras.Model,
    num_classes: int | None,
    *,
    image_size: tuple[int, int] | None,
    weights: str | os.PathLike | None,
    backbone_config: dict | None,
    dropout: float,
    seed: int | None,
    dtype: str | keras.DTypePolicy | None,
) -> Network:
    """Returns the network for a source of `classifier`.

    Args:
        source: As in `keras_epsched.models.classifier`, which explains all
            arguments.
        num_classes: Number of classes of the new head. `None` keeps the head.
        image_size: `(height, width)`.
        weights: `"pretrained"`. With `None` or a path, weights are random.
        backbone_config: Further arguments of a keras.applications model.
        dropout: Dropout rate before the head.
        seed: Seed of the new head's weights.
        dtype: Dtype policy of a backbone that is built by name.

    Returns:
        The network, with the normalisation that it expects.

    Raises:
        ValueError: If the source is unknown or does not take an argument.
        ImportError: If KerasHub is needed and not installed.
    """
    known = isinstance(source, str | os.PathLike | keras.Model)
    if not known or source == "":
        raise ValueError(
            "Expected a name, a folder, a `keras.Model` or the path of a "
            f"`.keras` file. Received: source={source!r}"
        )
    model = source
    if not isinstance(source, keras.Model):
        name = names.resolved(os.fspath(source))
        plain = name.removeprefix(applications.PREFIX)
        if plain in applications.names():
            return applications.load(
                plain,
                num_classes,
                image_size=image_size,
                weights=weights,
                backbone_config=backbone_config or {},
                dtype=dtype,
            )
        if backbone_config:
            raise ValueError(
                "`backbone_config` works only with models of "
                f"keras.applications. Received: source={name!r}, "
                f"backbone_config={backbone_config}"
            )
        is_bundled = name in presets.bundled_presets()
        if is_bundled and not optional.available("keras_hub"):
            return bundled.load(
                presets.bundled_folder(name),
                num_classes,
                image_size=image_size,
                weights=weights,
                dtype=dtype,
            )
        if not name.endswith(".keras"):
            return hub.load(
                name,
                num_classes,
                image_size=image_size,
                weights=weights,
                dropout=dropout,
                seed=seed,
                dtype=dtype,
            )
        model = presets.load(name)
    return _existing(model, num_classes, image_size, weights, dropout, dtype)


def _existing(model, num_classes, image_size, weights, dropout, dtype):
    """Returns the network of a model that was passed or saved."""
    if dtype is not None or weights is None:
        raise ValueError(
            "A `keras.Model` keeps its dtype policy and its weights, so "
            "`dtype` and `weights=None` cannot be used with it. Call "
            "`keras.config.set_dtype_policy(...)` before you build the model, "
            "or build it again for random weights. "
            f"Received: dtype={dtype!r}, weights={weights!r}"
        )
    if num_classes is None and dropout:
        raise ValueError(
            "Dropout is part of a new head, and without `num_classes` the "
            "model keeps its head. Pass `num_classes` for a new head, or "
            f"dropout=0. Received: dropout={dropout}"
        )
    if hub.is_backbone(model):
        return hub.from_model(model, num_classes, image_size)
    if num_classes is not None and _has_head(model, num_classes):
        warnings.warn(
            f"{model.name!r} has {num_classes} classes already. Its head is "
            "replaced by a new one with random weights. To keep the old head, "
            "do not pass `num_classes`.",
            stacklevel=4,
        )
    scale = offset = None
    # KerasHub keeps the normalisation outside the network.
    preprocessor = getattr(model, "preprocessor", None)
    converter = getattr(preprocessor, "image_converter", None)
    if converter is not None:
        scale, offset = hub.normalisation(converter)
    if hub.is_task(model):
        model = hub.task_at_size(model, image_size)
    return Network(
        heads.plain(model)
        if num_classes is None
        else heads.without_head(heads.plain(model)),
        needs_head=num_classes is not None,
        image_size=None if converter is None else converter.image_size,
        scale=scale,
        offset=offset,
    )


def _has_head(model, num_classes):
    """Returns whether a model has a head with that number of classes."""
    shape = getattr(model, "output_shape", None)
    last = model.layers[-1] if model.layers else None
    return (
        isinstance(shape, tuple)
        and len(shape) == 2
        and shape[-1] == num_classes
        and (hub.is_task(model) or isinstance(last, keras.layers.Dense))
    )
