"""AutoLoRa: clean images train a separate low-rank branch."""

import math

import keras
from keras import ops

from keras_epsched.configurable import register
from keras_epsched.training.objectives import base


@register
class AutoLoRa(base.BothViews):
    """Trains a low-rank branch on clean and the backbone on adversarial images.

    Use it to fine-tune a network that is robust already. On networks that are
    not robust, it failed in arXiv 2509.23325.

    Clean images pass through kernels `W + A B`, where `A B` has a low rank.
    They train only `A`, `B` and the head. Adversarial images pass through `W`
    and train the network. The loss is

    `l * loss(clean) + (1 - l) * loss(adversarial)
    + beta * (1 - l) * KL(p(clean) || p(adversarial))`

    where `1 - l` is the clean accuracy of the branch on the training images in
    the epoch before. So the network learns the task first, then robustness. In
    the first epoch, `l` is 1, and the adversarial images train nothing. The
    branch belongs to the trainer, and is never part of `trainer.model`.

    Both views pass through the network in training mode, the clean ones
    first. BatchNorm averages the statistics of both. A step costs one more
    forward and backward pass than with `"adversarial"`.

    Differences from the paper:

    - The accuracy is measured in the training steps of an epoch and logged as
      `natural_accuracy`. It is 0 before the first epoch. The paper makes an
      extra pass over the training images before each epoch.
    - Every kernel has a branch, not only those of convolutions. The rank is
      exactly `rank`, and `A` is initialised by He's rule.
    - The paper's control of the learning rate is left out. Use
      `keras.callbacks.ReduceLROnPlateau`.
    - `l` changes only in `fit`. With `train_on_batch`, the backbone would never
      learn.

    Reference: Xu et al., ICLR 2024 (arXiv 2310.01818), with a rank of 8 and a
    `beta` of 6.

    Args:
        beta: Float. Largest weight of the divergence.
        rank: Int. Rank of the branch. A kernel gets a branch only if its own
            rank can be larger.

    Raises:
        ValueError: When the trainer is made, if no kernel can have a branch:
            all kernels except the head's are frozen or too small.

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier, objective=keras_epsched.training.AutoLoRa(rank=8)
    )
    ```
    """

    def __init__(self, beta=6.0, rank=8):
        if rank < 1:
            raise ValueError(
                f"`rank` must be at least 1. Received: rank={rank}"
            )
        self.beta = base.checked_beta(beta)
        self.rank = int(rank)
        # Pairs of a variable and its two factors, or no factors.
        self._branches = []

    def get_config(self):
        return {"beta": self.beta, "rank": self.rank}

    def prepare(self, trainer):
        base.check_ready(self, trainer, self._branches)
        from keras_epsched.models import parts

        # All variables except the head, which both views train.
        head = parts.head_variables(trainer.model)
        kept = {id(each) for each in head}
        variables = [
            each
            for each in trainer.model.trainable_variables
            if id(each) not in kept
        ]
        sizes = [_matrix(each.shape) for each in variables]
        if not any(min(size) > self.rank for size in sizes):
            raise ValueError(
                "AutoLoRa needs at least one trained kernel outside the head "
                f"that is larger than `rank={self.rank}` in both dimensions. "
                "Pass a smaller `rank`, or train more weights (`adapt(net, "
                f'"full")`). Received: {trainer.model.name!r}, with '
                f"{len(variables)} trained variables outside the head"
            )
        for index, (variable, size) in enumerate(
            zip(variables, sizes, strict=True)
        ):
            factors = ()
            if min(size) > self.rank:
                factors = tuple(
                    trainer.add_weight(
                        shape=shape,
                        initializer=initializer,
                        dtype="float32",
                        trainable=True,
                        autocast=False,
                        name=f"autolora_{name}_{index}",
                    )
                    for name, shape, initializer in (
                        # `b` starts at zero, so the branch starts as the
                        # network itself.
                        (
                            "a",
                            (size[0], self.rank),
                            keras.initializers.HeUniform(
                                None
                                if trainer.seed is None
                                else 1000 * trainer.seed + index
                            ),
                        ),
                        ("b", (self.rank, size[1]), "zeros"),
                    )
                )
            self._branches.append((variable, factors))
        self._share = trainer.add_state("natural_share", 0.0)
        self._accuracy = trainer.add_training_metric("natural_accuracy")

    def trained(self) -> list:
        """Returns the factors of the branch."""
        return [each for _, factors in self._branches for each in factors]

    def callbacks(self):
        return [_Shares(self)]

    def logits(self, name, network, view, training):
        if name == "adversarial":
            return network(view, training)
        return network(view, training, [*map(_branched, self._branches)])

    def compute_loss(self, compiled_loss, y, y_pred, sample_weight):
        clean, moved = y_pred["clean"], y_pred["adversarial"]
        share = ops.convert_to_tensor(self._share)
        divergence = base.Mean(base.kl_divergence, name="divergence")
        return (
            (1.0 - share) * compiled_loss(y, clean, sample_weight)
            + share * compiled_loss(y, moved, sample_weight)
            + self.beta * share * divergence(clean, moved, sample_weight)
        )

    def update_metrics(self, y, y_pred):
        from keras_epsched import checks

        clean = y_pred["clean"]
        labels = checks.class_labels(y, clean.shape[-1])
        hits = ops.cast(ops.argmax(clean, axis=-1), "int32") == labels
        self._accuracy.update_state(ops.cast(hits, "float32"))


class _Shares(keras.callbacks.Callback):
    """Sets the share `1 - l` of the next epoch to this epoch's accuracy."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def on_epoch_end(self, epoch, logs=None):
        self.objective._share.assign(logs["natural_accuracy"])


def _matrix(shape):
    """Returns rows and columns of a kernel as the squarest matrix."""
    sizes = [
        (math.prod(shape[:axis]), math.prod(shape[axis:]))
        for axis in range(1, len(shape))
    ]
    return min(sizes, key=lambda size: abs(size[0] - size[1]), default=(1, 1))


def _branched(branch):
    variable, factors = branch
    # The clean view trains only the branch, not the network.
    value = ops.stop_gradient(variable.value)
    if factors:
        a, b = factors
        change = ops.reshape(ops.matmul(a, b), variable.shape)
        value = value + ops.cast(change, value.dtype)
    return variable, value
