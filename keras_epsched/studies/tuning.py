"""A search of learning rate and weight decay, which writes a recipe."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator

from keras_epsched import files, optional
from keras_epsched.configs.values import Role, entries
from keras_epsched.runs import ConfigError, Settings, build
from keras_epsched.runs import folder as run_folder
from keras_epsched.runs.checks import refusing
from keras_epsched.runs.prepare import prepared
from keras_epsched.studies import devices, trial
from keras_epsched.studies.search_config import Search

RECIPE = "recipe.json"
_FOUND = "search"


@dataclasses.dataclass(frozen=True)
class Searched:
    """The result of a search. Print it for a table of the trials.

    Args:
        folder: `pathlib.Path` of the run folder.
        trials: List of dicts, one for each trial, the best first.
        recipe: `pathlib.Path` of the recipe of the best trial.
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

    Ray Tune draws trials at random, and ASHA stops weak trials early. Each
    trial has a limit of time, as in the paper (arXiv 2509.23325), and a GPU of
    its own if there are any. The same seed gives the same draws. Needs
    `pip install "keras-epsched[study]"`.

    To resume an interrupted search, set `config.resume`. Unfinished trials then
    start again.

    Args:
        config: `Search`.
        command: String or `None`. The command to store in config.json.

    Returns:
        A `Searched`. Pass its `recipe` to `Config`.

    Raises:
        ConfigError: If the config, the data or the backbone does not fit.
        RuntimeError: If no trial has finished an epoch.
    """
    with contextlib.ExitStack() as stack:
        with refusing():
            if not 0 < config.lowest < config.highest:
                raise ConfigError(
                    "`lowest` must be positive and below `highest`. Received: "
                    f"lowest={config.lowest}, highest={config.highest}"
                )
            # A missing package is reported before data is loaded.
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
        # The score of the last epoch counts: a training ends with its weights.
        rows.sort(key=lambda row: -(row["score"] or 0.0))
        files.write_json(folder / "trials.json", rows)
        if not rows or rows[0]["score"] is None:
            raise RuntimeError(
                f"no trial has finished an epoch. {folder}/trials.json has the "
                "errors"
            )
        recipe = write_recipe(config, folder, rows[0])
    return Searched(folder, rows, recipe)


@contextlib.contextmanager
def _opened(config, command):
    """Opens the folder of a search, an existing one to resume.

    Yields:
        The folder and the config.
    """
    if not config.resume:
        # The trials need the GPUs.
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
            "`resume` continues the search in the folder `output`. Received: "
            f"output={config.output}, which has no search. To begin one, "
            "leave out `resume`"
        )
    config = run_folder.as_begun(config, folder / run_folder.CONFIG)
    with run_folder.locked(folder):
        yield folder, config


@contextlib.contextmanager
def gpus_hidden() -> Iterator[None]:
    """Hides the GPUs from the backend of this process.

    A backend takes the memory of all GPUs that it sees at its start, and keeps
    it. The trials need that memory, so Ray must see the GPUs afterwards.
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
    """Makes the space of searched values, for Ray Tune."""
    from ray import tune

    between = tune.loguniform(config.lowest, config.highest)
    space = {"learning_rate": between, "weight_decay": between}
    if config.tune_head:
        space["head_multiplier"] = tune.loguniform(1.0, 100.0)
    return space


def make_generator(config: Search):
    """Makes a generator of draws, which repeats with the same seed."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=config.seed)


def _make_tuner(config, folder):
    """Makes the tuner of a search, new or resumed."""
    # Relative paths must keep their meaning in the trials.
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
        best: Dict of the best trial.

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
    # The search does not choose the schedule and the final attack.
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
