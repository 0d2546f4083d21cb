"""The `caltech256` dataset, which tfds does not have."""

from collections.abc import Iterator

from etils import epath

from keras_epsched.datasets.tfds_builders import Photo, PhotoBuilder

URL = (
    "https://data.caltech.edu/records/nyy15-4j048/files/"
    "256_ObjectCategories.tar"
)
_FOLDER = "256_ObjectCategories"
# The archive also contains a few files that do not belong to the dataset.
_CLASSES = "[0-9][0-9][0-9].*"
_IMAGES = "[0-9][0-9][0-9]_[0-9][0-9][0-9][0-9].jpg"
_CITATION = """\
@techreport{griffin2007caltech,
  title = {Caltech-256 Object Category Dataset},
  author = {Griffin, Gregory and Holub, Alex and Perona, Pietro},
  institution = {California Institute of Technology},
  number = {7694},
  year = {2007},
  doi = {10.22002/D1.20087},
}
"""


class Builder(PhotoBuilder):
    """30607 photos: 256 categories of objects, and one of clutter.

    The archive has one split, `train`, from which `load` makes the three
    splits of the paper. The label is the archive's number of the category
    minus one. The class names are those of the archive, without the number.

    No checksum is recorded yet, so the download is not verified. `tfds build
    --register_checksums` in this folder records one.

    Example:
    ```python
    data = keras_epsched.datasets.load(
        "caltech256", image_size=(224, 224), download=True
    )
    ```
    """

    DESCRIPTION = (
        "Photos of objects of 256 categories and of clutter, at least 80 of "
        "each, of many sizes."
    )
    HOMEPAGE = "https://data.caltech.edu/records/nyy15-4j048"
    CITATION = _CITATION
    ENCODING = None

    def _photos(self, dl_manager):
        folder = dl_manager.download_and_extract(URL) / _FOLDER
        classes = sorted(folder.glob(_CLASSES))
        names = [each.name.partition(".")[2] for each in classes]
        return names, {"train": _labelled(classes)}


def _labelled(classes: list[epath.Path]) -> Iterator[Photo]:
    for label, folder in enumerate(classes):
        for path in sorted(folder.glob(_IMAGES)):
            yield path.name, path, label
