"""Turns presets, Keras models and files into pixel-space classifiers."""

from keras_epsched.models.adaptation import adapt as adapt
from keras_epsched.models.adaptation import parameter_groups as parameter_groups
from keras_epsched.models.adaptation import (
    trainable_parameters as trainable_parameters,
)
from keras_epsched.models.classifier import classifier as classifier
from keras_epsched.models.hub_task import to_keras_hub as to_keras_hub
from keras_epsched.models.parts import blocks as blocks
from keras_epsched.models.presets import bundled_presets as bundled_presets
from keras_epsched.models.presets import load as load
