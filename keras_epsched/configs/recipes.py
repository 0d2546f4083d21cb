"""Recipes of record: values for a config, and where each comes from.

A recipe sets what a config does not give. `recipe=` takes a name of `RECIPES`,
or a JSON file of the same form, as a search writes it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from keras_epsched.configs.values import ConfigError, entries


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Values for a config.

    Args:
        source: String. Where the recipe was published.
        flags: Mapping from names to values.
        choices: Mapping from the name of a value to the reason for it, where
            the source does not state one: those are our choice.
    """

    source: str
    flags: Mapping[str, object]
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.flags, Mapping):
            raise ValueError(f"`flags` must be a mapping: {self.flags!r}")
        unknown = sorted(set(self.choices) - set(self.flags))
        if unknown:
            raise ValueError(
                f"`choices` of flags that have no value: {unknown}"
            )

    def __str__(self):
        from tabulate import tabulate

        rows = [
            (name, value, self.choices.get(name, "as in the source"))
            for name, value in self.flags.items()
        ]
        headers = ("flag", "value", "why")
        return f"{self.source}\n\n{tabulate(rows, headers)}"


def _of_budget(times, epochs):
    """What to buy with the cost of some plain trainings of 20 epochs."""
    return Recipe(
        source=f"our study of a fixed budget (REPRODUCTION.md). Costs {times} "
        "as much as 20 epochs without an attack",
        flags={
            "schedule": "scheduled",
            "ramp_start": 0.24,
            "ramp_end": 0.74,
            "decay_start": 0.74,
            "train_attack": "pgd",
            "train_steps": 3,
            "epochs": epochs,
            # Few epochs would make a staircase of the ramp.
            "update_freq": "batch",
        },
    )


RECIPES = {
    "epsilon_scheduling_2026": Recipe(
        source=(
            "Ngnawé et al., Epsilon-Scheduling, ICLR 2026 (arXiv 2509.23325)"
        ),
        flags={
            "image_size": 224,
            "epsilon": 4 / 255,
            "norm": "linf",
            "schedule": "scheduled",
            "ramp_start": 12 / 50,
            "ramp_end": 37 / 50,
            "update_freq": "epoch",
            "epochs": 50,
            "train_attack": "apgd",
            "train_steps": 7,
            "attack_mode": "inference",
            "protocols": ["nested", "paper"],
            "augment": ["flip", "color", "rotation"],
            "learning_rate": 1.22e-4,
            "head_multiplier": 33.0,
            "weight_decay": 1e-6,
            "warmup": 0.05,
            "decay_start": None,
            "batch_size": 64,
        },
        choices={
            "attack_mode": "the network of the authors' sibling code attacks "
            "in this mode (arXiv 2508.14079)",
            "protocols": "the source has 'paper' alone, which leaves a loose "
            "upper bound; the default is measured beside it",
            "learning_rate": "searched for each task; this is the most "
            "frequent optimum of the sibling code. See launch/tune.py",
            "head_multiplier": "the same: 4e-3 for the head",
            "weight_decay": "the same",
            "warmup": "a warm-up of unstated length",
            "batch_size": "not stated; fits 16 GB at 224 pixels. The sibling "
            "code accumulates 1024 images",
        },
    ),
    "fast_fgsm": Recipe(
        source="Wong et al., Fast is better than free, ICLR 2020 "
        "(arXiv 2001.03994)",
        flags={
            "epsilon": 8 / 255,
            "train_attack": "fgsm",
            "train_steps": 1,
            "schedule": "fixed",
            "attack_mode": "training",
            "epochs": 15,
            "warmup": 0.4,
            "decay_start": None,
            "augment": ["flip"],
        },
        choices={
            "warmup": "a triangular rate in the source, whose rise this is; "
            "here a cosine follows, and AdamW stands for SGD",
            "decay_start": "the end of the warm-up",
            "augment": "flips and padded crops in the source",
        },
    ),
    "trades_10": Recipe(
        source="Zhang et al., Theoretically principled trade-off between "
        "robustness and accuracy, ICML 2019 (arXiv 1901.08573)",
        flags={
            "objective": "trades",
            "beta": 6.0,
            "epsilon": 0.031,
            "norm": "linf",
            "train_attack": "pgd",
            "train_steps": 10,
            "schedule": "fixed",
            "attack_mode": "inference",
            "epochs": 100,
            "decay_start": None,
            "augment": ["flip"],
            "batch_size": 128,
        },
        choices={
            "train_steps": "ten, of 0.25 epsilon here and 0.007 there; the "
            "start is a random point of the ball, there noise of 0.001",
            "schedule": "from scratch in the source. From a non-robust "
            "backbone compare schedule=scheduled",
            "augment": "flips and padded crops in the source",
            "epochs": "of SGD in the source; AdamW and cosine here, whose "
            "learning rate you choose",
            "decay_start": "the end of the warm-up; two falls in the source",
        },
    ),
    "light_vit": Recipe(
        source="Debenedetti et al., A light recipe to train robust vision "
        "transformers, SaTML 2023 (arXiv 2209.07399)",
        flags={
            "image_size": 224,
            "epsilon": 4 / 255,
            "train_attack": "fgsm",
            "train_steps": 1,
            "schedule": "scheduled",
            "ramp_start": 0.0,
            "ramp_end": 0.1,
            "epochs": 100,
            "augment": ["flip"],
            "learning_rate": 5e-4,
            "weight_decay": 0.5,
            "warmup": 0.1,
            "decay_start": None,
            "batch_size": 64,
        },
        choices={
            "train_steps": "one step, of 1.25 epsilon here and 1.5 there",
            "epochs": "the ramp takes the ten epochs of the source; their "
            "number after it depends on the task",
            "warmup": "the same ten epochs",
            "batch_size": "fits 16 GB at 224 pixels",
        },
    ),
    "budget_1": _of_budget("about", 8),
    "budget_2": _of_budget("twice", 16),
    "budget_4": _of_budget("four times", 32),
}


