"""Divides the rows of each batch among several workers."""

import keras

from keras_epsched import provenance


def worker_rows(batches, index: int, count: int, devices: int = 1):
    """Returns the rows of every batch that one of several workers trains on.

    Use it to train in several processes, each with its own devices. All
    processes read the same batches. Each batch is divided into `count` equal
    parts, and worker `index` takes the part with that number. Together, the
    workers train on the same rows as a single process, and they resume as a
    single process does.

    With `keras.distribution` on JAX, turn off Keras' own sharding:
    `DataParallel(auto_shard_dataset=False)`.

    Rows at the end of a batch are left out if the batch size is not a multiple
    of the number of all devices (`count * devices`). Choose a training batch
    size that is a multiple. In validation, the last batch may lose rows.

    Args:
        batches: `tf.data.Dataset` or `keras.utils.PyDataset` of batches
            `(images, labels)`, such as those of `load` and `ImageBatches`.
        index: Integer of at least 0. The number of this worker, such as
            `jax.process_index()`.
        count: Integer. The number of workers, such as `jax.process_count()`.
        devices: Integer. The number of devices of each worker, such as
            `jax.local_device_count()`.

    Returns:
        A dataset of the same kind. It keeps the attribute `split_info` and,
        if `batches` has it, `seek`.

    Raises:
        ValueError: If `index` is not below `count`, `devices` is below 1, or
            `batches` is of another kind.

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
            "`index` must be at least 0 and below `count`, and `devices` at "
            f"least 1. Received: index={index}, count={count}, "
            f"devices={devices}"
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
            # The last batch may be too small to give each worker a row.
            taken = taken.filter(lambda *each: tf.shape(each[0])[0] > 0)
    else:
        raise ValueError(
            "`batches` must be a `tf.data.Dataset` or a "
            f"`keras.utils.PyDataset`. Received: {type(batches).__name__}"
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
        # The last batch may be too small to give each worker a row.
        if self._length and not len(self[self._length - 1][0]):
            self._length -= 1

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        batch = self.batches[index]
        return self.rows(batch, len(batch[0]))

    def on_epoch_end(self):
        self.batches.on_epoch_end()
