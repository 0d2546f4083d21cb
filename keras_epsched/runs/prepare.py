"""The beginning of a run: all checks, then its folder."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Generic

from keras_epsched import datasets, models
from keras_epsched.configs import recipes
from keras_epsched.configs.config import Kind, Settings
from keras_epsched.configs.values import ConfigError, entries
from keras_epsched.runs import build, checks, folder
from keras_epsched.runs.device import computing_as, describe_device

_ROBUST_BACKBONE = (
    "The backbone is robust already: the schedule is not a free win here. It "
    "was made for non-robust backbones. On robust ones it traded robustness "
    "for clean accuracy: at 4/255, expected robustness fell in 6 of the 12 "
    "cells of arXiv 2509.23325, table 3, against a fixed epsilon. Compare both "
    "(launch/compare.py) before you choose."
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
    """

    config: Kind
    folder: pathlib.Path
    data: datasets.ImageData
    command: str | None
    verbose: int

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
            checks.check(config)
            if verbose:
                announce(config)
            data = build.load_data(config, config.seed)
            if verbose:
                print(f"\n{data}", flush=True)
            check_training(config, data, verbose)
            where, config = stack.enter_context(
                folder.opened(config, name, command)
            )
        run = Run(config, where, data, command, verbose)
        run.say(f"\n{describe_device()}")
        yield run


def announce(config: Settings) -> None:
    """Prints what is run: the recipe, if there is one, and all values."""
    if config.recipe:
        kind = type(config)
        print(f"{recipes.for_config(config.recipe, kind)}\n")
        others = set(recipes.get(config.recipe).flags) - set(entries(kind))
        if "learning_rates" in entries(kind):
            # A comparison takes the rate of a recipe as its only one.
            others -= {"learning_rate"}
        if others:
            print(
                f"recipe={config.recipe}: there are no values "
                f"{sorted(others)} here\n"
            )
    print(config, flush=True)


def check_training(
    config: Settings, data: datasets.ImageData, verbose: int
) -> None:
    """Refuses a training that the data or the backbone are not fit for."""
    batches = config.epochs * len(data.train)
    if config.accumulate > batches:
        raise ConfigError(
            f"the training has {batches} batches, so it would take no step. "
            f"Received: accumulate={config.accumulate}"
        )
    if config.robust_backbone and verbose:
        print(f"\n{_ROBUST_BACKBONE}", flush=True)
    classifier = build.make_classifier(config, data.num_classes, config.seed)
    build.adapt(config, classifier)
    if verbose:
        print(models.trainable_parameters(classifier), flush=True)
    # Not every objective goes with every network.
    build.make_trainer(config, classifier, config.seed)


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
