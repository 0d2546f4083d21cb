"""The `fgvc_aircraft` dataset, which tfds does not have."""

import io
from collections.abc import Iterator

from etils import epath

from keras_epsched.datasets.tfds_builders import Photo, PhotoBuilder

URL = (
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
    "fgvc-aircraft-2013b.tar.gz"
)
BANNER = 20
_FOLDER = "fgvc-aircraft-2013b/data"
# The archive's name of each split.
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_CITATION = """\
@techreport{maji13fine-grained,
  title = {Fine-Grained Visual Classification of Aircraft},
  author = {Maji, S. and Kannala, J. and Rahtu, E. and Blaschko, M. and
            Vedaldi, A.},
  year = {2013},
  archiveprefix = {arXiv},
  eprint = {1306.5151},
}
"""


class Builder(PhotoBuilder):
    """10000 photos of 100 variants of aircraft, in the official splits.

    There are 3334 images for training, 3333 for validation and 3333 for test.
    The lowest 20 pixels of each photo are a copyright banner. It is cut off,
    because a model could learn classes from it. The rest is encoded again
    with the photo's own quantisation tables, so it differs only by rounding.

    The label is the number of the line in `variants.txt`. The variant is the
    finest level that the authors evaluate. `family` and `manufacturer` are not
    stored.

    No checksum is recorded yet, so the download is not verified. `tfds build
    --register_checksums` in this folder records one.

    Example:
    ```python
    data = keras_epsched.datasets.load(
        "fgvc_aircraft", image_size=(224, 224), download=True
    )
    ```
    """

    RELEASE_NOTES = {"1.0.0": "Initial release; the banner is cut off."}
    DESCRIPTION = (
        "Photos of aircraft of 100 variants, without the copyright banner."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
    CITATION = _CITATION

    def _photos(self, dl_manager):
        folder = dl_manager.download_and_extract(URL) / _FOLDER
        variants = (folder / "variants.txt").read_text().splitlines()
        names = [name.strip() for name in variants if name.strip()]
        return names, {
            split: _listed(folder, theirs) for split, theirs in _SPLITS.items()
        }


def _listed(folder: epath.Path, split: str) -> Iterator[Photo]:
    """Yields the photos of a split, in the order of the archive's list."""
    lines = (folder / f"images_variant_{split}.txt").read_text()
    for line in lines.splitlines():
        # Class names may contain spaces: "1025794 Boeing 717".
        number, _, variant = line.strip().partition(" ")
        if not number:
            continue
        name = f"{number}.jpg"
        image = without_banner(folder / "images" / name)
        yield name, image, variant.strip()


def without_banner(path: epath.Path) -> io.BytesIO:
    """Cuts the banner off a JPEG file.

    Args:
        path: Path.

    Returns:
        A file object with a JPEG file of the rest of the photo.
    """
    from PIL import Image, JpegImagePlugin

    encoded = io.BytesIO()
    with path.open("rb") as file, Image.open(file) as image:
        width, height = image.size
        # The grid of JPEG blocks starts at the top, so cutting at the bottom
        # keeps it. The coefficients are then rounded to the same values.
        image.crop((0, 0, width, height - BANNER)).save(
            encoded,
            "JPEG",
            qtables=image.quantization,  # type: ignore[attr-defined]
            subsampling=JpegImagePlugin.get_sampling(image),
        )
    encoded.seek(0)
    return encoded
