"""Reports of evaluations: tables, pictures, web pages, comparisons."""

from keras_epsched.reports.comparison import compare as compare
from keras_epsched.reports.curves import plot_curves as plot_curves
from keras_epsched.reports.html import write_html as write_html
from keras_epsched.reports.merging import merge as merge
from keras_epsched.reports.model_card import (
    write_model_card as write_model_card,
)
from keras_epsched.reports.pooling import pool as pool
from keras_epsched.reports.report import Report as Report
from keras_epsched.reports.training_story import (
    plot_training_story as plot_training_story,
)
