"""The base class of callbacks for `AdversarialTrainer.fit`."""

import keras

from keras_epsched.training.trainer import AdversarialTrainer


class TrainerCallback(keras.callbacks.Callback):
    """Base class of callbacks that need an `AdversarialTrainer`.

    Derive from it to write a callback that reads or changes the trainer. It
    refuses other models when training begins.

    The trainer's `fit` reads `fit_order` and `drives_epsilon` and calls
    `before_fit`. `ExactBackup` calls `get_state` and `set_state`. A callback
    that lacks one of these, such as a callback of Keras, gets the default of
    this class.

    Attributes:
        fit_order: Int. Callbacks with a lower number are called first.
            Callbacks with the same number are called in the order of the list
            given to `fit`.
        drives_epsilon: Boolean. Whether the callback sets epsilon. If no
            callback does and epsilon is 0, `fit` warns that the training has
            no attack.

    Raises:
        ValueError: When training begins, if the model is not an
            `AdversarialTrainer`.

    Example:
    ```python
    class WeightNorm(keras_epsched.callbacks.TrainerCallback):
        def on_epoch_end(self, epoch, logs=None):
            norms = [
                keras.ops.norm(each)
                for each in self.model.model.trainable_weights
            ]
            logs["weight_norm"] = float(sum(norms))
    ```
    """

    fit_order = 0
    drives_epsilon = False

    def before_fit(self, data, seek, shuffle: bool, callbacks: list) -> None:
        """Called by the trainer's `fit` before the training begins.

        Args:
            data: The training data.
            seek: Function `(epoch, batch=0)` that sets the next batch of the
                data. `None` if the data cannot do that.
            shuffle: Boolean. The argument `shuffle` of `fit`.
            callbacks: All callbacks of this call of `fit`, in their order.
        """

    def on_train_begin(self, logs=None):
        if not isinstance(self.model, AdversarialTrainer):
            raise ValueError(
                f"`{type(self).__name__}` needs a "
                "`keras_epsched.AdversarialTrainer`. Make one with `trainer = "
                "AdversarialTrainer(model)`, then compile and fit `trainer`. "
                f"Received: a model of type {type(self.model).__name__}"
            )
        super().on_train_begin(logs)

    def get_state(self) -> dict:
        """Returns the state that a resumed training needs.

        Returns:
            A `dict` of JSON values or lists of arrays.
        """
        return {}

    def set_state(self, state: dict) -> None:
        """Restores the state that `get_state` returned.

        Args:
            state: The `dict`, possibly read from a file.
        """
