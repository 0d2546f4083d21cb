"""From a name or a folder to stored examples."""

import dataclasses
import functools
import importlib
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_epsched.datasets import image_folder, paper

if TYPE_CHECKING:
    import tensorflow as tf

EMBEDDED = ("digits", "letters")
# Builders of this package whose data are not.
_PACKAGED = ("caltech256", "fgvc_aircraft", "stanford_cars")
_LAYOUTS = (
    "Expected a folder that tfds prepared (`<folder>/<version>/"
    "dataset_info.json`, or the version's folder itself) or a folder of "
    "images (`<folder>/<split>/<class>/<image>.png`, `.jpg` or `.jpeg`)."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """The examples of a dataset, still encoded, and what is known of them.

    Args:
        name: String. The dataset with its version.
        class_names: Tuple of strings, in the order of the labels.
        split_sizes: Mapping from each stored split to its size.
        split_bytes: Mapping from each stored split to the bytes that reading
            its labels takes.
        read: Callable `(split, numbers)`. Returns a `tf.data.Dataset` of pairs
            of encoded image and label: the examples of these numbers, which
            ascend.
        labels: Callable `(split)`. Returns an array with the label of each
            example.
        content: Callable `(split)`. Returns bytes that identify the examples
            where the name does not.
        decode: Callable. Turns an encoded image into a `uint8` tensor of
            shape `(height, width, channels)` with 1 or 3 channels.
        skipped: Tuple of strings. Files that were left out, and why.
    """

    name: str
    class_names: tuple[str, ...]
    split_sizes: Mapping[str, int]
    split_bytes: Mapping[str, int]
    read: Callable[[str, np.ndarray], "tf.data.Dataset"]
    labels: Callable[[str], np.ndarray]
    content: Callable[[str], bytes]
    decode: Callable[["tf.Tensor"], "tf.Tensor"]
    skipped: tuple[str, ...] = ()


def find(
    name: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None,
    download: bool,
    skip_corrupt: bool = False,
) -> Source:
    """Finds the examples that a name or a folder stands for.

    Args:
        name: String or path, as `load` takes it.
        data_dir: Path or `None`. Where tfds keeps prepared datasets.
        download: Boolean. Whether tfds may download and prepare.
        skip_corrupt: Boolean. Whether to leave out the files of an image
            folder that cannot be used.

    Returns:
        A `Source`.

    Raises:
        ValueError: If there is no such dataset, it is not prepared, or it is
            not one of images with one label each.

    Example:
    ```python
    source = find("digits", data_dir=None, download=False)
    ```
    """
    if data_dir is not None:
        # tfds expands "~" where it writes, not in the path that it tells.
        data_dir = os.path.expanduser(data_dir)
    # "digits/1.0.0", as `ImageData.name` says it, is understood as well.
    embedded = re.fullmatch(
        rf"({'|'.join(EMBEDDED)})(?:[:/](\d+\.\d+\.\d+))?", str(name)
    )
    if isinstance(name, str) and embedded:
        base, version = embedded.groups(default="")
        return _from_builder(_prepare_embedded(base, version, data_dir))
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder, skip_corrupt)
    if not isinstance(name, str) or name.startswith((".", "~", os.sep)):
        raise ValueError(f"There is no folder {str(name)!r}. {_LAYOUTS}")
    return _from_builder(_prepare_registered(name, data_dir, download))


