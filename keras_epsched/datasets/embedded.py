"""Provides `digits` and `letters` as arrays, without TensorFlow."""

import functools
import hashlib
import importlib
import os
import pathlib
import warnings

import numpy as np

from keras_epsched import files
from keras_epsched.datasets.sources import Examples, Source

NAMES = ("digits", "letters")
# Images that take longer to render than to read from a file.
_KEPT = ("letters",)


def examples_of(name: str):
    """Returns the module that makes the images of `digits` or `letters`."""
    return importlib.import_module(f"keras_epsched.datasets.{name}.examples")


def source(name: str, data_dir: str | os.PathLike | None) -> Source:
    """Returns the examples that tfds would prepare, without tfds.

    Args:
        name: String from `NAMES`.
        data_dir: Path or `None`. The folder where tfds keeps prepared
            datasets. The letters take a minute to render, so they are saved
            in a file there.

    Returns:
        A `Source` with the same examples, in the same order, as from tfds.
    """
    module = examples_of(name)

    @functools.cache
    def arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in _KEPT:
            return _generated(module, split)
        file = f"{name}-{module.VERSION}-{split}.npz"
        return _kept(_folder(data_dir) / file, module, split)

    def example(split: str, number: int) -> tuple[np.ndarray, int]:
        images, labels = arrays(split)
        return images[number], labels[number]

    return Source(
        name=f"{name}/{module.VERSION}",
        class_names=module.CLASS_NAMES,
        split_sizes=module.SPLIT_SIZES,
        split_bytes=dict.fromkeys(module.SPLIT_SIZES, 0),
        read=lambda split, numbers: Examples(
            numbers, functools.partial(example, split)
        ),
        labels=lambda split: arrays(split)[1],
        content=lambda split: b"",
    )


def _generated(module, split):
    """Returns images and labels in the order in which tfds stores them."""
    keys, images, labels = zip(*module.generate(split), strict=True)
    # tfds sorts examples by a hash of the split's name and the key.
    hashes = [
        hashlib.md5(f"{split}{key}".encode(), usedforsecurity=False).digest()
        for key in keys
    ]
    order = sorted(range(len(keys)), key=hashes.__getitem__)
    return np.stack(images)[order], np.array(labels, dtype="int64")[order]


def _kept(path, module, split):
    """Returns images and labels from a file, which is written if missing."""
    if path.is_file():
        with np.load(path) as stored:
            return stored["images"], stored["labels"]
    images, labels = _generated(module, split)
    try:
        # Another process may have written the file. It is the same.
        with files.written_whole(path) as temporary:
            np.savez(temporary, images=images, labels=labels)
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error}), so these images will be "
            "rendered again next time. Pass a folder that you can write to as "
            "`data_dir`.",
            stacklevel=2,
        )
    return images, labels


def _folder(data_dir):
    """Returns the folder where tfds keeps prepared datasets."""
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(folder or "~/tensorflow_datasets").expanduser()
