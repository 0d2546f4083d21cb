"""The rows of each batch that one of several workers takes."""

import keras


def worker_rows(batches, index: int, count: int):
    """Gives one of several workers its rows of every batch.

    For training in several processes, each with devices of its own: all read
    the same batches, and each takes every `count`-th part of them, in order.
    Together they train on what a single process would train on, row by row,
    and resume as it does. With `keras.distribution` on JAX, turn Keras' own
    sharding off: `DataParallel(auto_shard_dataset=False)`.

    Rows that do not divide by `count` are left out, at the end of a batch: in
    validation, whose last batch may have any size. Choose a batch size for
    training that does.

    Args:
        batches: `tf.data.Dataset` or `keras.utils.PyDataset` of batches
            `(images, labels)`, as `load` and `ImageBatches` give them.
        index: Integer from 0. The number of this worker, as
            `jax.process_index()`.
        count: Integer. The number of workers, as `jax.process_count()`.

    Returns:
        A dataset of the same kind, with the attributes `seek` and
        `split_info` of `batches` if it has them.

    Raises:
        ValueError: If `index` is not below `count`, or `batches` is of
            another kind.

    Example:
    ```python
    train = keras_epsched.datasets.worker_rows(
        data.train, jax.process_index(), jax.process_count()
    )
    ```
    """
    if not 0 <= index < count:
        raise ValueError(
            "`index` must be from 0 and below `count`. Received: "
            f"index={index}, count={count}"
        )

    def rows(elements, size):
        rows = size // count
        return tuple(
            each[index * rows : (index + 1) * rows] for each in elements
        )

    if isinstance(batches, keras.utils.PyDataset):
        taken = _WorkerBatches(batches, rows)
    elif hasattr(batches, "element_spec"):
        import tensorflow as tf

        taken = batches.map(lambda *each: rows(each, tf.shape(each[0])[0]))
    else:
        raise ValueError(
            "expected a `tf.data.Dataset` or a `keras.utils.PyDataset`. "
            f"Received: {type(batches).__name__}"
        )
    for name in ("seek", "split_info"):
        if hasattr(batches, name):
            setattr(taken, name, getattr(batches, name))
    return taken


class _WorkerBatches(keras.utils.PyDataset):
    def __init__(self, batches, rows):
        super().__init__()
        self.batches, self.rows = batches, rows

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        batch = self.batches[index]
        return self.rows(batch, len(batch[0]))

    def on_epoch_end(self):
        self.batches.on_epoch_end()
