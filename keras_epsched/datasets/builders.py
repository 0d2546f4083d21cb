"""Finds the stored examples for a name or a folder."""

import contextlib
import difflib
import importlib
import io
import os
import pathlib
import re
import tempfile

from keras_epsched import optional
from keras_epsched.datasets import embedded, image_files, image_folder, paper
from keras_epsched.datasets.sources import Source, from_builder

# Needed for every dataset but `embedded` ones and folders of images.
_TFDS = ("tensorflow", "tensorflow_datasets")
# This package has their builders, but not their data.
_PACKAGED = ("caltech256", "fgvc_aircraft", "stanford_cars")
_LAYOUTS = (
    "A folder must be one that tfds prepared (with `<version>/"
    "dataset_info.json` or `dataset_info.json` in it) or a folder of images "
    "(`<folder>/<split>/<class>/<image>.png`, or the same without `<split>`; "
    "`.jpg` and `.jpeg` too)."
)


def find(
    name: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None,
    download: bool,
    skip_corrupt: bool = False,
) -> Source:
    """Finds the examples for a name or a folder.

    Args:
        name: String or path, as `load` takes it.
        data_dir: Path or `None`. The folder where tfds keeps prepared
            datasets.
        download: Boolean. Whether tfds may download and prepare the dataset.
        skip_corrupt: Boolean. Whether to leave out the files of an image
            folder that cannot be used.

    Returns:
        A `Source`.

    Raises:
        ValueError: If the dataset does not exist, is not prepared, or does
            not consist of images with one label each.
        ImportError: If only tfds can read it, and tfds or TensorFlow is not
            installed.
    """
    if data_dir is not None:
        # tfds expands "~" when it writes, but not in the paths it reports.
        data_dir = os.path.expanduser(data_dir)
    # Also accepts "digits/1.0.0", the form of `ImageData.name`.
    known = re.fullmatch(
        rf"({'|'.join(embedded.NAMES)})(?:[:/](\d+\.\d+\.\d+))?", str(name)
    )
    if isinstance(name, str) and known:
        base, version = known.groups(default="")
        return _embedded(base, version, data_dir)
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder, skip_corrupt)
    if not isinstance(name, str) or name.startswith((".", "~", os.sep)):
        raise ValueError(f"There is no folder {str(name)!r}. {_LAYOUTS}")
    return from_builder(_prepare_registered(name, data_dir, download))


def _embedded(
    name: str, version: str, data_dir: str | os.PathLike | None
) -> Source:
    """Returns `digits` or `letters`, from tfds if it is installed."""
    only = embedded.examples_of(name).VERSION
    if version not in ("", only):
        raise ValueError(
            f"{name!r} has only one version, {only}. Received: "
            f"'{name}:{version}'. Pass {name!r}."
        )
    if not optional.available(*_TFDS):
        return embedded.source(name, data_dir)
    return from_builder(_prepare_embedded(name, data_dir))


