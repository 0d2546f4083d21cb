"""BatchNorm in robust fine-tuning: its settings, and a monitor for it.

In a short fine-tuning the moving statistics of BatchNorm lag behind. An
attack in inference mode then fools those stale statistics, not the network
that is being trained: the adversarial training loss is low and the final
network is not robust. The monitor shows when the two modes part.
"""

import warnings

import keras
from keras import ops

from keras_epsched import backend

# The modes have parted when one loss is this many times the other, and the
# difference is more than noise (in nats).
_RATIO = 2.0
_LEAST_GAP = 0.5
# The first epochs of a new head part the modes anyway.
_PATIENCE = 3


def batchnorm_layers(model: keras.Model) -> list:
    """Returns all the BatchNormalization layers below `model`."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def configure(model: keras.Model, momentum, freeze: bool) -> None:
    """Sets the momentum of every BatchNorm layer, or freezes them."""
    if momentum is not None and not 0 <= momentum < 1:
        raise ValueError(
            "`batchnorm_momentum` must lie in [0, 1). Received: "
            f"batchnorm_momentum={momentum}"
        )
    for layer in batchnorm_layers(model):
        if momentum is not None:
            layer.momentum = momentum
        if freeze:
            layer.trainable = False


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
        images: Array `(batch, ...)` of pixels, the probe. Training images.
        labels: Array of their labels.
    """

    def __init__(self, images, labels):
        super().__init__()
        self.images = ops.convert_to_numpy(images).astype("float32")
        self.labels = ops.convert_to_numpy(labels)
        self._measure = self._attack = None
        self._parted = 0
        self._warned = False

    def on_train_begin(self, logs=None):
        self._attack = None
        self._parted = 0
        self._warned = False

    def on_epoch_end(self, epoch, logs=None):
        if self._attack is not self.model.attack:
            # Compiled, it keeps the attack that it was made with.
            self._attack = self.model.attack
            self._measure = make_mode_losses(self.model)
        losses = self._measure(self.images, self.labels)
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
        """What a training that goes on must remember."""
        return {"parted": self._parted, "warned": self._warned}

    def set_state(self, state):
        """Takes what `get_state` returned."""
        self._parted, self._warned = state["parted"], state["warned"]


def make_mode_losses(trainer):
    """Compiles the probe of `BatchNormMonitor`.

    Args:
        trainer: `AdversarialTrainer`.

    Returns:
        A function `(images, labels)` to the mean cross-entropy of the attacked
        images in inference mode and in training mode.
    """

    def mode_losses(images, labels):
        labels = trainer.class_labels(labels, images)
        # A fixed seed: the probe must not advance that of the training.
        adversarial = trainer.attacked(images, labels, (0, 0))
        return tuple(
            ops.mean(
                keras.losses.sparse_categorical_crossentropy(
                    labels,
                    trainer.frozen_logits(training)(adversarial),
                    from_logits=True,
                )
            )
            for training in (False, True)
        )

    jit_compile = getattr(trainer, "jit_compile", False)
    return backend.compile(mode_losses, bool(jit_compile), trainer.variables)
