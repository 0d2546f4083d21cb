"""Cross-entropy with label smoothing, also for integer labels."""

import keras
from keras import ops

from keras_epsched import checks
from keras_epsched.configurable import register


@register
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy from logits with label smoothing.

    Use it as the compiled loss. It works with every objective, because each
    uses the compiled loss for its classification terms. It takes integer or
    one-hot labels; Keras' own label smoothing needs one-hot labels.

    Reference: Szegedy et al., CVPR 2016 (arXiv 1512.00567); in adversarial
    training Pang et al., ICLR 2021 (arXiv 2010.00467).

    Args:
        label_smoothing: Float in [0, 1). The share of each label that is
            spread evenly over all classes.
        name: String. Name of the loss.
        **kwargs: Other arguments of `keras.losses.Loss`.

    Raises:
        ValueError: If `label_smoothing` is not in [0, 1).

    Example:
    ```python
    trainer.compile(
        optimizer=keras.optimizers.AdamW(1e-4),
        loss=keras_epsched.training.SmoothedCrossentropy(0.1),
        metrics=["accuracy"],
    )
    ```
    """

    def __init__(
        self, label_smoothing=0.1, name="smoothed_crossentropy", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` must be at least 0 and below 1. Received: "
                f"label_smoothing={label_smoothing!r}"
            )
        self.label_smoothing = float(label_smoothing)

    def call(self, y_true, y_pred):
        """Returns the loss of each image.

        Args:
            y_true: Integer labels `(batch,)`, or one-hot labels
                `(batch, num_classes)`.
            y_pred: Logits `(batch, num_classes)`.
        """
        logs = ops.log_softmax(ops.cast(y_pred, "float32"))
        labels = checks.class_labels(y_true, logs.shape[-1])
        right = ops.take_along_axis(logs, labels[:, None], axis=-1)[:, 0]
        share = self.label_smoothing
        return -(1.0 - share) * right - share * ops.mean(logs, axis=-1)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
