"""The config of a search."""

import dataclasses
from typing import Literal

from keras_epsched.configs.config import SCHEDULE_HELP, check_schedule
from keras_epsched.configs.values import Card, Role, value
from keras_epsched.runs import Settings


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Search(Settings):
    """The config of a search of learning rate and weight decay.

    Example:
    ```python
    search = keras_epsched.studies.Search(
        trials=8, epochs=10, output="runs/search"
    )
    print(keras_epsched.studies.search(search))
    ```
    """

    schedule: str = value(
        "fixed",
        f"Schedule of the trials. {SCHEDULE_HELP}",
        card=Card.ALWAYS,
        check=check_schedule,
    )
    trials: int = value(16, "Number of trials.", at_least=1)
    lowest: float = value(1e-5, "Lowest learning rate and weight decay to try.")
    highest: float = value(
        1e-1, "Highest learning rate and weight decay to try."
    )
    tune_head: bool = value(
        False,
        "Also search the multiple of the learning rate for the head, from 1 to "
        "100.",
    )
    select: Literal["clean", "expected_robustness"] = value(
        "clean",
        "What the best trial maximises, on validation images after each epoch. "
        "expected_robustness is measured by `eval_attack`. Instead of "
        "MarginEnsemble, APGD with 10 steps on the margin of probabilities is "
        "used, which ranks trials in a fraction of the passes.",
    )
    select_images: int = value(
        256,
        "Validation images that measure expected_robustness for `select`.",
        at_least=1,
    )
    grace_epochs: int = value(
        1, "Epochs that every trial gets before ASHA may stop it."
    )
    trial_minutes: float = value(30.0, "Most minutes of a trial.", Role.PLACE)
    trial_cpus: float = value(
        1.0, "CPU cores, and so threads, of a trial.", Role.PLACE
    )
    trial_gpus: float | None = value(
        None,
        "GPUs of a trial, also a fraction of one; default: one if there are "
        "any.",
        Role.PLACE,
        at_least=0.0,
    )

    def trained_schedules(self):
        return (self.schedule,)
