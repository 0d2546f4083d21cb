"""The base class of objectives, and functions that several of them use."""

from collections.abc import Callable

import keras
from keras import ops

from keras_epsched.configurable import Configurable, register


class Objective(Configurable):
    """Base class of objectives, which define the loss of a training step.

    Derive from it to write a new objective. An objective that trains on one
    view of the images implements only `views`. The other methods exist for
    these cases:

    - `compute_loss`, `predictions`: `views` may return a `dict` of views. The
      network is then called on each of them. The loss gets a `dict` of
      outputs, and `predictions` chooses the output for the metrics.
    - `attack_loss`, `check_attack`: TRADES attacks the divergence of two
      outputs instead of the loss of the label, so its attack cannot start at
      the clean image.
    - `logits`: a view may pass through the network with other values of its
      variables. TWINS uses the statistics of the pretraining, AutoLoRa the
      kernels of its branch.
    - `attacked_logits`: TWINS attacks each half of a batch in the view that
      trains on it, both halves in one pass.
    - `prepare`: TWINS and AutoLoRa create variables here. The trainer trains
      and saves them.
    - `update_metrics`, `callbacks`: AutoLoRa measures an accuracy in the steps
      of an epoch, and weights the losses of the next epoch with it.

    Two attributes describe the cost of a step. Set them if it differs from
    that of `AdversarialObjective`.

    Attributes:
        num_views: Int. Number of views of each image that pass through the
            network.
        attack_loss_passes: Int. Number of forward passes of each image in
            `attack_loss`.

    Example:
    ```python
    @keras.saving.register_keras_serializable("my_package")
    class Halves(keras_epsched.training.Objective):
        num_views = 2

        def views(self, clean, adversarial):
            return {"clean": clean, "adversarial": adversarial}

        def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
            clean = compiled_loss(y, y_pred["clean"], sample_weight)
            moved = compiled_loss(y, y_pred["adversarial"], sample_weight)
            return 0.5 * clean + 0.5 * moved

        def predictions(self, y_pred):
            return y_pred["adversarial"]
    ```
    """

    num_views = 1
    attack_loss_passes = 0

    def prepare(self, trainer) -> None:
        """Called once, when a trainer is made with this objective.

        Override it to create weights with `trainer.add_state`, or metrics with
        `trainer.add_training_metric`.
        """

    def callbacks(self) -> list:
        """Returns callbacks that `fit` adds for this objective."""
        return []

    def views(self, clean, adversarial):
        """Returns the input of the network in a training step.

        Args:
            clean: Tensor of clean images.
            adversarial: Tensor of their adversarial images.

        Returns:
            One tensor, or a `dict` of tensors.
        """
        raise NotImplementedError

    def logits(self, name: str, network: Callable, view, training: bool):
        """Returns the logits of one view.

        Args:
            name: String. Name of the view in the `dict` that `views` returns.
            network: Function `(images, training, values=())` that returns
                logits. `values` are pairs of a variable of the network and the
                tensor to use as its value in this pass.
            view: The view with this name.
            training: Boolean. The mode of the pass.
        """
        return network(view, training)

    def attacked_logits(self, network: Callable, images):
        """Returns the logits that the training attack uses.

        Args:
            network: Function from images, or from a `dict` of views, to
                logits, in the attack's mode.
            images: Tensor of images during the attack.
        """
        return network(images)

    def check_attack(self, attack) -> None:
        """Raises a `ValueError` if this objective cannot use the attack."""

    def attack_loss(self, logits_fn: Callable, clean):
        """Returns the loss that the attack maximises.

        Args:
            logits_fn: Function from images to logits, in the attack's mode.
            clean: Tensor of clean images.

        Returns:
            A function `(labels, logits)` that returns a loss of shape
            `(batch,)`; or `None` to use the attack's own loss.
        """
        return None

    def compute_loss(self, compiled_loss: Callable, y, y_pred, sample_weight):
        """Returns the scalar loss of a training step.

        Args:
            compiled_loss: Function `(y, y_pred, sample_weight)` that returns
                a scalar: the loss given to `compile` plus the model's own
                losses (regularisers). Each call adds the regularisers, so the
                weights of several calls should sum to 1.
            y: Labels, as in the data.
            y_pred: Output of the network for `views`.
            sample_weight: Weights of the images, or `None`.
        """
        return compiled_loss(y, y_pred, sample_weight)

    def update_metrics(self, y, y_pred) -> None:
        """Updates the metrics that `prepare` created."""

    def predictions(self, y_pred):
        """Returns the outputs for the compiled metrics."""
        return y_pred

    def get_config(self):
        return {}


@register
class AdversarialObjective(Objective):
    """The compiled loss on adversarial images only (adversarial training).

    This is the default. The Epsilon-Scheduling paper uses it in all
    experiments.

    Reference: Madry et al., ICLR 2018 (arXiv 1706.06083).

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier, objective="adversarial"
    )
    ```
    """

    def views(self, clean, adversarial):
        return adversarial


class BothViews(Objective):
    """Base class of objectives with clean and adversarial images.

    Both pass through the network in training mode, the clean ones first.
    BatchNorm normalises each view with its own statistics, and averages both
    into its moving statistics. A step costs one more forward and backward pass
    than with `"adversarial"`, also at epsilon 0. The training metrics are
    those of the adversarial images.
    """

    num_views = 2

    def views(self, clean, adversarial):
        return {"clean": clean, "adversarial": adversarial}

    def predictions(self, y_pred):
        return y_pred["adversarial"]


def kl_divergence(logits, other_logits):
    """Returns the Kullback-Leibler divergence of two softmax distributions.

    It takes logits. `keras.losses.kl_divergence` takes probabilities and clips
    them.

    Args:
        logits: Tensor `(batch, num_classes)`. The first distribution.
        other_logits: Tensor of the same shape. The second distribution.

    Returns:
        A float32 tensor of shape `(batch,)`.
    """
    logs = ops.log_softmax(ops.cast(logits, "float32"))
    other_logs = ops.log_softmax(ops.cast(other_logits, "float32"))
    return ops.sum(ops.exp(logs) * (logs - other_logs), axis=-1)


class Mean(keras.losses.Loss):
    """A mean over the batch with Keras' sample weights and replica scaling."""

    def __init__(self, function, name):
        super().__init__(name=name)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def checked_beta(beta) -> float:
    """Returns `beta` as a float; raises a `ValueError` if it is negative."""
    if not beta >= 0:
        raise ValueError(f"`beta` must be at least 0. Received: beta={beta!r}")
    return float(beta)


def check_ready(objective, trainer, made) -> None:
    """Raises a `ValueError` if an objective cannot make weights now.

    Args:
        objective: `Objective` that makes weights.
        trainer: The trainer that is made with the objective.
        made: Weights that the objective has made for another trainer.
    """
    if not trainer.model.built:
        raise ValueError(
            f"{objective!r} needs the weights of the network, but the network "
            "is not built yet. Build it first, for example with "
            "`model.build((None, 32, 32, 3))`."
        )
    if made:
        raise ValueError(
            f"{objective!r} belongs to another trainer, which holds its "
            "weights. Make another for each trainer."
        )
