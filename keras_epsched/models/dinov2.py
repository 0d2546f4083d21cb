"""DINOv2 that comes back from a file as it was."""

import keras
from keras_hub.src.models.dinov2 import dinov2_layers


@keras.saving.register_keras_serializable(package="keras_epsched")
class DINOV2Embedding(dinov2_layers.DINOV2Embedding):
    """KerasHub's embedding, saved with the position embeddings it trained.

    KerasHub saves those of the pretraining size and interpolates them again
    when it loads. What was trained comes back changed, or, where its elements
    moved down in sum, not at all.
    """

    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)


def restorable(backbone: keras.Model) -> keras.Model:
    """Returns a DINOv2 backbone with an embedding that saves as it is.

    Args:
        backbone: A `keras_hub.models.DINOV2Backbone`.

    Returns:
        A `keras.Model` from images to tokens; the other layers are shared.
    """
    images = keras.Input(backbone.inputs[0].shape[1:], name="images")
    old = backbone.embeddings
    embedding = DINOV2Embedding.from_config(old.get_config())
    x = embedding(images)
    for source, target in zip(old.weights, embedding.weights, strict=True):
        target.assign(source.value)
    x, _ = backbone.encoder(x)
    return keras.Model(images, backbone.layernorm(x), name=backbone.name)
