"""The beginning of a run: all checks, then its folder."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Generic

from keras_epsched import datasets, models
from keras_epsched.configs import recipes
from keras_epsched.configs.config import Kind, Settings
from keras_epsched.configs.values import ConfigError
from keras_epsched.runs import build, checks, costs, folder, outcome
from keras_epsched.runs.device import computing_as, describe_device
from keras_epsched.runs.epoch_lines import LEGEND

_ROBUST_BACKBONE = (
    "The backbone is robust already, and schedules were made for non-robust "
    "ones. On robust backbones a schedule gave more clean accuracy and less "
    "robustness: at 4/255, expected robustness was lower than with a fixed "
    "epsilon in 6 of the 12 cells of arXiv 2509.23325, table 3. Compare both "
    "with launch/compare.py before you choose."
)


@dataclasses.dataclass(frozen=True)
class Run(Generic[Kind]):
    """A run whose folder is open.

    Args:
        config: `Settings`, as it was begun.
        folder: `pathlib.Path`.
        data: The dataset, in the order of the first seed.
        command: String or `None`. What was called.
        verbose: Int. 0 for silence.
        step_work: Pair of ints. The work of a training step for one image,
            without and with an attack, in forward passes.
    """

    config: Kind
    folder: pathlib.Path
    data: datasets.ImageData
    command: str | None
    verbose: int
    step_work: tuple[int, int] = (0, 0)

    def say(self, text: str) -> None:
        """Prints, unless the run is silent."""
        if self.verbose:
            print(text, flush=True)

    def write_config(self, **more) -> None:
        """Writes config.json, with the splits of the data and the attack."""
        folder.write_config(
            self.folder,
            self.config,
            self.command,
            splits=splits_of(self.data),
            evaluation=final_attacks(self.config),
            **more,
        )


@contextlib.contextmanager
def prepared(
    config: Kind, name: str, command: str | None, verbose: int
) -> Iterator[Run[Kind]]:
    """Checks config, data and backbone; then opens the run folder.

    What is wrong with any of them is said before anything is written.

    Args:
        config: `Settings`.
        name: String. First part of the name of a folder that has none.
        command: String or `None`. What was called.
        verbose: Int. 0 for silence.

    Yields:
        The `Run`.
    """
    with contextlib.ExitStack() as stack:
        with checks.refusing():
            stack.enter_context(computing_as(config))
            # First, for a run goes on by the defaults that it was begun with.
            config = folder.check_begun(config)
            checks.check(config)
            if verbose:
                announce(config)
            data = build.load_data(config, config.seed)
            if verbose:
                print(describe_data(data), flush=True)
            step_work = check_training(config, data, verbose)
            where, config = stack.enter_context(
                folder.opened(config, name, command)
            )
        run = Run(config, where, data, command, verbose, step_work)
        run.say(describe_device())
        run.say(f"run folder: {where}")
        run.say(f"\n{LEGEND}")
        yield run


def announce(config: Settings) -> None:
    """Prints what is run: the recipe, and the values that were changed."""
    if config.recipe:
        recipe = recipes.for_config(config.recipe, type(config))
        print(f"recipe: {recipe.source}")
        if recipe.choices:
            print(
                outcome.wrapped(
                    "not stated by the source, chosen here: "
                    f"{', '.join(recipe.choices)}"
                )
            )
    text = f"values: {config} (config.json in the run folder has all)"
    print(outcome.wrapped(text), flush=True)


def describe_data(data: datasets.ImageData) -> str:
    """Says how many images there are of what."""
    train, validation, test = (
        f"{getattr(data, part).split_info.num_examples:,}"
        for part in ("train", "validation", "test")
    )
    height, width = data.image_size
    return (
        f"data: {data.name}, {data.num_classes} classes, {height} x {width} "
        f"pixels; {train} images for training, {validation} for validation, "
        f"{test} for the test"
    )


def check_training(
    config: Settings, data: datasets.ImageData, verbose: int
) -> tuple[int, int]:
    """Refuses a training that the data or the backbone are not fit for.

    Returns:
        The work of a training step for one image, without and with an attack,
        in forward passes.
    """
    batches = config.epochs * len(data.train)
    if config.accumulate > batches:
        raise ConfigError(
            f"the training has {batches} batches, so it would make no step. "
            f"Received: accumulate={config.accumulate}"
        )
    if config.robust_backbone and verbose:
        print(outcome.wrapped(f"note: {_ROBUST_BACKBONE}"), flush=True)
    classifier = build.make_classifier(config, data.num_classes, config.seed)
    build.adapt(config, classifier)
    if verbose:
        parameters = models.trainable_parameters(classifier)
        print(f"network: {config.backbone}, {parameters}", flush=True)
    # Not every objective goes with every network.
    trainer = build.make_trainer(config, classifier, config.seed)
    plain, attacked = (costs.of_step(trainer, each) for each in (False, True))
    return plain.work, attacked.work


def splits_of(data: datasets.ImageData) -> dict:
    """What config.json says of the data."""
    return {
        name: dataclasses.asdict(getattr(data, name).split_info)
        for name in ("train", "validation", "test")
    }


def final_attacks(config: Settings) -> dict[str, str]:
    """What config.json says of the final attack, for each protocol."""
    return {
        each: build.make_final_attack(config, each).title
        for each in config.swept_protocols()
    }
