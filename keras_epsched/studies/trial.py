"""One trial of a search, in a process of its own."""

import time

import keras
import numpy as np

from keras_epsched.runs import build, finetuning
from keras_epsched.runs.device import computing_as
from keras_epsched.studies import devices
from keras_epsched.studies.search_config import Search


def run(draw: dict, config: Search, resources: dict) -> None:
    """Trains with one draw of the searched values, and reports each epoch.

    Args:
        draw: Dict of the searched values.
        config: `Search`.
        resources: Dict of CPUs and GPUs, see `devices.resources`.
    """
    started = time.monotonic()
    devices.share(resources)
    learning_rate = draw["learning_rate"]
    others = {k: v for k, v in draw.items() if k != "learning_rate"}
    config = config.replace(**others)
    images = None
    if config.select == "expected_robustness":
        images = selection(config)

    class Reporter(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            from ray import tune

            score = logs["val_accuracy"]
            if images is not None:
                score = robustness(config, self.model.model, images)
            tune.report({"score": float(score)})
            if time.monotonic() - started > 60 * config.trial_minutes:
                self.model.stop_training = True

    with computing_as(config):
        finetuning.train(
            config,
            build.make_scheduler(config, config.schedule, config.seed),
            learning_rate,
            config.seed,
            None,
            verbose=0,
            callbacks=[Reporter()],
        )


def selection(config: Search) -> tuple[np.ndarray, np.ndarray]:
    """Returns validation images with labels, to be used after each epoch."""
    number, batches = config.select_images, []
    for images, labels in build.load_data(config, config.seed).validation:
        batches.append((np.asarray(images), np.asarray(labels)))
        if sum(len(labels) for _, labels in batches) >= number:
            break
    images, labels = (
        np.concatenate(each)[:number] for each in zip(*batches, strict=True)
    )
    return images, labels


def robustness(config: Search, classifier: keras.Model, images) -> float:
    """Returns the expected robustness on images with labels."""
    report = finetuning.evaluate(
        config,
        classifier,
        images,
        attack=build.make_choosing_attack(config),
        batch_size=config.batch_size,
        self_check=False,
        verbose=0,
    )
    return report.expected_robustness()
