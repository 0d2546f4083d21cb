"""The rows of each batch that one of several workers takes."""

import keras

from keras_epsched import provenance


def worker_rows(batches, index: int, count: int, devices: int = 1):
    """Gives one of several workers its rows of every batch.

    For training in several processes, each with devices of its own: all read
    the same batches, and each takes every `count`-th part of them, in order.
    Together they train on what a single process would train on, row by row,
    and resume as it does. With `keras.distribution` on JAX, turn Keras' own
    sharding off: `DataParallel(auto_shard_dataset=False)`.

    Rows that do not divide by all the devices are left out, at the end of a
    batch: in validation, whose last batch may have any size. Choose a batch
    size for training that divides.

    Args:
        batches: `tf.data.Dataset` or `keras.utils.PyDataset` of batches
            `(images, labels)`, as `load` and `ImageBatches` give them.
        index: Integer from 0. The number of this worker, as
            `jax.process_index()`.
        count: Integer. The number of workers, as `jax.process_count()`.
        devices: Integer. The devices of each, as `jax.local_device_count()`.

    Returns:
        A dataset of the same kind, with the attributes `split_info` and, if
        `batches` has it, `seek`.

    Raises:
        ValueError: If `index` is not below `count`, `devices` is not 1 or
            more, or `batches` is of another kind.

    Example:
    ```python
    train = keras_epsched.datasets.worker_rows(
        data.train,
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
    )
    ```
    """
    if not 0 <= index < count or devices < 1:
        raise ValueError(
            "`index` must be from 0 and below `count`, `devices` 1 or more. "
            f"Received: index={index}, count={count}, devices={devices}"
        )

    def rows(elements, size):
        own = size // (count * devices) * devices
        return tuple(each[index * own : (index + 1) * own] for each in elements)

    if isinstance(batches, keras.utils.PyDataset):
        taken = _WorkerBatches(batches, rows)
    elif hasattr(batches, "element_spec"):
        import tensorflow as tf

        taken = batches.map(lambda *each: rows(each, tf.shape(each[0])[0]))
        if batches.element_spec[0].shape[0] is None:
            # The last batch may be too small to give each a row.
            taken = taken.filter(lambda *each: tf.shape(each[0])[0] > 0)
    else:
        raise ValueError(
            "expected a `tf.data.Dataset` or a `keras.utils.PyDataset`. "
            f"Received: {type(batches).__name__}"
        )
    if hasattr(batches, "seek"):
        taken.seek = batches.seek
    provenance.set_split(taken, provenance.split_of(batches))
    return taken


class _WorkerBatches(keras.utils.PyDataset):
    def __init__(self, batches, rows):
        super().__init__()
        self.batches, self.rows = batches, rows

        self._length = len(batches)
        # The last batch may be too small to give each a row.
        if self._length and not len(self[self._length - 1][0]):
            self._length -= 1

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        batch = self.batches[index]
        return self.rows(batch, len(batch[0]))

    def on_epoch_end(self):
        self.batches.on_epoch_end()