def get(name: str) -> Recipe:
    """A recipe by its name, or from a JSON file.

    Args:
        name: String. Name of a recipe, or path of a file.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: If there is no such recipe, or the file is none.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = pathlib.Path(name)
    if not path.is_file():
        raise ConfigError(
            f"recipe={name} is neither a recipe ({', '.join(RECIPES)}) nor a "
            "file"
        )
    try:
        return Recipe(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"recipe={name} is no recipe: expected a JSON object with "
            f'"source", "flags" and "choices". {error}'
        ) from error


def for_config(name: str, kind: type) -> Recipe:
    """A recipe for a class of configs.

    Args:
        name: String. As in `get`.
        kind: Class of configs. What it has no value for is left out; the one
            learning rate of a recipe is the only one that a comparison tries.

    Returns:
        A `Recipe`, whose values are of the right types.

    Raises:
        ConfigError: If there is no such recipe, or a value is not as it must
            be.
    """
    recipe, known = get(name), entries(kind)
    if "learning_rates" in known and "learning_rate" in recipe.flags:
        recipe = _as_learning_rates(recipe)
    values = {}
    for key in recipe.flags.keys() & known.keys():
        try:
            values[key] = known[key].parse(recipe.flags[key])
        except ConfigError as error:
            raise ConfigError(f"recipe={name}: {error}") from error
    return dataclasses.replace(
        recipe,
        flags={key: values[key] for key in recipe.flags if key in values},
        choices={k: v for k, v in recipe.choices.items() if k in values},
    )


def _as_learning_rates(recipe):
    values, choices = dict(recipe.flags), dict(recipe.choices)
    values["learning_rates"] = [values.pop("learning_rate")]
    if "learning_rate" in choices:
        choices["learning_rates"] = choices.pop("learning_rate")
    return dataclasses.replace(recipe, flags=values, choices=choices)
