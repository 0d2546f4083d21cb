"""Backs up a training, so that it resumes without any difference."""

import time

import keras
import numpy as np
from keras import ops

from keras_epsched import backend
from keras_epsched.callbacks import callback_states
from keras_epsched.callbacks.backup_files import BackupFiles
from keras_epsched.callbacks.base import TrainerCallback


class ExactBackup(TrainerCallback):
    """Backs up a training, and resumes it exactly after an interruption.

    Use it if a training may be interrupted. To resume, run the same program
    again: `fit` continues after the last step in the backup, also in the
    middle of an epoch. The weights, the history and the epsilons at the end
    are those of a training without interruption. They are equal bit for bit if
    the backend is deterministic (on TensorFlow:
    `tf.config.experimental.enable_op_determinism()`).

    A backup contains the weights, the optimizer, all seeds, epsilon, running
    metrics, the history, and the states of other callbacks. These are the
    callbacks of this package; `EarlyStopping`, `ReduceLROnPlateau`,
    `ModelCheckpoint` and `SwapEMAWeights` of Keras; and any callback with the
    methods `get_state()`, which returns a `dict` of JSON values or lists of
    arrays, and `set_state(state)`.

    The training data must have a method or attribute `seek(epoch, batch)`, and
    the epoch and the index of a batch must determine its contents. The data of
    `keras_epsched.datasets` do. When `fit` resumes in the middle of an epoch,
    it skips the batches before that point without a training step, but calls
    the other callbacks for them.

    The last two backups are kept. Each is written to a temporary file and then
    renamed, and its checksums are verified when it is read. If the last backup
    is corrupt, `fit` warns and resumes from the one before.

    Args:
        folder: Path. The folder of the backups. If it contains backups when
            training begins, the training resumes from the last one.
        every_steps: Int or `None`. Number of steps between two backups within
            an epoch.
        every_minutes: Float or `None`. Minutes between two backups within an
            epoch. There is always a backup at the end of an epoch.

    Raises:
        ValueError: When training begins: if the model is not an
            `AdversarialTrainer`, the data have no `seek`, or the backup
            belongs to another network or optimizer.
        OSError: If a backup cannot be written. The previous ones are kept.

    Example:
    ```python
    trainer.fit(
        data.train,
        epochs=50,
        shuffle=False,  # The data of this package shuffle by themselves.
        callbacks=[scheduler, keras_epsched.callbacks.ExactBackup("backups")],
    )
    ```
    """

    # Called after the others, so that it saves their new states.
    fit_order = 1

    def __init__(self, folder, every_steps=None, every_minutes=10.0):
        super().__init__()
        for name, value in (
            ("every_steps", every_steps),
            ("every_minutes", every_minutes),
        ):
            if value is not None and not value > 0:
                raise ValueError(
                    f"`{name}` must be above 0 or None. Received: "
                    f"{name}={value!r}"
                )
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self._files = BackupFiles(folder)
        self._seek, self._callbacks = None, []
        self._logs = []
        self._epoch = self._last_step = 0
        self._last_time = time.monotonic()
        self._restored = self._random = None

    # === Resuming ===

    def before_fit(self, data, seek, shuffle, callbacks):
        if shuffle and isinstance(data, keras.utils.PyDataset):
            raise ValueError(
                "Pass `shuffle=False` to `fit` when you use `ExactBackup`. By "
                "default, Keras shuffles the batches with a random generator "
                "that cannot be saved in a backup. `ImageBatches(..., "
                "shuffle=True)` shuffles its examples itself."
            )
        self._seek, self._callbacks = seek, callbacks

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self._seek is None:
            raise ValueError(
                "`ExactBackup` needs training data with a method "
                "`seek(epoch, batch)`, and no `steps_per_epoch`. Use the data "
                "of `keras_epsched.datasets.load`, or turn arrays into "
                "`ImageBatches(list(zip(images, labels)), image_size, "
                "shuffle=True)`."
            )
        self._logs = []
        self._restored = found = self.latest()
        if found is None:
            return
        if found["batch"] and found["steps"] != self._steps():
            raise ValueError(
                "The backup was made in the middle of an epoch, and the number "
                "of batches or `steps_per_execution` has changed since. Use "
                "the old values or another backup folder. Expected [batches "
                f"of an epoch, steps_per_execution] = {found['steps']}. "
                f"Received: {self._steps()}"
            )
        trainer = self.model
        # Replaces the function that skips batches, if skipping was
        # interrupted.
        trainer.make_train_function(force=True)
        self._logs = found["logs"]
        # `keras.callbacks.BackupAndRestore` sets the first epoch in this way.
        trainer._initial_epoch = (
            self.params["epochs"] if found["stopped"] else found["epoch"]
        )
        self._restore(found["arrays"], "weight")
        # This is the last callback, so the others have reset their states.
        callback_states.restore(
            self._callbacks, found["callbacks"], found["arrays"]
        )

    def _steps(self):
        return [self.params.get("steps"), self.model.steps_per_execution]

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None
        if self._restored is not None:
            # The training was complete already, so no epoch has begun.
            self._restore_history()

    def _restore_history(self):
        # Keras' own `History` is called after this callback, and clears
        # itself when training begins.
        self.model.history.epoch = list(range(len(self._logs)))
        self.model.history.history = _history_of(self._logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._last_step = epoch, 0
        # Otherwise it would apply to the next call of `fit` too.
        self.model._initial_epoch = None
        found, self._restored = self._restored, None
        if found is None:
            return
        self._restore_history()
        arrays, batch = found["arrays"], found["batch"]
        draws = sum(name.startswith("random_") for name in arrays)
        self._random = [arrays[f"random_{index}"] for index in range(draws)]
        self._seek(epoch, batch)
        if batch:
            # Keras has reset the metrics of the epoch.
            self._restore(arrays, "metric")
            self._last_step = batch
            backend.pass_over(self.model, batch, found["batch_logs"])
        else:
            self._set_random()

    def on_train_batch_begin(self, batch, logs=None):
        # Reading the data may have drawn random numbers at the start of the
        # epoch.
        if self._random is not None and batch == self._last_step:
            self._set_random()

    def _set_random(self):
        backend.set_random_state(self._random)
        self._random = None

    def latest(self):
        """Reads the last backup that is not corrupt.

        Returns:
            A `dict`; or `None` if there is no backup. Its keys include
            `epoch` and `batch`, with which the training resumes, and `logs`,
            the list of the logs of all finished epochs.

        Raises:
            ValueError: If there are backups, but all of them are corrupt.
        """
        return self._files.latest()

    def _restore(self, arrays, kind):
        backend.synchronise(self.model)
        variables = _variables(self.model)[kind]
        stored = sum(name.startswith(f"{kind}_") for name in arrays)
        if stored != len(variables):
            raise ValueError(_other(f"{stored} variables", len(variables)))
        for index, variable in enumerate(variables):
            array = arrays[f"{kind}_{index}"]
            if array.shape != tuple(variable.shape):
                raise ValueError(_other(array.shape, variable.path))
            if array.dtype.kind == "V":
                # NumPy does not know bfloat16 by its name.
                array = array.view(ops.convert_to_numpy(variable).dtype)
            variable.assign(array)

    # === Backing up ===

    def on_train_batch_end(self, batch, logs=None):
        done = batch + 1
        # After the last step, the end of the epoch makes the backup.
        if self._due(done) and done < (self.params.get("steps") or np.inf):
            self._save(self._epoch, done, _plain(logs or {}))

    def _due(self, done):
        if done <= self._last_step:
            # This step was skipped.
            return False
        minutes = (time.monotonic() - self._last_time) / 60
        return (
            self.every_steps is not None
            and done - self._last_step >= self.every_steps
        ) or (self.every_minutes is not None and minutes >= self.every_minutes)

    def on_epoch_end(self, epoch, logs=None):
        self._logs.append(_plain(logs or {}))
        self._save(epoch + 1, 0, {})

    def _save(self, epoch, batch, batch_logs):
        self._last_step, self._last_time = batch, time.monotonic()
        if not backend.is_chief():
            return
        trainer = self.model
        backend.synchronise(trainer)
        arrays = {
            f"{kind}_{index}": ops.convert_to_numpy(variable)
            for kind, variables in _variables(trainer).items()
            for index, variable in enumerate(variables)
        }
        for index, state in enumerate(backend.random_state()):
            arrays[f"random_{index}"] = state
        states, of_callbacks = callback_states.pack(self._callbacks)
        meta = {
            "epoch": epoch,
            "batch": batch,
            "batch_logs": batch_logs,
            "steps": self._steps(),
            "stopped": bool(trainer.stop_training),
            "logs": self._logs,
            "callbacks": states,
        }
        self._files.write(epoch, batch, {**arrays, **of_callbacks}, meta)

    def clear(self) -> None:
        """Deletes all backups. Call it when the training is finished."""
        self._files.clear()


def _history_of(logs):
    """Returns the logs in the form of Keras' `History.history`."""
    history = {}
    for each in logs:
        for name, value in each.items():
            history.setdefault(name, []).append(value)
    return history


def _variables(trainer):
    """Returns all variables that a training changes, in a fixed order."""
    metrics = {id(each): each for each in trainer.metrics_variables}
    weights = {
        id(each): each
        for each in [
            *trainer.variables,
            # Keras does not list these seeds among a model's variables.
            *trainer._seed_states(),
            *trainer.optimizer.variables,
        ]
        if id(each) not in metrics
    }
    return {"weight": [*weights.values()], "metric": [*metrics.values()]}


def _plain(logs):
    """Returns logs as JSON values."""
    return {
        name: value
        if isinstance(value, (str, int, float))
        else ops.convert_to_numpy(value).tolist()
        for name, value in logs.items()
    }


def _other(expected, received):
    return (
        "The backup belongs to another network, optimizer or metrics. Use "
        "those that it was made with, or another backup folder. "
        f"Expected: {expected}. Received: {received}"
    )
