"""A search of learning rate and weight decay, whose best becomes a recipe."""

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
