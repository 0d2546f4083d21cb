"""AutoLoRa: the natural objective has a low-rank branch of its own."""

import math

import keras
from keras import ops

from keras_epsched.configurable import register
from keras_epsched.training.objectives import base


@register
class AutoLoRa(base.BothViews):
    """Learns clean images by a low-rank branch, adversarial by the backbone.

    Clean images pass through kernels `W + A B`, with `A B` of a low rank, and
    train `A`, `B` and the head alone; adversarial images pass through `W` and
    train the network. The loss is

    `l * loss(clean) + (1 - l) * loss(adversarial)
    + beta * (1 - l) * KL(p(clean) || p(adversarial))`

    where `1 - l` is the natural accuracy of the branch on the training images
    of the epoch before: what is learnt first is the task, then robustness. In
    the first epoch `l` is 1, and the adversarial images train nothing. The
    branch belongs to the trainer: `trainer.model` never has it.

    What is different here: the accuracy is that of the steps of an epoch,
    `natural_accuracy` in the logs, and 0 before the first; the paper takes
    another pass over the training images before each. Every kernel has a
    branch, not convolutions alone, of `rank` itself, and `A` is drawn by
    He's rule. The paper's own control of the learning rate is left out:
    `keras.callbacks` has `ReduceLROnPlateau`. The shares change in `fit`
    only: by `train_on_batch` alone the backbone would never learn. On
    non-robust networks it failed in arXiv 2509.23325.

    Both views pass through the network in training mode, the clean ones
    first; BatchNorm averages the statistics of both. A step costs one more
    forward and backward pass than `"adversarial"`.

    Reference: Xu et al., ICLR 2024 (arXiv 2310.01818), with a rank of 8 and a
    `beta` of 6.

    Args:
        beta: Float. Largest weight of the divergence.
        rank: Int. Rank of the branch. Kernels that are not larger have none.

    Raises:
        ValueError: When the trainer is made, if no kernel but the head's is
            trained, or all are too small.

    Example:
    ```python
    trainer = keras_epsched.AdversarialTrainer(
        classifier, objective=keras_epsched.training.AutoLoRa(rank=8)
    )
    ```
    """

    def __init__(self, beta=6.0, rank=8):
        if rank < 1:
            raise ValueError(f"`rank` must be 1 or more. Received: rank={rank}")
        self.beta = base.checked_beta(beta)
        self.rank = int(rank)
        # Of variables: what the branch reads, and its two factors where it
        # has some.
        self._branches = []

    def get_config(self):
        return {"beta": self.beta, "rank": self.rank}

    def prepare(self, trainer):
        base.check_ready(self, trainer, self._branches)
        from keras_epsched.models import parts

        # All but the head, which both views train.
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
                f"AutoLoRa needs kernels of a rank above {self.rank} that are "
                "trained, besides the head. Received: "
                f"{trainer.model.name!r}, with {len(variables)} trained "
                "variables besides the head, none of them such a kernel"
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
                        # Zero at first: the branch is the network then.
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
        """The factors of the branch."""
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
    """Sets the shares of the next epoch by the accuracy of this one."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def on_epoch_end(self, epoch, logs=None):
        self.objective._share.assign(logs["natural_accuracy"])


def _matrix(shape):
    """Rows and columns of a kernel as a matrix, as square as can be."""
    sizes = [
        (math.prod(shape[:axis]), math.prod(shape[axis:]))
        for axis in range(1, len(shape))
    ]
    return min(sizes, key=lambda size: abs(size[0] - size[1]), default=(1, 1))


def _branched(branch):
    variable, factors = branch
    # The clean view trains the branch, not the network.
    value = ops.stop_gradient(variable.value)
    if factors:
        a, b = factors
        change = ops.reshape(ops.matmul(a, b), variable.shape)
        value = value + ops.cast(change, value.dtype)
    return variable, value
