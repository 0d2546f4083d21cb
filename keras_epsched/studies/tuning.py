"""A search of learning rate and weight decay, whose best becomes a recipe."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Literal

from keras_epsched import files, optional
from keras_epsched.runs import ConfigError, Settings, build
from keras_epsched.runs import folder as run_folder
from keras_epsched.runs.checks import refusing
from keras_epsched.runs.config import SCHEDULE_HELP, check_schedule
from keras_epsched.runs.prepare import prepared
from keras_epsched.runs.values import Card, Role, entries, value
from keras_epsched.studies import devices, trial

RECIPE = "recipe.json"
_FOUND = "search"


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


@dataclasses.dataclass(frozen=True)
class Searched:
    """What a search gives; print it for a table of its trials.

    Args:
        folder: `pathlib.Path` of the run folder.
        trials: List of dicts, the trials, the best first.
        recipe: `pathlib.Path` of the recipe that it has written.
    """

    folder: pathlib.Path
    trials: list[dict]
    recipe: pathlib.Path

    def __str__(self):
        from tabulate import tabulate

        return (
            f"{tabulate(self.trials, headers='keys')}\n\nrecipe: {self.recipe}"
        )


def search(config: Search, *, command: str | None = None) -> Searched:
    """Searches learning rate and weight decay, and writes the best as a recipe.

    Trials are drawn at random and stopped early by ASHA, in Ray Tune, each
    within a budget of time, as in the paper (arXiv 2509.23325). Draws repeat
    with the same seed. Each trial has a GPU of its own where there are any.
    Needs `pip install "keras-epsched[study]"`.

    With `config.resume` a search that was interrupted goes on; trials that
    were under way start again.

    Args:
        config: `Search`.
        command: String or `None`. What config.json states as the command.

    Returns:
        A `Searched`, whose `recipe` a `Config` takes.

    Raises:
        ConfigError: If the config, the data or the backbone is not fit for it.
        RuntimeError: If no trial has finished an epoch.
    """
    with contextlib.ExitStack() as stack:
        with refusing():
            if not 0 < config.lowest < config.highest:
                raise ConfigError(
                    "`lowest` must be positive and below `highest`. Received: "
                    f"lowest={config.lowest}, highest={config.highest}"
                )
            # Said before anything is prepared.
            optional.package(
                "ray", "the search", 'Or: pip install "keras-epsched[study]".'
            )
            folder, config = stack.enter_context(_opened(config, command))
        found = _make_tuner(config, folder).fit()
        rows = [
            {
                **result.config,
                "score": result.metrics.get("score"),
                "epochs": result.metrics.get("training_iteration"),
                "seconds": result.metrics.get("time_total_s"),
                "error": str(result.error or ""),
            }
            for result in found
            if result.config
        ]
        # By the last epoch of each, whose weights a training would give.
        rows.sort(key=lambda row: -(row["score"] or 0.0))
        files.write_json(folder / "trials.json", rows)
        if not rows or rows[0]["score"] is None:
            raise RuntimeError(f"no trial has finished an epoch: see {folder}")
        recipe = write_recipe(config, folder, rows[0])
    return Searched(folder, rows, recipe)


@contextlib.contextmanager
def _opened(config, command):
    """The folder of the search, which one that resumes expects to be there."""
    if not config.resume:
        # What is computed here must leave the GPUs to the trials.
        with gpus_hidden():
            opening = prepared(config, "tune", command, verbose=1)
            run = opening.__enter__()
        try:
            yield run.folder, run.config
        finally:
            opening.__exit__(None, None, None)
        return
    folder = pathlib.Path(config.output or "")
    if config.output is None or not (folder / _FOUND).is_dir():
        raise ConfigError(
            "`resume` continues a search that `output` holds. Received: "
            f"output={config.output}, where there is none: leave out `resume`"
        )
    config = run_folder.as_begun(config, folder / run_folder.CONFIG)
    with run_folder.locked(folder):
        yield folder, config


@contextlib.contextmanager
def gpus_hidden() -> Iterator[None]:
    """Keeps what is computed here off the GPUs, which are for the trials.

    A backend takes the memory of those that it sees, and keeps it; what it has
    not seen at first it does not see later. Ray must see them again.
    """
    name = devices.VISIBLE_GPUS
    before = os.environ.get(name)
    os.environ[name] = "-1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def make_space(config: Search) -> dict:
    """Makes what is searched."""
    from ray import tune

    between = tune.loguniform(config.lowest, config.highest)
    space = {"learning_rate": between, "weight_decay": between}
    if config.tune_head:
        space["head_multiplier"] = tune.loguniform(1.0, 100.0)
    return space


def make_generator(config: Search):
    """Makes the draws of the space, the same for the same seed."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=config.seed)


def _make_tuner(config, folder):
    """The search of a config, new or resumed."""
    # Trials write nothing, and relative paths stay what they are.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    ray.init()
    resources = devices.resources(
        devices.nodes(), config.trial_cpus, config.trial_gpus, "trial"
    )
    one = functools.partial(trial.run, config=config, resources=resources)
    one = tune.with_resources(one, resources)
    if config.resume:
        return tune.Tuner.restore(
            str((folder / _FOUND).resolve()), one, restart_errored=True
        )
    return tune.Tuner(
        one,
        param_space=make_space(config),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=config.trials,
            search_alg=make_generator(config),
            scheduler=ASHAScheduler(
                max_t=config.epochs,
                grace_period=min(config.grace_epochs, config.epochs),
            ),
        ),
        run_config=tune.RunConfig(
            name=_FOUND, storage_path=str(folder.resolve())
        ),
    )


def write_recipe(
    config: Search, folder: pathlib.Path, best: dict
) -> pathlib.Path:
    """Writes the best trial as a recipe.

    Args:
        config: `Search`.
        folder: Path of the run folder.
        best: Dict, the best trial.

    Returns:
        Path of the recipe.
    """
    why = f"the best of {config.trials} trials by {config.select}"
    if config.select == "expected_robustness":
        why += f" under {build.make_choosing_attack(config).title}"
    searched = {
        name: best[name]
        for name in ("learning_rate", "weight_decay", "head_multiplier")
        if name in best
    }
    # Schedule and final attack are not the search's to choose.
    values = {
        name: each
        for name, each in config.as_dict().items()
        if name in entries(Settings)
        and name != "recipe"
        and entries(Settings)[name].about.role is Role.SCIENCE
    }
    files.write_json(
        folder / RECIPE,
        {
            "source": f"A search on {config.dataset}, schedule "
            f"{config.schedule}: score {best['score']:.4f} after epoch "
            f"{best['epochs']}",
            "flags": {**values, **searched},
            "choices": dict.fromkeys(searched, why),
        },
    )
    return folder / RECIPE
