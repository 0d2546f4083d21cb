"""Surgery on Keras models: cutting off a head, and putting on a new one."""

import keras


def plain(model: keras.Model) -> keras.Model:
    """Returns a KerasHub task or a `Sequential` as a plain functional model.

    A task forgets its head's dtype when it is saved, and a `Sequential` casts
    its inputs to the compute dtype at its door. Other models come back as they
    are. Layers are shared.
    """
    if isinstance(model, keras.Sequential) and model.built:
        inputs = keras.Input(model.input_shape[1:], dtype="float32")
        x = inputs
        for layer in model.layers:
            x = layer(x)
        return keras.Model(inputs, x, name=model.name)
    if is_graph(model) and hasattr(model, "preprocessor"):
        return keras.Model(model.input, model.output, name=model.name)
    return model


def is_graph(model: keras.Model) -> bool:
    """Whether the model is a graph of layers that can be walked."""
    return isinstance(model, keras.Model) and hasattr(model, "operations")


def softmax_layer(model: keras.Model) -> keras.layers.Layer | None:
    """Returns the layer or operation whose softmax ends a graph, if any."""
    if not is_graph(model):
        return None
    layer, _ = producer(model.outputs[0])
    if isinstance(layer, keras.Model):
        return softmax_layer(plain(layer))
    # By name, so that `keras.ops.softmax` in a graph is seen as well.
    if type(layer).__name__ == "Softmax":
        return layer
    softmax = keras.activations.softmax
    return layer if getattr(layer, "activation", None) is softmax else None


def without_head(model: keras.Model) -> keras.Model:
    """Returns the model up to its last `Dense` layer, where it ends in one.

    Activations behind that layer, and a dropout in front of it, go with it.
    Any other model is taken as features and comes back as it is.

    Args:
        model: A `keras.Model`. Only graphs of layers can be cut.

    Returns:
        A model that shares its layers with `model`.

    Raises:
        ValueError: The output is a softmax that does not follow a `Dense`.
    """
    cut = _cut(model)
    if cut is None and softmax_layer(model) is not None:
        raise ValueError(
            f"The model {model.name!r} ends in a softmax that does not follow "
            "a Dense layer, so its head cannot be cut off. Build it without "
            "a head (`include_top=False` in keras.applications)."
        )
    return model if cut is None else cut


def new_head(
    features: keras.KerasTensor,
    num_classes: int,
    dropout: float,
    seed: int | None,
) -> keras.KerasTensor:
    """Puts pooling, dropout and a `Dense` layer, all float32, on features.

    Args:
        features: Symbolic tensor of shape `(batch, height, width, channels)`
            or `(batch, channels)`.
        num_classes: Units of the `Dense` layer.
        dropout: Dropout rate.
        seed: Seed of the initial weights and of the dropout.

    Returns:
        Logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: The features have another rank.
    """
    x = features
    rank = len(x.shape) if isinstance(x, keras.KerasTensor) else None
    if rank not in (2, 4):
        raise ValueError(
            "A new head needs features of shape (batch, height, width, "
            "channels) or (batch, channels). Pool them inside the model "
            f"first. Received: features {x}"
        )
    if rank == 4:
        pooler = keras.layers.GlobalAveragePooling2D
        x = pooler(dtype="float32", name="pooler")(x)
    if dropout:
        x = keras.layers.Dropout(
            dropout, seed=seed, dtype="float32", name="dropout"
        )(x)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        dtype="float32",
        name="logits",
    )(x)


def producer(
    tensor: keras.KerasTensor,
) -> tuple[keras.layers.Layer, keras.KerasTensor | None]:
    """The layer that made a symbolic tensor, and what it was called on."""
    layer, node_index, _ = tensor._keras_history
    arguments = layer._inbound_nodes[node_index].input_tensors
    return layer, arguments[0] if arguments else None


def _cut(model):
    """The model up to its last `Dense` layer, or `None` if it has none."""
    if not is_graph(model):
        return None
    layer, x = producer(model.outputs[0])
    while isinstance(layer, keras.layers.Activation | keras.layers.Softmax):
        layer, x = producer(x)
    if isinstance(layer, keras.layers.Dense):
        before, earlier = producer(x)
        if isinstance(before, keras.layers.Dropout):
            x = earlier
    else:
        # A head may sit in a model inside the model.
        inner = _cut(plain(layer))
        if inner is None:
            return None
        x = inner(x)
    return keras.Model(model.input, x, name=model.name)
