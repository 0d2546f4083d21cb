"""The config of a search."""

import dataclasses
from typing import Literal

from keras_epsched.configs.config import SCHEDULE_HELP, check_schedule
from keras_epsched.configs.values import Card, Role, value
from keras_epsched.runs import Settings


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Search(Settings):
    """A search of learning rate and weight decay for one fine-tuning.

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
    lowest: float = value(1e-5, "Lowest learning rate and weight decay.")
    highest: float = value(1e-1, "Highest learning rate and weight decay.")
    tune_head: bool = value(
        False, "Also search the head's multiple, in [1, 100]."
    )
    select: Literal["clean", "expected_robustness"] = value(
        "clean",
        "What is to be best on the validation images, after each epoch. For "
        "expected_robustness APGD with 10 steps on the margin of probabilities "
        "stands in for the default `eval_attack`, at a fraction of its passes.",
    )
    select_images: int = value(
        256,
        "Validation images for `select` by expected_robustness.",
        at_least=1,
    )
    grace_epochs: int = value(1, "Epochs before ASHA stops a trial.")
    trial_minutes: float = value(30.0, "Budget of a trial.", Role.PLACE)
    trial_cpus: float = value(
        1.0, "CPU cores of a trial, which has as many threads.", Role.PLACE
    )
    trial_gpus: float | None = value(
        None,
        "GPUs, or the share of one, of a trial; default: one if there are any.",
        Role.PLACE,
        at_least=0.0,
    )

    def named_schedules(self):
        return ("scheduled", self.schedule)
