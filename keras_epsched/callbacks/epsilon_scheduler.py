"""The callback that sets epsilon during training."""

import warnings

import numpy as np

from keras_epsched import schedules
from keras_epsched.callbacks.base import TrainerCallback
from keras_epsched.epsilons import check_epsilon, format_epsilon


class EpsilonScheduler(TrainerCallback):
    """Sets the epsilon of an `AdversarialTrainer` from a schedule.

    Add it to the callbacks of `fit` in every adversarial training. Without it
    (or another scheduler of this package), epsilon stays what you set as
    `trainer.epsilon`, 0 by default.

    The progress of the training is `epoch / epochs` with epochs counted from
    0, or `(epoch + batch / steps) / epochs` with `update_freq="batch"`. It
    depends only on the current epoch and batch, so a resumed training, or one
    that starts at an `initial_epoch`, gets the same epsilons. The logs get
    the value as `epsilon`, which also appears in `History`, `CSVLogger` and
    TensorBoard.

    With `update_freq="batch"` and `steps_per_execution=N`, the N steps that
    are executed together all use the epsilon of the first.

    Reference: arXiv 2509.23325. The paper updates epsilon once per epoch.

    Args:
        schedule: `EpsilonSchedule`, such as `TwoHinge(4 / 255)`.
        update_freq: `"epoch"` or `"batch"`. How often epsilon is set.
        verbose: Int. 1 prints epsilon at the start of every epoch.

    Raises:
        ValueError: If `update_freq` or `schedule` is invalid. When training
            begins: if the model is not an `AdversarialTrainer`, if the target
            is not a valid epsilon for the norm of its attack, or if
            `update_freq="batch"` and the number of steps is unknown.

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

    # Called before the others, which read epsilon from the logs.
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
        # Checks the whole schedule, because it may exceed its target before
        # the end.
        progress = np.linspace(0.0, 1.0, 1001)
        for epsilon in (
            self.schedule.target_epsilon,
            float(np.max(self.schedule(progress))),
        ):
            check_epsilon(epsilon, self.model.attack.norm, "target_epsilon")
        if self.update_freq == "batch" and not self.params.get("steps"):
            raise ValueError(
                '`update_freq="batch"` needs the number of steps of an epoch, '
                "which is unknown for this dataset. Pass `steps_per_epoch` to "
                "`fit` (with a repeated dataset), set the number with "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))`, "
                'or use update_freq="epoch".'
            )
        self.model.target_epsilon = self.schedule.target_epsilon
        self._warn_of_a_last_epoch_above_the_target()

    def _warn_of_a_last_epoch_above_the_target(self):
        epochs = self.params["epochs"]
        last = self.schedule((epochs - 1) / epochs)
        target = self.model.target_epsilon
        if self.update_freq == "epoch" and last > target * (1 + 1e-6) > 0:
            warnings.warn(
                f"the last of {epochs} epochs trains at {last / target:.2f} "
                "times the target epsilon, because epsilon is set once an "
                'epoch. Pass `update_freq="batch"`, or train for more epochs.',
                stacklevel=2,
            )

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
    """Returns the accuracy that an adaptive schedule reads from the logs.

    Args:
        name: String. Name of the accuracy in the logs.
        epoch: Int. The epoch that ends.
        logs: The logs of that epoch.
        otherwise: String. What the schedule does without the accuracy, for
            the warning.

    Returns:
        A float; or `None` if the logs lack it, with a warning after the first
        epoch.
    """
    value = (logs or {}).get(name)
    if value is not None:
        return float(value)
    if epoch == 0:
        warnings.warn(
            f"The logs have no {name!r}, which this schedule needs to adapt. "
            f"So {otherwise}, whatever the accuracy is. To let it adapt, pass "
            '`validation_data` to `fit` and metrics=["accuracy"] to `compile`.',
            stacklevel=3,
        )
    return None
