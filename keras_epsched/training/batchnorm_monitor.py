"""A monitor of what BatchNorm does to the loss in robust fine-tuning.

In a short fine-tuning the moving statistics of BatchNorm lag behind. An
attack in inference mode then fools those stale statistics, not the network
that is being trained: the adversarial training loss is low and the final
network is not robust. The monitor shows when the two modes part.
"""

import warnings

import keras
from keras import ops

from keras_epsched.training import passes

# The modes have parted when one loss is this many times the other, and the
# difference is more than noise (in nats).
_RATIO = 2.0
_LEAST_GAP = 0.5
# The first epochs of a new head part the modes anyway.
_PATIENCE = 3


class BatchNormMonitor(keras.callbacks.Callback):
    """Logs the adversarial loss in both modes of BatchNorm, on one batch.

    After each epoch the batch is attacked as in training, at the current
    epsilon, and the loss of the result is measured with moving statistics
    (`adversarial_loss_inference`) and with those of the batch
    (`adversarial_loss_training`). When they have parted for three epochs in a
    row, or in the last epoch, it warns, once.
    `AdversarialTrainer.fit` adds one by itself when the network has BatchNorm
    layers that adapt. Training mode includes dropout: with strong dropout the
    losses differ for that reason too.

    Args:
        images: Array `(batch, ...)` of pixels: training images.
        labels: Array of their labels.
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
                f"epoch {epoch + 1}: the loss on the same adversarial images "
                f"is {inference:.2f} with BatchNorm's moving statistics and "
                f"{training:.2f} with those of the batch. The network that "
                "is trained and the one that will be used have parted, and "
                "robustness may not carry over. Lower the momentum "
                "(`batchnorm_momentum=0.9`), train longer, or, if the attack "
                'ran in inference mode, use `attack_mode="training"`.',
                stacklevel=2,
            )

    def get_state(self):
        """What a resumed training must remember."""
        return {"parted": self._parted, "warned": self._warned}

    def set_state(self, state):
        """Takes what `get_state` returned."""
        self._parted, self._warned = state["parted"], state["warned"]


def mode_losses(trainer):
    """What `BatchNormMonitor` measures on its images, compiled.

    Args:
        trainer: `AdversarialTrainer`.

    Returns:
        A function `(images, labels)` to the mean cross-entropy of the attacked
        images in inference mode and in training mode.
    """

    def losses(images, labels):
        labels = trainer.class_labels(labels, images)
        # A fixed seed: the monitor must not advance that of the training.
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
