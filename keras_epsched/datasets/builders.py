"""From a name or a folder to stored examples."""

import dataclasses
import importlib
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

_EMBEDDED = ("digits", "letters")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Part of the definition of an image folder's splits: never the user's seed.
_FOLDER_SEED = 0
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
        read: Callable `(split, start, stop)`. Returns a `tf.data.Dataset` of
            pairs of encoded image and label, in a fixed order.
        decode: Callable. Turns an encoded image into a `uint8` tensor of
            shape `(height, width, channels)` with 1 or 3 channels.
    """

    name: str
    class_names: tuple[str, ...]
    split_sizes: Mapping[str, int]
    read: Callable[[str, int, int], "tf.data.Dataset"]
    decode: Callable[["tf.Tensor"], "tf.Tensor"]


def find(
    name: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None,
    download: bool,
) -> Source:
    """Finds the examples that a name or a folder stands for.

    Args:
        name: String or path, as `load` takes it.
        data_dir: Path or `None`. Where tfds keeps prepared datasets.
        download: Boolean. Whether tfds may download and prepare.

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
        rf"({'|'.join(_EMBEDDED)})(?:[:/](\d+\.\d+\.\d+))?", str(name)
    )
    if isinstance(name, str) and embedded:
        base, version = embedded.groups(default="")
        return _from_builder(_prepare_embedded(base, version, data_dir))
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder)
    if not isinstance(name, str) or name.startswith((".", "~", os.sep)):
        raise ValueError(f"There is no folder {str(name)!r}. {_LAYOUTS}")
    return _from_builder(_prepare_registered(name, data_dir, download))


def _prepare_embedded(
    name: str, version: str, data_dir: str | os.PathLike | None
):
    """The builder of `digits` or `letters`, with its data in place."""
    module = importlib.import_module(
        f"keras_epsched.datasets.{name}.{name}_dataset_builder"
    )
    if version not in ("", str(module.Builder.VERSION)):
        raise ValueError(
            f"{name!r} has one version, {module.Builder.VERSION}. "
            f"Received: '{name}:{version}'."
        )
    builder = module.Builder(data_dir=data_dir)
    if builder.data_path.exists():
        return builder
    target = pathlib.Path(builder.data_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    # tfds names its temporary folder with Python's global generator: two
    # processes started with the same seed would write to the same one.
    with tempfile.TemporaryDirectory(
        prefix="incomplete.", dir=target.parent
    ) as temporary:
        staged = module.Builder(data_dir=temporary)
        staged.download_and_prepare()
        try:
            os.rename(staged.data_dir, target)
        except OSError:
            # Another process was first; its files are the same.
            if not target.is_dir():
                raise
    return module.Builder(data_dir=data_dir)


def _prepare_registered(
    name: str, data_dir: str | os.PathLike | None, download: bool
):
    """The builder of a tfds name, with its data in place."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        # The message of tfds lists a thousand names.
        raise ValueError(
            f"{name!r} is neither a dataset that tfds knows or has prepared "
            f"in {_folder_of(data_dir)}, nor an existing folder. Offline "
            f"datasets: {', '.join(_EMBEDDED)}. {_LAYOUTS}"
        ) from None
    except (AssertionError, ValueError) as error:
        # tfds asserts that the version exists.
        raise ValueError(
            f"tfds cannot build {name!r}, expected as 'name', 'name/config' "
            f"or 'name:version', and there is no such folder: {error}"
        ) from error
    if builder.data_path.exists():
        return builder
    if not download:
        raise ValueError(
            f"{builder.info.full_name} is not prepared: there is no "
            f"{builder.data_path}. Pass `download=True` to download it, or "
            "`data_dir` if it is elsewhere."
        )
    builder.download_and_prepare()
    return builder


def _folder_of(data_dir: str | os.PathLike | None) -> str:
    import tensorflow_datasets as tfds

    return str(data_dir or tfds.core.constants.DATA_DIR)


def _from_folder(folder: pathlib.Path) -> Source:
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
    builder = tfds.ImageFolder(str(folder))
    if not sum(split.num_examples for split in builder.info.splits.values()):
        found = sorted(child.name for child in folder.iterdir())
        raise ValueError(
            f"No dataset found in the folder {folder}. {_LAYOUTS} Found: "
            f"{found[:10]}. A tfds dataset of the same name is loaded from "
            "another working folder."
        )
    hidden = sorted(folder.glob(".*/")) + sorted(folder.glob("*/.*/"))
    if hidden:
        # Notebooks leave such folders behind; tfds takes them for classes.
        raise ValueError(
            f"Hidden folders in {folder} would count as splits or classes: "
            f"{[str(path.relative_to(folder)) for path in hidden]}. Delete "
            "them."
        )
    return _from_image_folder(folder.resolve(), builder)


def _from_builder(builder) -> Source:
    """Reads what tfds prepared."""
    import tensorflow_datasets as tfds

    image_key, label_key = _keys(builder.info)

    def read(split: str, start: int, stop: int):
        records = builder.as_dataset(
            split=f"{split}[{start}:{stop}]",
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(
                {image_key: True, label_key: True},
                decoders={image_key: tfds.decode.SkipDecoding()},
            ),
            read_config=tfds.ReadConfig(
                interleave_cycle_length=1, try_autocache=False
            ),
        )
        return records.map(
            lambda record: (record[image_key], record[label_key])
        )

    return _source(builder, builder.info.full_name, read)


def _from_image_folder(folder: pathlib.Path, builder) -> Source:
    """Reads a folder of images, in a fixed permutation of its sorted files.

    `tfds.ImageFolder` says what there is; it cannot read a part of a split.
    """
    import tensorflow as tf

    label_of = builder.info.features["label"].str2int

    def read(split: str, start: int, stop: int):
        files = sorted(
            path
            for path in (folder / split).glob("*/*")
            if path.name.lower().endswith(_IMAGE_SUFFIXES)
        )
        generator = np.random.default_rng(_FOLDER_SEED)
        order = generator.permutation(len(files))[start:stop]
        paths = [str(files[number]) for number in order]
        labels = [label_of(files[number].parent.name) for number in order]
        return tf.data.Dataset.from_tensor_slices(
            (paths, tf.constant(labels, tf.int64))
        ).map(
            lambda path, label: (tf.io.read_file(path), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    # All image folders have the same name and version in tfds.
    return _source(builder, f"image_folder:{folder}", read)


def _source(builder, name: str, read: Callable) -> Source:
    image_key, label_key = _keys(builder.info)
    image = builder.info.features[image_key]
    label = builder.info.features[label_key]
    if image.shape[-1] not in (1, 3) or image.np_dtype != np.uint8:
        raise ValueError(
            f"The images of {name} must be uint8 with 1 or 3 channels. "
            f"Received: {image}."
        )
    if not label.names:
        raise ValueError(
            f"{name} does not say how many classes it has. Received: {label}."
        )
    return Source(
        name=name,
        class_names=tuple(label.names),
        split_sizes={
            split: info.num_examples
            for split, info in builder.info.splits.items()
        },
        read=read,
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
