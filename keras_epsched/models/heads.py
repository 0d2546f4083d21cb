"""Removes the head of a Keras model, and adds a new one."""

import keras


def plain(model: keras.Model) -> keras.Model:
    """Returns a KerasHub task or a `Sequential` as a functional model.

    A saved task does not record the dtype of its head, and a `Sequential`
    casts its inputs to the compute dtype. A functional model does neither.
    Other models are returned unchanged. Layers are shared.
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
    """Returns whether the model is a graph of layers (not subclassed)."""
    return isinstance(model, keras.Model) and hasattr(model, "operations")


def softmax_layer(model: keras.Model) -> keras.layers.Layer | None:
    """Returns the layer or operation whose softmax ends a graph, if any."""
    if not is_graph(model):
        return None
    layer, _ = producer(model.outputs[0])
    if isinstance(layer, keras.Model):
        return softmax_layer(plain(layer))
    # Compared by name, to find `keras.ops.softmax` in a graph as well.
    if type(layer).__name__ == "Softmax":
        return layer
    softmax = keras.activations.softmax
    return layer if getattr(layer, "activation", None) is softmax else None


def without_head(model: keras.Model) -> keras.Model:
    """Returns the model without its head.

    The head is a last `Dense` layer, with the activations after it and the
    dropout before it. A model that does not end in a `Dense` layer is returned
    unchanged: its output is taken as features.

    Args:
        model: A `keras.Model`. Only a graph of layers can be cut.

    Returns:
        A model that shares its layers with `model`.

    Raises:
        ValueError: If the output is a softmax that does not follow a `Dense`
            layer.
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
    """Adds pooling, dropout and a `Dense` layer to features, in float32.

    Args:
        features: Symbolic tensor of shape `(batch, height, width, channels)`
            or `(batch, channels)`.
        num_classes: Units of the `Dense` layer.
        dropout: Dropout rate. 0 adds no dropout.
        seed: Seed of the initial weights and of the dropout.

    Returns:
        Logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: If the rank of the features is neither 2 nor 4.
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
    """Returns the layer that made a symbolic tensor, and its input."""
    layer, node_index, _ = tensor._keras_history
    arguments = layer._inbound_nodes[node_index].input_tensors
    return layer, arguments[0] if arguments else None


def _cut(model):
    """Returns the model up to its last `Dense` layer, or `None`."""
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
        # The last layer may be a model that ends in a head.
        inner = _cut(plain(layer))
        if inner is None:
            return None
        x = inner(x)
    return keras.Model(model.input, x, name=model.name)
