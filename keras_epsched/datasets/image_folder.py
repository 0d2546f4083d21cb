"""Reads folders of images.

The layout is `<folder>/<split>/<class>/<image>.png`, or, without splits,
`<folder>/<class>/<image>.png` as in Keras' own loader.
"""

import hashlib
import itertools
import os
import pathlib
import warnings
from concurrent import futures

import numpy as np

from keras_epsched.datasets.image_files import (
    SUFFIXES,
    decoded_by_pillow,
    examined,
    is_image,
)
from keras_epsched.datasets.sources import Examples

# Part of the definition of an image folder's splits. The user cannot set it.
_SEED = 0
_NAMED = 10
_TRAIN = "train"


class ImageFolder:
    """The images of a folder, checked before the first one is used.

    The header and the end of every file are read, in 0.1 ms per file. This
    finds files that are not images, are cut short, have 16 bits per channel,
    or have a format that tfds and TensorFlow cannot read. Damage in the middle
    of a file is found later, when the image is decoded; the error names the
    file. With `skip_corrupt`, every image is decoded here, once per process,
    because the number of images must be known before the training.

    The sub-folders of `folder` are splits, and each split has a folder for
    every class. If the sub-folders contain images and none is called `train`,
    they are the classes of one split, `"train"`. `val` and `valid` are other
    names for `"validation"`. Images in sub-folders of a class belong to that
    class.

    Pixels are used as stored. Like TensorFlow and tfds, this class does not
    apply the orientation in the EXIF data; a warning names the images that
    have one.

    Args:
        folder: Path.
        skip_corrupt: Boolean. Whether to leave out the files that cannot be
            used, with a warning, instead of refusing the folder.
    """

    def __init__(self, folder: pathlib.Path, skip_corrupt: bool):
        self.folder = folder.resolve()
        self.class_names: tuple[str, ...] = ()
        self.files: dict[str, list] = {}
        self.skipped: tuple[str, ...] = ()
        # The folder of each split, by its name.
        self._splits = {split.name: split for split in _folders(self.folder)}
        for name in ("val", "valid"):
            known = {_TRAIN, name} <= set(self._splits)
            if known and "validation" not in self._splits:
                self._splits["validation"] = self._splits.pop(name)
        if _TRAIN not in self._splits and any(
            map(_holds_images, self._splits.values())
        ):
            self._splits = {_TRAIN: self.folder}
        listed = {
            name: sorted(
                path for child in _folders(split) for path in _files(child)
            )
            for name, split in self._splits.items()
        }
        if not any(
            is_image(path) for path in itertools.chain(*listed.values())
        ):
            return
        self._refuse_outside_of_classes()
        self._refuse_hidden()
        self._refuse_empty()
        self.class_names = tuple(
            sorted(
                {
                    child.name
                    for split in self._splits.values()
                    for child in _folders(split)
                }
            )
        )
        problems = self._problems(listed, skip_corrupt)
        self.skipped = tuple(
            f"{self._short(path)}: {problem}"
            for path, problem in problems.items()
        )
        if problems and not skip_corrupt:
            raise ValueError(
                f"{len(problems)} files in {self.folder} cannot be used: "
                f"{_some(self.skipped)}. Repair, convert or remove these "
                "files, or pass `skip_corrupt=True` to leave them out."
            )
        if problems:
            total = sum(map(len, listed.values()))
            warnings.warn(
                f"{len(problems)} of {total} files in {self.folder} are "
                f"skipped: {_some(self.skipped)}",
                stacklevel=2,
            )
        self.files = {
            split: self._permuted(
                [
                    path
                    for path in files
                    if is_image(path) and path not in problems
                ]
            )
            for split, files in listed.items()
        }

    def read(self, split: str, numbers):
        """Returns a `tf.data.Dataset` of paths and labels."""
        import tensorflow as tf

        paths = [str(self.files[split][number]) for number in numbers]
        labels = self.labels(split)[np.asarray(numbers, dtype=np.int64)]
        return tf.data.Dataset.from_tensor_slices((paths, labels))

    def examples(self, split: str, numbers):
        """Returns a sequence of pairs of image and label, read by Pillow."""
        labels = self.labels(split)
        return Examples(
            numbers,
            lambda number: (
                decoded_by_pillow(self.files[split][number]),
                int(labels[number]),
            ),
        )

    def labels(self, split: str) -> np.ndarray:
        """Returns the label of each image of a split, in its order."""
        number = {name: i for i, name in enumerate(self.class_names)}
        root = self._splits[split]
        return np.array(
            [
                number[path.relative_to(root).parts[0]]
                for path in self.files[split]
            ],
            dtype=np.int64,
        )

    def content(self, split: str) -> bytes:
        """Returns bytes that identify the images of a split and their order."""
        names = [self._short(path) for path in self.files[split]]
        return hashlib.sha256("\n".join(names).encode()).digest()

    def _permuted(self, files: list) -> list:
        # Sorted files are sorted by class, so an interval of them would hold
        # only some classes.
        order = np.random.default_rng(_SEED).permutation(len(files))
        return [files[number] for number in order]

    def _short(self, path: pathlib.Path) -> str:
        return str(path.relative_to(self.folder))

    def _refuse_outside_of_classes(self):
        loose = [
            self._short(path)
            for split in self._splits.values()
            for path in sorted(split.iterdir())
            if path.is_file() and is_image(path)
        ]
        if loose:
            raise ValueError(
                f"{len(loose)} images in {self.folder} lie in no class folder: "
                f"{_some(loose)}. Expected `<split>/<class>/<image>`, or "
                "`<class>/<image>` without splits. Move these images into "
                "class folders, or remove them."
            )

    def _refuse_hidden(self):
        hidden = sorted(
            pathlib.Path(place, name)
            for place, names, _ in os.walk(self.folder, followlinks=True)
            for name in names
            if name.startswith(".")
        )
        if hidden:
            # Jupyter creates such folders.
            raise ValueError(
                f"Hidden folders in {self.folder} would be read as splits or "
                f"classes: {_some(map(self._short, hidden))}. Delete these "
                "folders."
            )

    def _refuse_empty(self):
        empty = [
            self._short(child)
            for split in self._splits.values()
            for child in _folders(split)
            if not any(map(is_image, _files(child)))
        ]
        if empty:
            raise ValueError(
                f"Class folders in {self.folder} without an image "
                f"({', '.join(SUFFIXES)}): {_some(empty)}. Put images into "
                "these folders, or delete them."
            )

    def _problems(self, listed, decode: bool) -> dict:
        """Returns the problem of each file that cannot be used."""
        paths = [path for files in listed.values() for path in files]
        with futures.ThreadPoolExecutor() as pool:
            found = [*pool.map(lambda path: examined(path, decode), paths)]
        findings = dict(zip(paths, found, strict=True))
        transparent = [
            self._short(path)
            for path, each in findings.items()
            if each.transparent
        ]
        turned = [
            self._short(path) for path, each in findings.items() if each.turned
        ]
        if transparent:
            warnings.warn(
                f"{len(transparent)} images in {self.folder} have an alpha "
                "channel. It is ignored, so transparent areas show their "
                "hidden colours. To choose a background, paste each image on "
                f"one and save it without alpha: {_some(transparent)}",
                stacklevel=3,
            )
        if turned:
            warnings.warn(
                f"{len(turned)} images in {self.folder} have an orientation in "
                "their EXIF data. It is not applied, so these images are used "
                "as stored: turned or mirrored. To turn them, open each with "
                "Pillow and save `ImageOps.exif_transpose(image)`: "
                f"{_some(turned)}",
                stacklevel=3,
            )
        return {
            path: each.problem
            for path, each in findings.items()
            if each.problem
        }


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a class, also those in its sub-folders."""
    return [
        pathlib.Path(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
    ]


def _holds_images(folder: pathlib.Path) -> bool:
    return any(is_image(path) for path in folder.iterdir() if path.is_file())


def _some(names) -> str:
    names = list(names)
    more = len(names) - _NAMED
    return "; ".join(names[:_NAMED]) + (
        f"; and {more} more" if more > 0 else ""
    )
