"""DINOv2 with position embeddings that are saved exactly."""

import keras
from keras_hub.src.models.dinov2 import dinov2_layers


@keras.saving.register_keras_serializable(package="keras_epsched")
class DINOV2Embedding(dinov2_layers.DINOV2Embedding):
    """KerasHub's embedding layer, which saves its trained positions.

    KerasHub saves the position embeddings of the pretraining size and
    interpolates them again when it loads a file, so trained embeddings come
    back changed. If training lowered the sum of their elements, KerasHub
    drops the training entirely.
    """

    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)


def restorable(backbone: keras.Model) -> keras.Model:
    """Returns a DINOv2 backbone that is saved and loaded exactly.

    Args:
        backbone: A `keras_hub.models.DINOV2Backbone`.

    Returns:
        A `keras.Model` from images to tokens. It has a new embedding layer
        and shares all other layers with `backbone`.
    """
    images = keras.Input(backbone.inputs[0].shape[1:], name="images")
    old = backbone.embeddings
    embedding = DINOV2Embedding.from_config(old.get_config())
    x = embedding(images)
    for source, target in zip(old.weights, embedding.weights, strict=True):
        target.assign(source.value)
    x, _ = backbone.encoder(x)
    return keras.Model(images, backbone.layernorm(x), name=backbone.name)
