"""Compares the adversarial loss in the two modes of BatchNorm.

In a short fine-tuning, the moving statistics of BatchNorm lag behind the
weights. An attack in inference mode is then made for a network with old
statistics, not for the network in training. The adversarial training loss is
low, and the final network is not robust. The monitor warns when the losses of
the two modes differ.
"""

import warnings

import keras
from keras import ops

from keras_epsched.training import passes

# The modes differ if one loss is more than this many times the other, and the
# difference (in nats) is larger than noise.
_RATIO = 2.0
_LEAST_GAP = 0.5
# With a new head, the modes always differ in the first epochs.
_PATIENCE = 3


class BatchNormMonitor(keras.callbacks.Callback):
    """Warns if BatchNorm's moving statistics do not fit the weights.

    `AdversarialTrainer.fit` adds this callback by itself if the network has
    BatchNorm layers that are not frozen.

    After each epoch, one batch is attacked as in training, at the current
    epsilon. The loss of the adversarial images is then measured twice: with
    BatchNorm's moving statistics (`adversarial_loss_inference` in the logs)
    and with the statistics of the batch (`adversarial_loss_training`). If one
    loss is more than twice the other, and they differ by more than 0.5, for
    three epochs in a row or in the last epoch, the callback warns once.

    Training mode includes dropout, so strong dropout also makes the losses
    differ.

    Args:
        images: Array `(batch, ...)` of pixels: training images.
        labels: Array of their labels.

    Example:
    ```python
    images, labels = next(iter(data.train))
    monitor = keras_epsched.callbacks.BatchNormMonitor(images, labels)
    trainer.fit(data.train, epochs=15, callbacks=[scheduler, monitor])
    ```
    """

    def __init__(self, images, labels):
        super().__init__()
        self.images = ops.convert_to_numpy(images).astype("float32")
        self.labels = ops.convert_to_numpy(labels)
        self._parted = 0
        self._warned = False

    def on_train_begin(self, logs=None):
        self._parted = 0
        self._warned = False

    def on_epoch_end(self, epoch, logs=None):
        losses = mode_losses(self.model)(self.images, self.labels)
        inference, training = (float(each) for each in losses)
        if logs is not None:
            logs["adversarial_loss_inference"] = inference
            logs["adversarial_loss_training"] = training
        low, high = sorted((inference, training))
        parted = high > _RATIO * low and high - low > _LEAST_GAP
        parted = parted and self.model.epsilon > 0
        self._parted = self._parted + 1 if parted else 0
        last = parted and epoch + 1 == self.params.get("epochs")
        if (self._parted >= _PATIENCE or last) and not self._warned:
            self._warned = True
            warnings.warn(
                f"Epoch {epoch + 1}: BatchNorm's moving statistics do not fit "
                "the weights. The loss on the same adversarial images is "
                f"{inference:.2f} with the moving statistics and "
                f"{training:.2f} with those of the batch. The network that is "
                "saved uses the moving statistics, so it may be less robust "
                "than the network in training. Pass `batchnorm_momentum=0.9` "
                'or `attack_mode="training"` (if it is not set yet) to '
                "`AdversarialTrainer`, or train for more epochs.",
                stacklevel=2,
            )

    def get_state(self):
        """Returns the state that a resumed training needs."""
        return {"parted": self._parted, "warned": self._warned}

    def set_state(self, state):
        """Restores the state that `get_state` returned."""
        self._parted, self._warned = state["parted"], state["warned"]


def mode_losses(trainer):
    """Returns the compiled measurement of `BatchNormMonitor`.

    Args:
        trainer: `AdversarialTrainer`.

    Returns:
        A function `(images, labels)` that returns the mean cross-entropy of
        the attacked images in inference mode, and in training mode.
    """

    def losses(images, labels):
        labels = trainer.class_labels(labels, images)
        # A fixed seed, so the monitor does not change the training's seed.
        adversarial = trainer.adversarial_view(images, labels, (0, 0))
        return tuple(
            ops.mean(
                keras.losses.sparse_categorical_crossentropy(
                    labels,
                    passes.frozen_logits(trainer, training)(adversarial),
                    from_logits=True,
                )
            )
            for training in (False, True)
        )

    return trainer._mode_losses.of(trainer, losses)
