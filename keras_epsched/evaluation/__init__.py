"""Measuring robustness: the sweep over epsilons, its report and pictures."""

from keras_epsched.epsilons import epsilon_grid as epsilon_grid
from keras_epsched.evaluation.attack_runner import (
    forget_compiled as forget_compiled,
)
from keras_epsched.evaluation.comparison import compare as compare
from keras_epsched.evaluation.comparison import pool as pool
from keras_epsched.evaluation.evaluator import evaluate as evaluate
from keras_epsched.evaluation.html import write_html as write_html
from keras_epsched.evaluation.model_card import (
    write_model_card as write_model_card,
)
from keras_epsched.evaluation.plots import plot_curves as plot_curves
from keras_epsched.evaluation.plots import (
    plot_training_story as plot_training_story,
)
from keras_epsched.evaluation.report import Report as Report
from keras_epsched.evaluation.shards import merge as merge
