"""One run from a config: fine-tuning, comparison or evaluation."""

from keras_epsched.configs.config import Comparison as Comparison
from keras_epsched.configs.config import Config as Config
from keras_epsched.configs.config import Evaluation as Evaluation
from keras_epsched.configs.config import Settings as Settings
from keras_epsched.configs.recipes import RECIPES as RECIPES
from keras_epsched.configs.recipes import Recipe as Recipe
from keras_epsched.configs.values import ConfigError as ConfigError
from keras_epsched.runs.arms import Compared as Compared
from keras_epsched.runs.arms import compare as compare
from keras_epsched.runs.device import describe_device as describe_device
from keras_epsched.runs.estimate import Estimate as Estimate
from keras_epsched.runs.estimate import estimate as estimate
from keras_epsched.runs.evaluating import Evaluated as Evaluated
from keras_epsched.runs.evaluating import evaluate as evaluate
from keras_epsched.runs.finetuning import Finetuned as Finetuned
from keras_epsched.runs.finetuning import finetune as finetune
from keras_epsched.runs.folder import RunUnderWay as RunUnderWay
from keras_epsched.runs.time_left import TimeLeft as TimeLeft
