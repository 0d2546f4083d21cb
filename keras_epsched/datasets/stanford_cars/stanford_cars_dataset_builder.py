"""The `stanford_cars` dataset, which can no longer be downloaded."""

from collections.abc import Iterator

from etils import epath

from keras_epsched.datasets.tfds_builders import Photo, PhotoBuilder

_CITATION = """\
@inproceedings{krause20133d,
  title = {3D Object Representations for Fine-Grained Categorization},
  author = {Krause, Jonathan and Stark, Michael and Deng, Jia and Fei-Fei, Li},
  booktitle = {4th International IEEE Workshop on 3D Representation and
               Recognition},
  year = {2013},
}
"""


class Builder(PhotoBuilder):
    """16185 photos of 196 models of cars, from files that you have.

    There are 8144 images for training and 8041 for test. The download address
    of tfds' `cars196` no longer works. If `cars196` is already prepared, `load`
    uses it. Otherwise place the authors' files, unpacked or not:

    ```
    downloads/manual/stanford_cars/
        cars_train/*.jpg                 or cars_train.tgz
        cars_test/*.jpg                  or cars_test.tgz
        devkit/cars_train_annos.mat      or car_devkit.tgz
        devkit/cars_meta.mat
        cars_test_annos_withlabels.mat
    ```

    The label is the number in the annotations minus one.

    Example:
    ```python
    data = keras_epsched.datasets.load(
        "stanford_cars", image_size=(224, 224), download=True
    )
    ```
    """

    DESCRIPTION = "Photos of cars of 196 makes, models and years."
    HOMEPAGE = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
    CITATION = _CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
a folder stanford_cars with cars_train/ and cars_test/ (the photos; or
cars_train.tgz and cars_test.tgz), devkit/ (cars_train_annos.mat and
cars_meta.mat; or car_devkit.tgz), and cars_test_annos_withlabels.mat.
These files can no longer be downloaded from their official address.
"""

    def _photos(self, dl_manager):
        root = dl_manager.manual_dir / "stanford_cars"
        devkit = _found(dl_manager, root, "devkit", "car_devkit.tgz")
        train = _found(dl_manager, root, "cars_train", "cars_train.tgz")
        test = _found(dl_manager, root, "cars_test", "cars_test.tgz")
        labelled = "cars_test_annos_withlabels.mat"
        annotations = root / labelled
        if not annotations.exists():
            annotations = devkit / labelled
        names = _read(devkit / "cars_meta.mat")["class_names"]
        return [str(name.item()) for name in names.ravel()], {
            "train": _annotated(train, devkit / "cars_train_annos.mat"),
            "test": _annotated(test, annotations),
        }


def _annotated(images: epath.Path, annotations: epath.Path) -> Iterator[Photo]:
    """Yields the photos of a split, in the order of the annotations."""
    rows = _read(annotations)["annotations"].ravel()
    if "class" not in rows.dtype.names:
        raise ValueError(
            f"{annotations} holds no labels. For the test images, use the "
            "file cars_test_annos_withlabels.mat."
        )
    for row in rows:
        name = str(row["fname"].item())
        yield name, images / name, int(row["class"].item()) - 1


def _found(dl_manager, root, folder: str, archive: str) -> epath.Path:
    """Returns the unpacked folder, or extracts it from its archive."""
    if (root / folder).exists():
        return root / folder
    if (root / archive).exists():
        return dl_manager.extract(root / archive) / folder
    raise ValueError(
        f"Expected {root / folder} or {root / archive}, but neither exists. "
        "The official download no longer works, so place your own copy there."
    )


def _read(path: epath.Path) -> dict:
    import scipy.io

    if not path.exists():
        raise ValueError(f"Expected the file {path}. Received: no such file.")
    with path.open("rb") as file:
        return scipy.io.loadmat(file)