def _prepare_embedded(
    name: str, version: str, data_dir: str | os.PathLike | None
):
    """The builder of `digits` or `letters`, with its data in place."""
    packaged = _packaged_builder(name)
    if version not in ("", str(packaged.VERSION)):
        raise ValueError(
            f"{name!r} has one version, {packaged.VERSION}. "
            f"Received: '{name}:{version}'."
        )
    builder = packaged(data_dir=data_dir)
    if builder.data_path.exists():
        return builder
    target = pathlib.Path(builder.data_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    # tfds names its temporary folder with Python's global generator: two
    # processes started with the same seed would write to the same one.
    with tempfile.TemporaryDirectory(
        prefix="incomplete.", dir=target.parent
    ) as temporary:
        staged = packaged(data_dir=temporary)
        staged.download_and_prepare()
        try:
            os.rename(staged.data_dir, target)
        except OSError:
            # Another process was first; its files are the same.
            if not target.is_dir():
                raise
    return packaged(data_dir=data_dir)


def _prepare_registered(
    name: str, data_dir: str | os.PathLike | None, download: bool
):
    """The builder of a tfds name, with its data in place."""
    import tensorflow_datasets as tfds

    dataset = paper.of_name(name)
    # With a version or a config, a name is that of tfds and no other.
    names = (
        (name,) if dataset is None or set(":/") & set(name) else dataset.stored
    )
    for packaged in set(_PACKAGED).intersection(names):
        # tfds registers a builder when it is imported.
        _packaged_builder(packaged)
    try:
        builders = [tfds.builder(each, data_dir=data_dir) for each in names]
    except tfds.core.DatasetNotFoundError:
        # The message of tfds lists a thousand names.
        raise ValueError(
            f"{name!r} is neither a dataset that tfds knows or has prepared "
            f"in {_folder_of(data_dir)}, nor an existing folder. Offline "
            f"datasets: {', '.join(EMBEDDED)}; those of the paper: "
            f"{', '.join(paper.PAPER_DATASETS)}. {_LAYOUTS}"
        ) from None
    except (AssertionError, ValueError) as error:
        # tfds asserts that the version exists.
        raise ValueError(
            f"tfds cannot build {name!r}, expected as 'name', 'name/config' "
            f"or 'name:version', and there is no such folder: {error}"
        ) from error
    for builder in builders:
        if builder.data_path.exists():
            return builder
    builder = builders[-1]
    if not download:
        raise ValueError(
            f"{builder.info.full_name} is not prepared: there is no "
            f"{' and no '.join(str(each.data_path) for each in builders)}. "
            "Pass `download=True` to download it, or `data_dir` if it is "
            f"elsewhere.{_by_hand(builder)}"
        )
    try:
        builder.download_and_prepare()
    # tfds has an exception for each step; what to do is always the same.
    except Exception as error:
        raise ValueError(
            f"{builder.info.full_name} could not be downloaded and prepared: "
            f"{type(error).__name__}: {error}. Without a network, "
            "prepare it where there is one, by the same call with "
            f"`download=True`, and copy the folder to {builder.data_path} "
            "(or pass the folder as the name)."
        ) from error
    return builder


def _by_hand(builder) -> str:
    """What tfds wants to be placed by hand, if anything."""
    wanted = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if not wanted:
        return ""
    # As tfds finds it by default.
    folder = builder.data_path
    while folder.name != builder.name:
        folder = folder.parent
    folder = folder.parent / "downloads" / "manual"
    return (
        f" It needs files placed by hand first, in {folder}: {wanted.strip()}"
    )


def _packaged_builder(name: str) -> type:
    """The builder class of this package."""
    return importlib.import_module(
        f"keras_epsched.datasets.{name}.{name}_dataset_builder"
    ).Builder


def _folder_of(data_dir: str | os.PathLike | None) -> str:
    import tensorflow_datasets as tfds

    return str(data_dir or tfds.core.constants.DATA_DIR)


def _from_folder(folder: pathlib.Path, skip_corrupt: bool) -> Source:
    import tensorflow_datasets as tfds

    if (folder / "dataset_info.json").is_file():
        return _from_builder(tfds.builder_from_directory(folder))
    versions = [
        child
        for child in folder.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", child.name)
        and (child / "dataset_info.json").is_file()
    ]
    if versions:
        newest = max(
            versions,
            key=lambda path: [int(part) for part in path.name.split(".")],
        )
        return _from_builder(tfds.builder_from_directory(newest))
    images = image_folder.ImageFolder(folder, skip_corrupt)
    if not images.files:
        found = sorted(child.name for child in folder.iterdir())
        raise ValueError(
            f"No dataset found in the folder {folder}. {_LAYOUTS} Found: "
            f"{found[:10]}. A tfds dataset of the same name is loaded from "
            "another working folder."
        )
    return Source(
        # All image folders have the same name and version in tfds.
        name=f"image_folder:{images.folder}",
        class_names=images.class_names,
        split_sizes={split: len(each) for split, each in images.files.items()},
        # Labels are those of the folders: no file is read for them.
        split_bytes=dict.fromkeys(images.files, 0),
        read=images.read,
        labels=images.labels,
        content=images.content,
        decode=image_folder.decode,
        skipped=images.skipped,
    )


def _from_builder(builder) -> Source:
    """Reads what tfds prepared."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    name = builder.info.full_name
    image_key, label_key = _keys(builder.info)
    image = builder.info.features[image_key]
    label = builder.info.features[label_key]
    if image.shape[-1] not in (1, 3) or image.np_dtype != np.uint8:
        raise ValueError(
            f"The images of {name} must be uint8 with 1 or 3 channels. "
            f"Received: {image}."
        )
    if not label.num_classes:
        raise ValueError(
            f"{name} does not say how many classes it has. Received: {label}."
        )

    def stored(split: str, decoders):
        return builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=decoders,
            read_config=tfds.ReadConfig(
                interleave_cycle_length=1, try_autocache=False
            ),
        )

    def read(split: str, numbers: np.ndarray):
        start, stop = int(numbers[0]), int(numbers[-1]) + 1
        records = stored(
            f"{split}[{start}:{stop}]",
            tfds.decode.PartialDecoding(
                {image_key: True, label_key: True},
                decoders={image_key: tfds.decode.SkipDecoding()},
            ),
        )
        if len(numbers) < stop - start:
            wanted = np.zeros(stop - start, dtype=bool)
            wanted[numbers - start] = True
            records = (
                records.enumerate()
                .filter(lambda number, record: tf.gather(wanted, number))
                .map(lambda number, record: record)
            )
            # What a filter leaves, tf.data cannot count.
            records = records.apply(
                tf.data.experimental.assert_cardinality(len(numbers))
            )
        return records.map(
            lambda record: (record[image_key], record[label_key])
        )

    @functools.cache
    def labels(split: str) -> np.ndarray:
        records = stored(split, tfds.decode.PartialDecoding({label_key: True}))
        batches = records.map(lambda record: record[label_key]).batch(1024)
        return np.concatenate([*batches.as_numpy_iterator()])

    return Source(
        name=name,
        class_names=tuple(label.names),
        split_sizes={
            split: info.num_examples
            for split, info in builder.info.splits.items()
        },
        split_bytes={
            split: info.num_bytes for split, info in builder.info.splits.items()
        },
        read=read,
        labels=labels,
        # The version says which images there are, and in which order.
        content=lambda split: b"",
        decode=image.decode_example,
    )


def _keys(info) -> tuple[str, str]:
    """The names of the image and the label among the features."""
    import tensorflow_datasets as tfds

    def of_kind(kind: type) -> list[str]:
        return [
            key
            for key, feature in info.features.items()
            if isinstance(feature, kind)
        ]

    images = of_kind(tfds.features.Image)
    labels = of_kind(tfds.features.ClassLabel)
    supervised = info.supervised_keys
    if (
        supervised is not None
        and supervised[0] in images
        and supervised[1] in labels
    ):
        return supervised[0], supervised[1]
    if len(images) == len(labels) == 1:
        return images[0], labels[0]
    raise ValueError(
        f"{info.full_name} must have one image and one class label, or name "
        f"them in `supervised_keys`. Received: supervised_keys={supervised}, "
        f"features={info.features}."
    )
