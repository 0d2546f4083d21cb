"""Many runs: grids of fine-tunings, searches, and reports on the results."""

from keras_epsched.studies.page import report as report
from keras_epsched.studies.runner import Studied as Studied
from keras_epsched.studies.runner import Study as Study
from keras_epsched.studies.runner import run as run
from keras_epsched.studies.search_config import Search as Search
from keras_epsched.studies.tuning import Searched as Searched
from keras_epsched.studies.tuning import search as search
from keras_epsched.studies.workers import SharedEvaluation as SharedEvaluation
from keras_epsched.studies.workers import evaluate as evaluate
