"""Measure the robustness of a classifier, and make reports and pictures."""

from keras_epsched.epsilons import epsilon_grid as epsilon_grid
from keras_epsched.evaluation.attack_runner import (
    forget_compiled as forget_compiled,
)
from keras_epsched.evaluation.evaluator import evaluate as evaluate
from keras_epsched.reports import Report as Report
from keras_epsched.reports import compare as compare
from keras_epsched.reports import merge as merge
from keras_epsched.reports import plot_curves as plot_curves
from keras_epsched.reports import plot_training_story as plot_training_story
from keras_epsched.reports import pool as pool
from keras_epsched.reports import write_html as write_html
from keras_epsched.reports import write_model_card as write_model_card
