"""Adversarial training under Keras' own `fit`."""

from keras_epsched.training.batchnorm import (
    reestimate_batchnorm as reestimate_batchnorm,
)
from keras_epsched.training.group_optimizer import (
    GroupOptimizer as GroupOptimizer,
)
from keras_epsched.training.held_cosine_decay import (
    HeldCosineDecay as HeldCosineDecay,
)
from keras_epsched.training.objectives import ALP as ALP
from keras_epsched.training.objectives import MART as MART
from keras_epsched.training.objectives import TRADES as TRADES
from keras_epsched.training.objectives import TWINS as TWINS
from keras_epsched.training.objectives import (
    AdversarialObjective as AdversarialObjective,
)
from keras_epsched.training.objectives import AutoLoRa as AutoLoRa
from keras_epsched.training.objectives import (
    MixedObjective as MixedObjective,
)
from keras_epsched.training.objectives import Objective as Objective
from keras_epsched.training.smoothed_crossentropy import (
    SmoothedCrossentropy as SmoothedCrossentropy,
)
from keras_epsched.training.trainer import (
    AdversarialTrainer as AdversarialTrainer,
)
