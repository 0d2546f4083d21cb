"""A backup from which a training goes on as if it had never stopped."""

import time

import keras
import numpy as np
from keras import ops

from keras_epsched import backend
from keras_epsched.callbacks import callback_states
from keras_epsched.callbacks.backup_files import BackupFiles
from keras_epsched.callbacks.base import TrainerCallback


class ExactBackup(TrainerCallback):
    """Backs up a training, and continues it exactly after an interruption.

    Use it where a training may be killed. Call the same program again: `fit`
    goes on after the last step that was backed up, in the middle of an epoch
    too, and ends with the weights, the history and the epsilons of a training
    that was never interrupted; bit by bit where the backend is deterministic
    (`tf.config.experimental.enable_op_determinism()`).

    A backup holds the weights, the optimizer, all seeds, epsilon, running
    metrics, the history, and what other callbacks remember: those of this
    package, `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint` of
    Keras, and any with a pair of methods `get_state()`, which returns a `dict`
    of JSON values or lists of arrays, and `set_state(state)`.

    The data must be a function of epoch and index, and say so by a method or
    attribute `seek(epoch, batch)`: the data of `keras_epsched.datasets` have
    it. Batches before the first are passed over without a step; other callbacks
    are called for them.

    Backups are written to a temporary file, then renamed, and their checksums
    are verified when they are read; the last two are kept. If the last is
    corrupt, the one before is taken, with a warning.

    Args:
        folder: Path. The folder of the backups. Those that are found there
            when training begins are continued.
        every_steps: Int or `None`. Steps between two backups, within an epoch.
        every_minutes: Float or `None`. Minutes between two backups, within an
            epoch. There is one at the end of each epoch in any case.

    Raises:
        ValueError: When training begins, if the model is not an
            `AdversarialTrainer`, the data has no `seek`, or the backup is of
            another network or optimizer.
        OSError: If a backup cannot be written. Those before it stay.

    Example:
    ```python
    trainer.fit(
        data.train,
        epochs=50,
        shuffle=False,  # by Keras; the data of this package shuffle themselves
        callbacks=[scheduler, keras_epsched.callbacks.ExactBackup("backups")],
    )
    ```
    """

    # It finds what the others have done, and remembers it.
    fit_order = 1

    def __init__(self, folder, every_steps=None, every_minutes=10.0):
        super().__init__()
        for name, value in (
            ("every_steps", every_steps),
            ("every_minutes", every_minutes),
        ):
            if value is not None and not value > 0:
                raise ValueError(
                    f"`{name}` must be above 0, or None. Received: "
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

    # === Going on ===

    def before_fit(self, data, seek, shuffle, callbacks):
        if shuffle and isinstance(data, keras.utils.PyDataset):
            raise ValueError(
                "pass `shuffle=False` with `ExactBackup`: by default Keras "
                "shuffles the order of the batches by a generator that no "
                "backup holds. `ImageBatches` shuffles its examples itself."
            )
        self._seek, self._callbacks = seek, callbacks

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self._seek is None:
            raise ValueError(
                "`ExactBackup` needs data that is a function of epoch and "
                "index, with `seek(epoch, batch)`, and no `steps_per_epoch`: "
                "that of "
                "`keras_epsched.datasets.load`, or `ImageBatches`, which takes "
                "arrays too: ImageBatches(list(zip(images, labels)), ...)"
            )
        self._logs = []
        self._restored = found = self.latest()
        if found is None:
            return
        if found["batch"] and found["steps"] != self._steps():
            raise ValueError(
                "the backup is of the middle of an epoch with other batches. "
                "Expected the number of batches, and of those that are "
                f"executed together: {found['steps']}. Received: "
                f"{self._steps()}"
            )
        trainer = self.model
        # Not what passes over, if that was interrupted.
        trainer.make_train_function(force=True)
        self._logs = found["logs"]
        # As `keras.callbacks.BackupAndRestore` does it.
        trainer._initial_epoch = (
            self.params["epochs"] if found["stopped"] else found["epoch"]
        )
        self._restore(found["arrays"], "weight")
        # Last of all callbacks, after they have forgotten.
        callback_states.restore(
            self._callbacks, found["callbacks"], found["arrays"]
        )

    def _steps(self):
        return [self.params.get("steps"), self.model.steps_per_execution]

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None
        if self._restored is not None:
            # Nothing was left to do.
            self._restore_history()

    def _restore_history(self):
        # Keras' own is called after this one, and forgets when training
        # begins.
        self.model.history.epoch = list(range(len(self._logs)))
        self.model.history.history = _history_of(self._logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._last_step = epoch, 0
        # Else it would hold for the next call of `fit` too.
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
        # Whatever reads the data may have drawn when the epoch began.
        if self._random is not None and batch == self._last_step:
            self._set_random()

    def _set_random(self):
        backend.set_random_state(self._random)
        self._random = None

    def latest(self):
        """Reads the last backup that is not corrupt.

        Returns:
            A `dict` with `epoch` and `batch`, those to go on with, `logs`, a
            list of the logs of all finished epochs, and more; or `None` if
            there is no backup.

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
        # The last of an epoch is backed up with its end.
        if self._due(done) and done < (self.params.get("steps") or np.inf):
            self._save(self._epoch, done, _plain(logs or {}))

    def _due(self, done):
        if done <= self._last_step:
            # Passed over.
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
        """Deletes all backups, when the training is over."""
        self._files.clear()


def _history_of(logs):
    """Logs of epochs in the form of Keras' `History.history`."""
    history = {}
    for each in logs:
        for name, value in each.items():
            history.setdefault(name, []).append(value)
    return history


def _variables(trainer):
    """All that a training changes, in a fixed order."""
    metrics = {id(each): each for each in trainer.metrics_variables}
    weights = {
        id(each): each
        for each in [
            *trainer.variables,
            # Seeds that Keras does not count among the variables of a model.
            *trainer._seed_states(),
            *trainer.optimizer.variables,
        ]
        if id(each) not in metrics
    }
    return {"weight": [*weights.values()], "metric": [*metrics.values()]}


def _plain(logs):
    """Logs as JSON has them."""
    return {
        name: value
        if isinstance(value, (str, int, float))
        else ops.convert_to_numpy(value).tolist()
        for name, value in logs.items()
    }


def _other(expected, received):
    return (
        "the backup is of another network, optimizer or metrics; use those "
        "that it was made with, or another folder. "
        f"Expected: {expected}. Received: {received}"
    )
