"""What every objective has, and what several of them share."""

from collections.abc import Callable

import keras
from keras import ops

from keras_epsched.configurable import Configurable, register


class Objective(Configurable):
    """Base class of objectives.

    An objective of one view of the images needs `views` alone. The other
    methods are there for these reasons:

    - `compute_loss`, `predictions`: where `views` returns a `dict`, the
      network is called on each of them. The loss receives a `dict` of outputs
      then, and the metrics see one of them.
    - `attack_loss`, `check_attack`: TRADES attacks the divergence of two
      outputs, not the loss of the label, and cannot start at the clean image.
    - `logits`: one of the views passes through the network with other values
      of its variables. For TWINS these are the statistics of the pretraining,
      for AutoLoRa the kernels of its branch.
    - `attacked_logits`: TWINS attacks each half of a batch in the view that
      will be trained on it, both in one pass.
    - `prepare`: TWINS and AutoLoRa make those variables, which belong to the
      trainer: it trains and saves them.
    - `update_metrics`, `callbacks`: AutoLoRa measures an accuracy in the steps
      of an epoch, and weighs the losses of the next epoch by it.

    What a step costs follows from two attributes, which an objective with
    other costs sets:

    Attributes:
        num_views: Int. Views of each image that pass through the network.
        attack_loss_passes: Int. Forward passes of each image in `attack_loss`.
    """

    num_views = 1
    attack_loss_passes = 0

    def prepare(self, trainer) -> None:
        """Called once by the trainer that the objective is given to.

        What needs weights or metrics of its own makes them here, by
        `trainer.add_state` and `trainer.add_training_metric`.
        """

    def callbacks(self) -> list:
        """Callbacks that `fit` must have for this objective."""
        return []

    def views(self, clean, adversarial):
        """Returns what the network is fed in a training step."""
        raise NotImplementedError

    def logits(self, name: str, network: Callable, view, training: bool):
        """Returns what the network says of one view.

        Args:
            name: String. Its name in the `dict` of `views`.
            network: Function `(images, training, values=())` to logits, where
                `values` are pairs of a variable of the network and a tensor
                that stands for it in this pass.
            view: What `views` has under this name.
            training: Boolean. The mode of the pass.
        """
        return network(view, training)

    def attacked_logits(self, network: Callable, images):
        """Returns the logits that the training attack works against.

        Args:
            network: Function from images, or from a `dict` of views, to
                logits, in the attack's mode.
            images: Tensor of images on the attack's way.
        """
        return network(images)

    def check_attack(self, attack) -> None:
        """Raises a `ValueError` if the attack cannot serve the objective."""

    def attack_loss(self, logits_fn: Callable, clean):
        """Returns the loss that the attack maximises.

        Args:
            logits_fn: Function from images to logits, in the attack's mode.
            clean: Tensor of clean images.

        Returns:
            A function `(labels, logits) -> (batch,)`, or `None` for the
            attack's own loss.
        """
        return None

    def compute_loss(self, compiled_loss: Callable, y, y_pred, sample_weight):
        """Returns the scalar loss of a training step.

        Args:
            compiled_loss: Function `(y, y_pred, sample_weight) -> scalar`:
                the loss given to `compile`, with the model's own losses
                (regularisers). These count once a call: where there are two
                calls, let their shares sum to 1.
            y: Labels, as the data has them.
            y_pred: Output of the network for `views`.
            sample_weight: Weights of the images, or `None`.
        """
        return compiled_loss(y, y_pred, sample_weight)

    def update_metrics(self, y, y_pred) -> None:
        """Updates metrics that the objective has made in `prepare`."""

    def predictions(self, y_pred):
        """Returns the outputs that the compiled metrics see."""
        return y_pred

    def get_config(self):
        return {}


@register
class AdversarialObjective(Objective):
    """The compiled loss on adversarial images alone.

    Reference: Madry et al., ICLR 2018 (arXiv 1706.06083). It is what the
    Epsilon-Scheduling paper uses throughout.
    """

    def views(self, clean, adversarial):
        return adversarial


class BothViews(Objective):
    """Sees the clean images and the adversarial ones, in this order.

    Both pass through the network in training mode: BatchNorm normalises each
    view by its own statistics and averages both into its moving ones. A step
    costs one more forward and backward pass than `"adversarial"`, also at
    epsilon 0. The metrics of training see the adversarial images.
    """

    num_views = 2

    def views(self, clean, adversarial):
        return {"clean": clean, "adversarial": adversarial}

    def predictions(self, y_pred):
        return y_pred["adversarial"]


def kl_divergence(logits, other_logits):
    """Kullback-Leibler divergence of softmax distributions, from logits.

    `keras.losses.kl_divergence` takes probabilities and clips them.

    Args:
        logits: Tensor `(batch, num_classes)`: the first distribution.
        other_logits: Tensor like it: the second one.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    logs = ops.log_softmax(ops.cast(logits, "float32"))
    other_logs = ops.log_softmax(ops.cast(other_logits, "float32"))
    return ops.sum(ops.exp(logs) * (logs - other_logs), axis=-1)


class Mean(keras.losses.Loss):
    """A mean with the weights and the scaling over replicas of Keras."""

    def __init__(self, function, name):
        super().__init__(name=name)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def checked_beta(beta) -> float:
    """The weight of a part of a loss, once it is one."""
    if not beta >= 0:
        raise ValueError(f"`beta` must be at least 0. Received: beta={beta!r}")
    return float(beta)


def check_ready(objective, trainer, made) -> None:
    """Refuses what cannot make weights of its own for this trainer.

    Args:
        objective: `Objective`.
        trainer: The trainer that it is given to.
        made: What it has made already, for another.
    """
    if not trainer.model.built:
        raise ValueError(
            f"{objective!r} looks at the weights of the network, which has "
            "none yet: build it first (`model.build((None, 32, 32, 3))`)"
        )
    if made:
        raise ValueError(
            f"{objective!r} belongs to a trainer already, which holds its "
            "weights: make another for each trainer"
        )
