"""What the callbacks of `AdversarialTrainer.fit` have in common."""

import keras

from keras_epsched.training.trainer import AdversarialTrainer


class TrainerCallback(keras.callbacks.Callback):
    """Base class of callbacks that need an `AdversarialTrainer`.

    The trainer's `fit` asks a callback for `fit_order`, `drives_epsilon` and
    `before_fit`, and `ExactBackup` for its state. Callbacks that have none of
    these, as those of Keras, are treated as this class says.

    Attributes:
        fit_order: Int. Callbacks with a lower number are called first; where
            it is the same, in the order in which they are given.
        drives_epsilon: Boolean. Whether the callback sets epsilon, without
            which `fit` warns that a training at epsilon 0 has no attack.

    Raises:
        ValueError: When training begins, if the model is not an
            `AdversarialTrainer`.
    """

    fit_order = 0
    drives_epsilon = False

    def before_fit(self, data, seek, shuffle: bool, callbacks: list) -> None:
        """Called by `fit` of the trainer before anything else is.

        Args:
            data: What the trainer is fitted to.
            seek: Function `(epoch, batch=0)` that says to the data which
                batch comes next; `None` where they cannot be told.
            shuffle: Boolean. The argument of `fit`.
            callbacks: All the callbacks of this call of `fit`, in order.
        """

    def on_train_begin(self, logs=None):
        if not isinstance(self.model, AdversarialTrainer):
            raise ValueError(
                f"`{type(self).__name__}` needs a "
                "`keras_epsched.AdversarialTrainer`: wrap the classifier, "
                "`AdversarialTrainer(model)`, and fit that. Received: a "
                f"model of type {type(self.model).__name__}"
            )
        super().on_train_begin(logs)

    def get_state(self) -> dict:
        """Returns what a resumed training must remember.

        Returns:
            A `dict` of values that JSON has, or of lists of arrays.
        """
        return {}

    def set_state(self, state: dict) -> None:
        """Takes what `get_state` returned.

        Args:
            state: The `dict`, as it was, or read from a file.
        """
