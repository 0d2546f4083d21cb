"""From a name or a folder to stored examples."""

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

# What reads and prepares all but `embedded` and folders of images.
_TFDS = ("tensorflow", "tensorflow_datasets")
# Builders of this package whose data are not.
_PACKAGED = ("caltech256", "fgvc_aircraft", "stanford_cars")
_LAYOUTS = (
    "Expected a folder that tfds prepared (`<folder>/<version>/"
    "dataset_info.json`, or the version's folder itself) or a folder of "
    "images (`<folder>/<split>/<class>/<image>.png`, `.jpg` or `.jpeg`, or "
    "without `<split>`)."
)


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
        ImportError: If only tfds can read it, and that or TensorFlow is not
            installed.
    """
    if data_dir is not None:
        # tfds expands "~" where it writes, not in the path that it tells.
        data_dir = os.path.expanduser(data_dir)
    # "digits/1.0.0", as `ImageData.name` says it, is understood as well.
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
    """`digits` or `letters`, from tfds where it is installed."""
    only = embedded.examples_of(name).VERSION
    if version not in ("", only):
        raise ValueError(
            f"{name!r} has one version, {only}. Received: '{name}:{version}'."
        )
    if not optional.available(*_TFDS):
        return embedded.source(name, data_dir)
    return from_builder(_prepare_embedded(name, data_dir))


def _prepare_embedded(name: str, data_dir: str | os.PathLike | None):
    """The builder of `digits` or `letters`, with its data in place."""
    packaged = _packaged_builder(name)
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
            # Another process was first; its files are the same.
            if not target.is_dir():
                raise
    return packaged(data_dir=data_dir)


def _prepare_registered(
    name: str, data_dir: str | os.PathLike | None, download: bool
):
    """The builder of a tfds name, with its data in place."""
    tfds = _tfds(f"The dataset {name!r}")
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
        known = (*embedded.NAMES, *paper.PAPER_DATASETS, *tfds.list_builders())
        near = difflib.get_close_matches(name, dict.fromkeys(known), n=5)
        raise ValueError(
            f"{name!r} is neither a dataset that tfds knows or has prepared "
            f"in {_folder_of(data_dir)}, nor an existing folder. "
            + (f"Near matches: {', '.join(near)}. " if near else "")
            + f"Offline datasets: {', '.join(embedded.NAMES)}; those of the "
            f"paper: {', '.join(paper.PAPER_DATASETS)}. {_LAYOUTS}"
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
            "Pass `download=True` (in the launchers: `--download`) to download "
            f"it, or `data_dir` if it is elsewhere.{_by_hand(builder)}"
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


def _tfds(purpose: str):
    """tfds, or an error that says what else there is."""
    for package in _TFDS:
        tfds = optional.package(
            package,
            purpose,
            "Without it, `load` takes "
            f"{' and '.join(map(repr, embedded.NAMES))} and folders of images, "
            "and `keras_epsched.datasets.ImageBatches` any sequence of "
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
            f"No dataset found in the folder {folder}. {_LAYOUTS} Found: "
            f"{found[:10]}. A tfds dataset of the same name is loaded from "
            "another working folder."
        )
    in_graph = optional.available("tensorflow")
    return Source(
        # All image folders have the same name and version in tfds.
        name=f"image_folder:{images.folder}",
        class_names=images.class_names,
        split_sizes={split: len(each) for split, each in images.files.items()},
        # Labels are those of the folders: no file is read for them.
        split_bytes=dict.fromkeys(images.files, 0),
        read=images.read if in_graph else images.examples,
        labels=images.labels,
        content=images.content,
        decode=image_files.decode if in_graph else None,
        skipped=images.skipped,
    )


def _prepared(folder: pathlib.Path) -> pathlib.Path | None:
    """The newest version that tfds prepared in a folder, if any."""
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
