"""Callbacks that watch a training, by the flags."""

from absl import flags

FLAGS = flags.FLAGS
_NAMES = (
    "transfer",
    "robust_overfitting",
    "catastrophic_overfitting",
    "images",
)
flags.DEFINE_list(
    "monitors",
    ["transfer"],
    "What is watched, separated by commas: whether the task is adapted to, "
    "with a verdict at the end, which costs nothing (transfer); robustness "
    "that is lost again (robust_overfitting); a training attack that the "
    "network learns to mislead (catastrophic_overfitting); eight adversarial "
    "images an epoch, in TensorBoard (images). All but the first attack images "
    "of the validation split after each epoch. Empty for none.",
)
flags.register_validator(
    "monitors",
    lambda names: set(names) <= set(_NAMES),
    f"expected any of {', '.join(_NAMES)}",
)
flags.DEFINE_enum(
    "monitor_action",
    "warn",
    ["warn", "stop"],
    "What follows when a kind of overfitting is seen; 'stop' ends the training "
    "with the last good weights.",
)
flags.DEFINE_integer(
    "monitor_images",
    256,
    "Images that are attacked; see --monitors.",
    lower_bound=1,
)


def check():
    """Refuses what cannot be watched."""
    from keras_epsched import optional

    overfitting = {"robust_overfitting", "catastrophic_overfitting"}
    if (
        FLAGS.monitor_action == "stop"
        and FLAGS.ema
        and overfitting & set(FLAGS.monitors)
    ):
        raise ValueError(
            "--monitor_action=stop with --ema is not available: Keras would "
            "end the training with its average, not the last good weights"
        )
    if "images" in FLAGS.monitors:
        optional.package("tensorflow", "--monitors=images")


def make(data, folder, reference=None):
    """The monitors of the flags, by their names.

    Args:
        data: The dataset of the flags.
        folder: Folder of the training.
        reference: Clean validation accuracies of a standard fine-tuning.
    """
    import keras_epsched as ke

    made = {}
    if "transfer" in FLAGS.monitors:
        made["transfer"] = ke.callbacks.TransferMonitor(
            data.num_classes, reference
        )
    if not set(FLAGS.monitors) - {"transfer"}:
        return made
    images, labels = _probe(data.validation)
    action = FLAGS.monitor_action
    if "robust_overfitting" in FLAGS.monitors:
        made["robust_overfitting"] = ke.callbacks.RobustOverfittingMonitor(
            images, labels, action=action, batch_size=FLAGS.batch_size
        )
    if "catastrophic_overfitting" in FLAGS.monitors:
        alarm = ke.callbacks.CatastrophicOverfittingAlarm
        made["catastrophic_overfitting"] = alarm(
            images, labels, action=action, batch_size=FLAGS.batch_size
        )
    if "images" in FLAGS.monitors:
        # As many as one can look at.
        few = slice(None, None, -(-len(images) // 8))
        made["images"] = ke.callbacks.AdversarialImages(
            images[few], labels[few], folder / "logs"
        )
    return made


def _probe(dataset):
    """Images and labels of a split, evenly spaced: it may be sorted."""
    import numpy as np
    from keras import ops

    examples = dataset.split_info.num_examples
    wanted = np.linspace(
        0, examples, min(FLAGS.monitor_images, examples), endpoint=False
    ).astype(int)
    images, labels, begin = [], [], 0
    for batch in dataset:
        values = [ops.convert_to_numpy(each) for each in batch[:2]]
        inside = wanted[(wanted >= begin) & (wanted < begin + len(values[0]))]
        images.append(values[0][inside - begin])
        labels.append(values[1][inside - begin])
        begin += len(values[0])
    return np.concatenate(images), np.concatenate(labels)
