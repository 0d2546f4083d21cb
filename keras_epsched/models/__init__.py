"""Presets, Keras models and files made into pixel-space classifiers."""

from keras_epsched.models.classifier import classifier as classifier
from keras_epsched.models.presets import bundled_presets as bundled_presets
from keras_epsched.models.presets import load as load
