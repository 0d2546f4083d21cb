"""One trial of tune.py, in a process of its own."""

import sys
import time

import ray_devices


def run(
    config: dict,
    arguments: list[str],
    score: str,
    minutes: float,
    resources: dict,
) -> None:
    """Trains by the flags and a draw of the search, and reports each epoch.

    Args:
        config: Values of flags that are searched.
        arguments: The other flags, as on a command line.
        score: `"clean"` or `"expected_robustness"`.
        minutes: Budget; the epoch that exceeds it is the last.
        resources: What Ray lends to the trial, see `ray_devices.resources`.
    """
    started = time.monotonic()
    ray_devices.share(resources)
    import keras
    from absl import flags

    flags.FLAGS.unparse_flags()
    # The flags of the search itself are known to its own process only.
    import common
    import training_run

    values = [f"--{name}={value}" for name, value in config.items()]
    flags.DEFINE_float("learning_rate", 1e-3, "", allow_override=True)
    flags.DEFINE_string("schedule", "fixed", "", allow_override=True)
    flags.DEFINE_integer("select_images", 256, "", allow_override=True)
    flags.FLAGS(["tune_trial", *arguments, *values])
    common.set_up_keras()
    images = selection() if score == "expected_robustness" else None

    class Reporter(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            from ray import tune

            value = logs["val_accuracy"]
            if images is not None:
                value = robustness(self.model.model, images)
            tune.report({"score": float(value)})
            if time.monotonic() - started > 60 * minutes:
                self.model.stop_training = True

    training_run.train(
        common.make_scheduler(flags.FLAGS.schedule, flags.FLAGS.seed),
        flags.FLAGS.learning_rate,
        flags.FLAGS.seed,
        None,
        verbose=0,
        callbacks=[Reporter()],
    )


def selection():
    """Some validation images with labels, read once for all epochs."""
    import common
    import numpy as np
    from absl import flags

    number, batches = flags.FLAGS.select_images, []
    for images, labels in common.load_data(flags.FLAGS.seed).validation:
        batches.append((np.asarray(images), np.asarray(labels)))
        if sum(len(labels) for _, labels in batches) >= number:
            break
    return tuple(
        np.concatenate(each)[:number] for each in zip(*batches, strict=True)
    )


def robustness(classifier, images) -> float:
    """Expected robustness on some images."""
    import common
    from absl import flags

    report = common.evaluate(
        classifier,
        images,
        attack=common.make_choosing_attack(),
        batch_size=flags.FLAGS.batch_size,
        self_check=False,
        verbose=0,
    )
    return report.expected_robustness()


if __name__ == "__main__":
    sys.exit("tune_trial.py is run by tune.py")
