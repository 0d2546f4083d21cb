"""Image classification data: tfds names, prepared folders, image folders."""

from keras_epsched.datasets.load import ImageData as ImageData
from keras_epsched.datasets.load import SplitInfo as SplitInfo
from keras_epsched.datasets.load import load as load
