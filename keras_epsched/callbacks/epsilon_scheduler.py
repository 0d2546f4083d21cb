"""The callback that drives epsilon."""

import warnings

import numpy as np

from keras_epsched import schedules
from keras_epsched.callbacks.base import TrainerCallback
from keras_epsched.epsilons import check_epsilon, format_epsilon


class EpsilonScheduler(TrainerCallback):
    """Sets the epsilon of an `AdversarialTrainer` by a schedule.

    The only driver of epsilon. The progress that the schedule sees follows
    from what Keras passes in alone, `epoch / epochs` with 0-based epochs, or
    `(epoch + batch / steps) / epochs`: a training that starts at an
    `initial_epoch`, or is resumed, sees the same epsilons. The value goes
    into the logs as `epsilon`, and so into `History`, `CSVLogger` and
    TensorBoard.

    With `update_freq="batch"` and `steps_per_execution=N`, epsilon is set
    once for the N steps that are executed together, to the value of the
    first.

    Reference: arXiv 2509.23325 (whose schedule is updated once an epoch).

    Args:
        schedule: `EpsilonSchedule`.
        update_freq: `"epoch"` or `"batch"`.
        verbose: Int. 1 prints epsilon at the start of every epoch.

    Raises:
        ValueError: When training begins, if the model is not an
            `AdversarialTrainer`, if the target is no epsilon for the norm of
            its attack, or, with `update_freq="batch"`, if the number of steps
            is unknown.

    Example:
    ```python
    schedule = keras_epsched.schedules.TwoHinge(4 / 255)
    trainer.fit(
        dataset,
        epochs=50,
        callbacks=[keras_epsched.callbacks.EpsilonScheduler(schedule)],
    )
    ```
    """

    # The others find epsilon in the logs.
    fit_order = -1
    drives_epsilon = True

    def __init__(self, schedule, update_freq="epoch", verbose=0):
        super().__init__()
        if update_freq not in ("epoch", "batch"):
            raise ValueError(
                '`update_freq` must be "epoch" or "batch". Received: '
                f"update_freq={update_freq!r}"
            )
        self.schedule = schedules.get(schedule)
        self.update_freq = update_freq
        self.verbose = verbose
        self._epoch = 0

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        # The whole schedule, for a peak may lie before the target.
        progress = np.linspace(0.0, 1.0, 1001)
        for epsilon in (
            self.schedule.target_epsilon,
            float(np.max(self.schedule(progress))),
        ):
            check_epsilon(epsilon, self.model.attack.norm, "target_epsilon")
        if self.update_freq == "batch" and not self.params.get("steps"):
            raise ValueError(
                '`update_freq="batch"` needs the number of steps of an epoch, '
                "which this dataset does not tell: pass `steps_per_epoch` to "
                "`fit` (with a repeated dataset), set it by "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))`, "
                'or use update_freq="epoch".'
            )
        self.model.target_epsilon = self.schedule.target_epsilon

    def _set(self, position):
        progress = min(position / self.params["epochs"], 1.0)
        self.model.epsilon = self.schedule(progress)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._set(epoch)
        if self.verbose:
            epsilon = format_epsilon(self.model.epsilon, self.model.attack.norm)
            print(f"\nEpoch {epoch + 1}: epsilon is {epsilon}.")

    def on_train_batch_begin(self, batch, logs=None):
        if self.update_freq == "batch":
            self._set(self._epoch + batch / self.params["steps"])

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["epsilon"] = self.model.epsilon


def monitored(name, epoch, logs, otherwise):
    """The accuracy that a schedule which adapts goes by.

    Args:
        name: String. What it is called in the logs.
        epoch: Int. The epoch that ends.
        logs: Its logs.
        otherwise: String. What happens where the logs do not have it.

    Returns:
        A float, or `None`, with a warning after the first epoch.
    """
    value = (logs or {}).get(name)
    if value is not None:
        return float(value)
    if epoch == 0:
        warnings.warn(
            f"there is no {name!r} in the logs: {otherwise}, whatever the "
            "accuracy. Pass `validation_data` to `fit`, and "
            'metrics=["accuracy"] to `compile`.',
            stacklevel=3,
        )
    return None
