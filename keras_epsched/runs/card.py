"""The model card of a training."""

import os
import pathlib

from keras_epsched import datasets, evaluation
from keras_epsched.configs.config import Settings
from keras_epsched.configs.values import Card, entries

_FILE = "README.md"


def write(
    folder: pathlib.Path,
    config: Settings,
    report: evaluation.Report,
    data: datasets.ImageData,
    **chosen,
) -> None:
    """Writes the model card, README.md, of a training.

    Args:
        folder: Path of its folder.
        config: `Settings`.
        report: The evaluation that it states.
        data: The dataset.
        **chosen: What was chosen beside the config, as the epochs that were
            trained; it goes before.
    """
    known = entries(config)
    values = {**{name: getattr(config, name) for name in known}, **chosen}
    standard = values["schedule"] == "standard"
    always = [
        name
        for name in values
        if name not in known or known[name].about.on_card is Card.ALWAYS
    ]
    if standard:
        always = [
            name
            for name in always
            if name not in known or not known[name].about.of_attack
        ]
    changed = [
        name
        for name, entry in sorted(known.items())
        if entry.about.on_card is Card.CHANGED and values[name] != entry.default
    ]
    evaluation.write_model_card(
        report,
        folder / _FILE,
        {name: _short(values[name]) for name in (*always, *changed)},
        classes=data.class_names,
        robust=not standard,
    )


def _short(value):
    """The name of a file or folder; other values as they are."""
    if isinstance(value, tuple):
        return list(value)
    is_path = isinstance(value, str) and os.path.exists(value)
    return pathlib.Path(value).name if is_path else value
