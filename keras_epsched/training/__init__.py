"""Adversarial training under Keras' own `fit`."""

from keras_epsched.training.batchnorm import (
    reestimate_batchnorm as reestimate_batchnorm,
)
from keras_epsched.training.group_optimizer import (
    GroupOptimizer as GroupOptimizer,
)
from keras_epsched.training.objectives import TRADES as TRADES
from keras_epsched.training.objectives import (
    AdversarialObjective as AdversarialObjective,
)
from keras_epsched.training.objectives import Objective as Objective
from keras_epsched.training.trainer import (
    AdversarialTrainer as AdversarialTrainer,
)
