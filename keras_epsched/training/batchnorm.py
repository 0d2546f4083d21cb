"""Finds BatchNorm layers, and sets how fast their statistics move."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_epsched import backend, batches, checks

# At the end of an epoch, at most this share of the moving statistics comes
# from earlier epochs.
_OLD_SHARE = 0.2
# For epochs of unknown length. With it, the old share falls to 0.1 in 22
# steps.
_UNKNOWN = 0.9


def batchnorm_layers(model: keras.Model) -> list:
    """Returns all the BatchNormalization layers below `model`."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def adapts(model: keras.Model) -> bool:
    """Returns whether a model has BatchNorm layers that are not frozen."""
    return any(layer.trainable for layer in batchnorm_layers(model))


def configure(model: keras.Model, momentum, freeze: bool) -> None:
    """Sets the momentum of every BatchNorm layer, or freezes them."""
    if momentum is not None and not 0 <= momentum < 1:
        raise ValueError(
            "`batchnorm_momentum` must be at least 0 and below 1. Received: "
            f"batchnorm_momentum={momentum}"
        )
    for layer in batchnorm_layers(model):
        if momentum is not None:
            layer.momentum = momentum
        if freeze:
            layer.trainable = False


def highest_momentum(steps: int | None) -> float:
    """Returns the highest momentum that suits an epoch of some length.

    Args:
        steps: Int or `None`. Number of steps of an epoch, if it is known.
    """
    return _OLD_SHARE ** (1 / steps) if steps else _UNKNOWN


class ShortEpochMomentum(keras.callbacks.Callback):
    """Lowers the momentum of BatchNorm if epochs are short.

    With a momentum of 0.99, moving statistics average about the last hundred
    steps. If an epoch has 18 steps, most of them are older than the epoch, and
    the weights have changed since. The network that is validated and saved
    then differs from the network that was trained. With the momentum that this
    callback sets, at most a fifth of the statistics is older than the epoch.

    Layers with a lower momentum are not changed. Epochs of 161 steps or more
    need no change of the default momentum 0.99. The momentum is lowered only
    during a step, so a saved model has the layers' own momentum.
    """

    def __init__(self):
        super().__init__()
        # Each layer, its own momentum, and its momentum during a step.
        self._layers = []

    def on_train_begin(self, logs=None):
        trainer = self.model
        highest = highest_momentum(self.params.get("steps"))
        self._layers = [
            (layer, layer.momentum, min(layer.momentum, highest))
            for layer in batchnorm_layers(trainer.model)
        ]
        lowered = [own for _, own, momentum in self._layers if own > momentum]
        if lowered and self.params.get("verbose"):
            print(
                f"BatchNorm: momentum {highest:.3g} instead of "
                f"{max(lowered):.3g}, because an epoch has few steps. (Set it "
                "yourself with `batchnorm_momentum`.)",
                flush=True,
            )
        before, trainer._short_epochs = trainer._short_epochs, self
        if before.momenta != self.momenta if before else lowered:
            # The step may have been compiled with another momentum.
            trainer.make_train_function(force=True)

    @property
    def momenta(self) -> list[float]:
        """Momentum of each layer during a step."""
        return [momentum for *_, momentum in self._layers]

    @contextlib.contextmanager
    def in_step(self):
        """Returns a context in which the layers have the lower momentum."""
        lowered = [
            (layer, own, momentum)
            for layer, own, momentum in self._layers
            # Leaves out layers whose momentum was changed by hand since.
            if layer.momentum in (own, momentum)
        ]
        try:
            for layer, _, momentum in lowered:
                layer.momentum = momentum
            yield
        finally:
            # Their own momentum, not the one found above: several replicas
            # may be in a step at the same time.
            for layer, own, _ in lowered:
                layer.momentum = own


def reestimate_batchnorm(trainer, data) -> None:
    """Computes BatchNorm's statistics again, with the final weights.

    Call it after `fit`, with the training data, if the network has BatchNorm
    and the training was short. Moving averages cover the last steps, in which
    the weights still changed. This function uses the final weights: it attacks
    every batch of `data` as in training, at the current epsilon, and stores
    the mean and the variance over all batches.

    Frozen layers keep their statistics. A network without BatchNorm is not
    changed. If you train in several processes, save the network and call this
    function in one process, because each process would otherwise see only its
    own images.

    Reference:
    - [Wu and Johnson, 2021](https://arxiv.org/abs/2105.07576), precise
      statistics

    Args:
        trainer: `AdversarialTrainer`.
        data: Batches `(images, labels, ...)`, as `fit` takes them. The number
            of batches must be finite. All batches have the same weight, so
            they should have about the same size.

    Raises:
        ValueError: If `trainer` is not an `AdversarialTrainer`, or if there
            is no batch or an invalid one.

    Example:
    ```python
    trainer.fit(data.train, epochs=12, callbacks=[scheduler])
    keras_epsched.training.reestimate_batchnorm(trainer, data.train)
    ```
    """
    if not hasattr(trainer, "adversarial_view"):
        raise ValueError(
            "`trainer` must be an `AdversarialTrainer`, because its attack "
            f"changes the images. Received: {type(trainer).__name__}"
        )
    layers = [
        layer for layer in batchnorm_layers(trainer.model) if layer.trainable
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    before = [[ops.copy(each) for each in _moving(layer)] for layer in layers]
    statistics = []

    def see(images, labels, seed):
        trainer(trainer.adversarial_view(images, labels, seed), training=True)

    try:
        for layer in layers:
            # The layer then holds the statistics of the last batch.
            layer.momentum = 0.0
        # Compiled with this momentum.
        run = trainer._compiled_statistics.of(trainer, see)
        for index, batch in enumerate(batches.until_end(data)):
            images, labels = batch
            checks.check_images(images, trainer.value_range)
            images = checks.static_images(images)
            given, labels = labels, trainer.class_labels(labels, images)
            checks.check_labels(given, trainer.num_classes)
            seed = ops.convert_to_tensor([0, index], backend.HASH_DTYPE)
            run(images, labels, seed)
            statistics.append(
                [
                    [ops.convert_to_numpy(each) for each in _moving(layer)]
                    for layer in layers
                ]
            )
    except BaseException:
        # Without all batches there is no estimate: restores the old values.
        for layer, values in zip(layers, before, strict=True):
            for variable, value in zip(_moving(layer), values, strict=True):
                variable.assign(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if not statistics:
        raise ValueError(
            "`data` must contain at least one batch. Received: no batch"
        )
    per_layer = zip(*statistics, strict=True)
    for layer, of_batches in zip(layers, per_layer, strict=True):
        means, variances = (
            np.stack(each) for each in zip(*of_batches, strict=True)
        )
        layer.moving_mean.assign(means.mean(axis=0))
        # The total variance: within the batches plus between them.
        layer.moving_variance.assign(variances.mean(axis=0) + means.var(axis=0))


def _moving(layer):
    return layer.moving_mean, layer.moving_variance