def _prepare_embedded(name: str, data_dir: str | os.PathLike | None):
    """Returns the builder of `digits` or `letters`, with its data prepared."""
    packaged = _packaged_builder(name)
    builder = packaged(data_dir=data_dir)
    if builder.data_path.exists():
        return builder
    target = pathlib.Path(builder.data_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    # tfds draws the name of its temporary folder from Python's global random
    # generator, so two processes with the same seed would share one.
    with tempfile.TemporaryDirectory(
        prefix="incomplete.", dir=target.parent
    ) as temporary:
        staged = packaged(data_dir=temporary)
        # tfds would say that it downloads, and show bars.
        said = io.StringIO()
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            staged.download_and_prepare()
        try:
            os.rename(staged.data_dir, target)
        except OSError:
            # Another process was faster. Its files are the same.
            if not target.is_dir():
                raise
    return packaged(data_dir=data_dir)


def _prepare_registered(
    name: str, data_dir: str | os.PathLike | None, download: bool
):
    """Returns the builder of a tfds name, with its data prepared."""
    tfds = _tfds(f"The dataset {name!r}")
    dataset = paper.of_name(name)
    # A name with a version or a config is always a name of tfds.
    names = (
        (name,) if dataset is None or set(":/") & set(name) else dataset.stored
    )
    for packaged in set(_PACKAGED).intersection(names):
        # tfds registers a builder when the builder's module is imported.
        _packaged_builder(packaged)
    try:
        builders = [tfds.builder(each, data_dir=data_dir) for each in names]
    except tfds.core.DatasetNotFoundError:
        # Replaces the message of tfds, which lists a thousand names.
        known = (*embedded.NAMES, *paper.PAPER_DATASETS, *tfds.list_builders())
        near = difflib.get_close_matches(name, dict.fromkeys(known), n=5)
        raise ValueError(
            f"{name!r} is neither a dataset that tfds knows or has prepared "
            f"in {_folder_of(data_dir)}, nor an existing folder. "
            + (f"Near matches: {', '.join(near)}. " if near else "")
            + "These datasets need no download: "
            f"{', '.join(embedded.NAMES)}. The paper's datasets: "
            f"{', '.join(paper.PAPER_DATASETS)}. {_LAYOUTS}"
        ) from None
    except (AssertionError, ValueError) as error:
        # tfds asserts that the version exists.
        raise ValueError(
            f"tfds cannot build {name!r}, and no folder has that name. "
            "Expected the form 'name', 'name/config' or 'name:version'. "
            f"tfds says: {error}"
        ) from error
    for builder in builders:
        if builder.data_path.exists():
            return builder
    builder = builders[-1]
    if not download:
        raise ValueError(
            f"{builder.info.full_name} is not prepared: there is no folder "
            f"{' and no '.join(str(each.data_path) for each in builders)}. "
            "Pass `download=True` (`--download` in the launchers) to download "
            "it. If it is prepared in another folder, pass that folder as "
            f"`data_dir`.{_by_hand(builder)}"
        )
    try:
        builder.download_and_prepare()
    # tfds raises many kinds of exceptions, but the advice is always the same.
    except Exception as error:
        raise ValueError(
            f"{builder.info.full_name} could not be downloaded and prepared: "
            f"{type(error).__name__}: {error}. If this machine has no network, "
            "make the same call with `download=True` on one that has, then "
            f"copy the folder to {builder.data_path} on this machine (or copy "
            "it anywhere and pass its path as the name)."
        ) from error
    return builder


def _by_hand(builder) -> str:
    """Returns what the user must place by hand for tfds, or no text."""
    wanted = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if not wanted:
        return ""
    # The folder that tfds searches by default.
    folder = builder.data_path
    while folder.name != builder.name:
        folder = folder.parent
    folder = folder.parent / "downloads" / "manual"
    return (
        f" Before that, place these files by hand in {folder}: {wanted.strip()}"
    )


def _packaged_builder(name: str) -> type:
    """Returns the builder class of a dataset that this package defines."""
    return importlib.import_module(
        f"keras_epsched.datasets.{name}.{name}_dataset_builder"
    ).Builder


def _folder_of(data_dir: str | os.PathLike | None) -> str:
    import tensorflow_datasets as tfds

    return str(data_dir or tfds.core.constants.DATA_DIR)


def _tfds(purpose: str):
    """Imports tfds; the error lists what works without it."""
    for package in _TFDS:
        tfds = optional.package(
            package,
            purpose,
            "Without it, `load` takes "
            f"{' and '.join(map(repr, embedded.NAMES))} and folders of images, "
            "and `keras_epsched.datasets.ImageBatches` takes any sequence of "
            "examples, such as a `tfds.data_source`.",
        )
    return tfds


def _from_folder(folder: pathlib.Path, skip_corrupt: bool) -> Source:
    prepared = _prepared(folder)
    if prepared is not None:
        tfds = _tfds(f"The prepared dataset in {prepared}")
        return from_builder(tfds.builder_from_directory(prepared))
    images = image_folder.ImageFolder(folder, skip_corrupt)
    if not images.files:
        found = sorted(child.name for child in folder.iterdir())
        raise ValueError(
            f"The folder {folder} holds no dataset. {_LAYOUTS} Found in it: "
            f"{found[:10]}. If you meant the tfds dataset of that name, call "
            "`load` from another working folder: an existing folder is used "
            "before a tfds name."
        )
    in_graph = optional.available("tensorflow")
    return Source(
        # The path is part of the name, because tfds gives all image folders
        # the same name and version.
        name=f"image_folder:{images.folder}",
        class_names=images.class_names,
        split_sizes={split: len(each) for split, each in images.files.items()},
        # The folder names give the labels, so no file is read for them.
        split_bytes=dict.fromkeys(images.files, 0),
        read=images.read if in_graph else images.examples,
        labels=images.labels,
        content=images.content,
        decode=image_files.decode if in_graph else None,
        skipped=images.skipped,
    )


def _prepared(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the newest version that tfds prepared in a folder, or `None`."""
    if (folder / "dataset_info.json").is_file():
        return folder
    versions = [
        child
        for child in folder.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", child.name)
        and (child / "dataset_info.json").is_file()
    ]
    return max(
        versions,
        key=lambda path: [int(part) for part in path.name.split(".")],
        default=None,
    )
