"""Loads image classification data from tfds, folders and sequences."""

from keras_epsched.datasets.batches import ImageBatches as ImageBatches
from keras_epsched.datasets.image_data import ImageData as ImageData
from keras_epsched.datasets.load import load as load
from keras_epsched.datasets.paper import PAPER_DATASETS as PAPER_DATASETS
from keras_epsched.datasets.paper import PaperDataset as PaperDataset
from keras_epsched.datasets.worker_rows import worker_rows as worker_rows
from keras_epsched.provenance import SplitInfo as SplitInfo
