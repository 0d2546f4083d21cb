"""One trial of tune.py, in a process of its own."""

import os
import sys
import time
import warnings

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def resources(seen, cpus: float, gpus: float | None) -> dict[str, float]:
    """What a trial asks of Ray.

    Args:
        seen: Mapping. What there is, as `ray.cluster_resources()` gives it.
        cpus: CPU cores of a trial.
        gpus: GPUs of a trial, or the share of one. `None` is one for each
            trial where there are any: how many networks fit on a GPU is not
            known before they are trained.

    Returns:
        A `dict` with `"cpu"` and `"gpu"`.

    Raises:
        ValueError: If no trial could ever start.
    """
    there = {"cpu": seen.get("CPU", 0.0), "gpu": seen.get("GPU", 0.0)}
    if gpus is None:
        gpus = min(1.0, there["gpu"])
    asked = {"cpu": cpus, "gpu": gpus}
    for name, number in asked.items():
        if number > there[name]:
            raise ValueError(
                f"--trial_{name}s={number:g}, but Ray sees {there[name]:g}: no "
                "trial would ever start"
            )
    if there["gpu"] and not gpus:
        warnings.warn(
            f"--trial_gpus=0: the trials run on the CPU, and {there['gpu']:g} "
            "GPU(s) stand idle",
            stacklevel=2,
        )
    return asked


def run(
    config: dict, arguments: list[str], score: str, minutes: float, gpus: float
) -> None:
    """Trains by the flags and a draw of the search, and reports each epoch.

    Args:
        config: Values of flags that are searched.
        arguments: The other flags, as on a command line.
        score: `"clean"` or `"expected_robustness"`.
        minutes: Budget; the epoch that exceeds it is the last.
        gpus: GPUs that Ray lends to the trial, or the share of one.
    """
    started = time.monotonic()
    # Another trial may have a share of the same GPU: TensorFlow and JAX would
    # take all of its memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if not gpus:
        # Ray leaves all of them in sight.
        os.environ[VISIBLE_GPUS] = "-1"
    import keras
    from absl import flags

    flags.FLAGS.unparse_flags()
    # The flags of the search itself are known to its own process only.
    import common

    values = [f"--{name}={value}" for name, value in config.items()]
    flags.DEFINE_float("learning_rate", 1e-3, "", allow_override=True)
    flags.DEFINE_string("schedule", "fixed", "", allow_override=True)
    flags.DEFINE_integer("select_images", 256, "", allow_override=True)
    flags.FLAGS(["tune_trial", *arguments, *values])
    common.make_deterministic()
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

    common.train(
        common.make_schedule(flags.FLAGS.schedule, flags.FLAGS.seed),
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

    import keras_epsched as ke

    chosen = flags.FLAGS
    report = ke.evaluate(
        classifier,
        images,
        common.evaluation_grid(),
        common.make_attack(chosen.eval_attack, chosen.eval_steps),
        batch_size=chosen.batch_size,
        seed=chosen.seed,
        self_check=False,
        verbose=0,
    )
    return report.expected_robustness()


if __name__ == "__main__":
    sys.exit("tune_trial.py is run by tune.py")
