"""Robust fine-tuning and robust evaluation of image classifiers in Keras 3."""

from keras_epsched import attacks as attacks
from keras_epsched import callbacks as callbacks
from keras_epsched import configs as configs
from keras_epsched import datasets as datasets
from keras_epsched import evaluation as evaluation
from keras_epsched import models as models
from keras_epsched import reports as reports
from keras_epsched import runs as runs
from keras_epsched import schedules as schedules
from keras_epsched import studies as studies
from keras_epsched import training as training
from keras_epsched.evaluation import epsilon_grid as epsilon_grid
from keras_epsched.evaluation import evaluate as evaluate
from keras_epsched.reports import Report as Report
from keras_epsched.training import AdversarialTrainer as AdversarialTrainer

__version__ = "0.1.0"
