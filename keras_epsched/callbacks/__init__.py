"""Callbacks for `AdversarialTrainer.fit`."""

from keras_epsched.callbacks.adversarial_images import (
    AdversarialImages as AdversarialImages,
)
from keras_epsched.callbacks.auto_epsilon_scheduler import (
    AutoEpsilonScheduler as AutoEpsilonScheduler,
)
from keras_epsched.callbacks.base import TrainerCallback as TrainerCallback
from keras_epsched.callbacks.catastrophic_overfitting import (
    CatastrophicOverfittingAlarm as CatastrophicOverfittingAlarm,
)
from keras_epsched.callbacks.epsilon_scheduler import (
    EpsilonScheduler as EpsilonScheduler,
)
from keras_epsched.callbacks.exact_backup import (
    ExactBackup as ExactBackup,
)
from keras_epsched.callbacks.paced_epsilon_scheduler import (
    PacedEpsilonScheduler as PacedEpsilonScheduler,
)
from keras_epsched.callbacks.robust_checkpoint import (
    RobustCheckpoint as RobustCheckpoint,
)
from keras_epsched.callbacks.robust_overfitting import (
    RobustOverfittingMonitor as RobustOverfittingMonitor,
)
from keras_epsched.callbacks.transfer_monitor import (
    TransferMonitor as TransferMonitor,
)
from keras_epsched.training.batchnorm_monitor import (
    BatchNormMonitor as BatchNormMonitor,
)
