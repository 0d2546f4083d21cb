"""Statistics of BatchNorm: which layers have them, and how fast they move."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_epsched import backend, batches, checks

# At the end of an epoch no more than this share of the moving statistics may
# come from before it.
_OLD_SHARE = 0.2
# For epochs of unknown length: 22 steps renew the statistics to that share.
_UNKNOWN = 0.9


def batchnorm_layers(model: keras.Model) -> list:
    """Returns all the BatchNormalization layers below `model`."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def adapts(model: keras.Model) -> bool:
    """Whether a model has BatchNorm layers whose statistics move."""
    return any(layer.trainable for layer in batchnorm_layers(model))


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


def highest_momentum(steps: int | None) -> float:
    """Highest momentum with which statistics keep up with the weights.

    Args:
        steps: Int or `None`. Steps of an epoch, where they are known.
    """
    return _OLD_SHARE ** (1 / steps) if steps else _UNKNOWN


class ShortEpochMomentum(keras.callbacks.Callback):
    """Lowers the momentum of BatchNorm in the steps of short epochs.

    Moving statistics of momentum 0.99 are those of the last hundred steps: in
    an epoch of 18 steps, of weights that have long changed. The network that
    is validated and saved is then not the one that was trained. With the
    momentum that this sets, at the end of each epoch at most a fifth of the
    statistics is older than the epoch. Layers of a lower momentum, and all of
    them in epochs of 161 steps or more, stay as they are. What is saved has
    the layers' own momentum.
    """

    def __init__(self):
        super().__init__()
        # Layers, their own momentum, and that of a step.
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
                f"BatchNorm: momentum {highest:.3g} in place of "
                f"{max(lowered):.3g}, since epochs are short",
                flush=True,
            )
        before, trainer._short_epochs = trainer._short_epochs, self
        if before.momenta != self.momenta if before else lowered:
            # The step may be compiled for what was before.
            trainer.make_train_function(force=True)

    @property
    def momenta(self) -> list[float]:
        """Momentum of each layer in a step."""
        return [momentum for *_, momentum in self._layers]

    @contextlib.contextmanager
    def in_step(self):
        """Layers have the lower momentum within, their own one behind."""
        lowered = [
            (layer, own, momentum)
            for layer, own, momentum in self._layers
            # Another one was set since, by hand.
            if layer.momentum in (own, momentum)
        ]
        try:
            for layer, _, momentum in lowered:
                layer.momentum = momentum
            yield
        finally:
            # As it was before the training: replicas are in a step together.
            for layer, own, _ in lowered:
                layer.momentum = own


def reestimate_batchnorm(trainer, data) -> None:
    """Replaces BatchNorm's moving statistics by those of all the batches.

    Moving averages remember the last hundred steps or so, of weights that were
    changing meanwhile. This takes the final weights, attacks every batch of
    `data` as training does at the current epsilon, and stores mean and
    variance over all of them. Call it after `fit`, with the training data.
    Layers that are frozen keep their statistics, and a network without
    BatchNorm is left as it is. In several processes each would take its own
    images: save the network, and do it in one.

    Reference:
    - [Wu and Johnson, 2021](https://arxiv.org/abs/2105.07576), precise
      statistics

    Args:
        trainer: `AdversarialTrainer`.
        data: Batches `(images, labels, ...)`, as `fit` takes them. They must
            end, and be of about one size: each counts the same.

    Raises:
        ValueError: If there is no batch, or one that is not fit for it.

    Example:
    ```python
    trainer.fit(data.train, epochs=12, callbacks=[scheduler])
    keras_epsched.training.reestimate_batchnorm(trainer, data.train)
    ```
    """
    if not hasattr(trainer, "adversarial_view"):
        raise ValueError(
            "expected an `AdversarialTrainer`, whose attack the images are "
            f"under. Received: {type(trainer).__name__}"
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
            # The layer then holds what it has seen last.
            layer.momentum = 0.0
        # Compiled for this momentum.
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
        # Those of the last batch are no estimate.
        for layer, values in zip(layers, before, strict=True):
            for variable, value in zip(_moving(layer), values, strict=True):
                variable.assign(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if not statistics:
        raise ValueError("expected data to estimate from. Received: no batch")
    per_layer = zip(*statistics, strict=True)
    for layer, of_batches in zip(layers, per_layer, strict=True):
        means, variances = (
            np.stack(each) for each in zip(*of_batches, strict=True)
        )
        layer.moving_mean.assign(means.mean(axis=0))
        # Of all the images: within the batches, and between them.
        layer.moving_variance.assign(variances.mean(axis=0) + means.var(axis=0))


def _moving(layer):
    return layer.moving_mean, layer.moving_variance
