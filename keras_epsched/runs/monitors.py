"""Callbacks that watch a training, as a config asks for them."""

import pathlib

import keras
import numpy as np
from keras import ops

from keras_epsched import callbacks, datasets
from keras_epsched.configs.config import Settings

# As many as one can look at.
_SHOWN = 8


def make(
    config: Settings,
    data: datasets.ImageData,
    folder: pathlib.Path,
    reference: list[float] | None = None,
) -> dict[str, keras.callbacks.Callback]:
    """Makes the monitors of a config, by their names.

    Args:
        config: `Settings`.
        data: The dataset.
        folder: Path of the folder of the training.
        reference: Clean validation accuracies of a standard fine-tuning.
    """
    made: dict[str, keras.callbacks.Callback] = {}
    if "transfer" in config.monitors:
        made["transfer"] = callbacks.TransferMonitor(
            data.num_classes, reference
        )
    if not set(config.monitors) - {"transfer"}:
        return made
    images, labels = evenly_spaced(data.validation, config.monitor_images)
    shared = {"action": config.monitor_action, "batch_size": config.batch_size}
    if "robust_overfitting" in config.monitors:
        made["robust_overfitting"] = callbacks.RobustOverfittingMonitor(
            images, labels, **shared
        )
    if "catastrophic_overfitting" in config.monitors:
        alarm = callbacks.CatastrophicOverfittingAlarm
        made["catastrophic_overfitting"] = alarm(images, labels, **shared)
    if "images" in config.monitors:
        few = slice(None, None, -(-len(images) // _SHOWN))
        made["images"] = callbacks.AdversarialImages(
            images[few], labels[few], folder / "logs"
        )
    return made


def evenly_spaced(dataset, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels from all over a split: it may be sorted."""
    examples = dataset.split_info.num_examples
    wanted = np.linspace(
        0, examples, min(number, examples), endpoint=False
    ).astype(int)
    images, labels, begin = [], [], 0
    for batch in dataset:
        values = [ops.convert_to_numpy(each) for each in batch[:2]]
        inside = wanted[(wanted >= begin) & (wanted < begin + len(values[0]))]
        images.append(values[0][inside - begin])
        labels.append(values[1][inside - begin])
        begin += len(values[0])
    return np.concatenate(images), np.concatenate(labels)
