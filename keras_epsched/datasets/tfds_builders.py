"""Base classes of the tfds builders of this package.

They are not registered with tfds, because tfds would list them as datasets.
"""

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import tensorflow_datasets as tfds

# File name, file, and number or name of the class.
Photo = tuple[str, Any, int | str]


class OfflineBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Small images that Python makes, without a download.

    Attributes:
        EXAMPLES: Module with `SHAPE`, `CLASS_NAMES`, `SPLIT_SIZES` and
            `generate(split)`, which yields key, image and label.
        DESCRIPTION: String.
        HOMEPAGE: String or `None`.
    """

    EXAMPLES: ModuleType
    DESCRIPTION: str
    HOMEPAGE: str | None = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=self.EXAMPLES.SHAPE),
                    "label": self._label(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
        )

    def _label(self) -> tfds.features.ClassLabel:
        return tfds.features.ClassLabel(names=list(self.EXAMPLES.CLASS_NAMES))

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {
            split: self._generate_examples(split)
            for split in self.EXAMPLES.SPLIT_SIZES
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        for key, image, label in self.EXAMPLES.generate(split):
            yield key, {"image": image, "label": label}


class PhotoBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Photos of an archive, each with its file name and a label.

    Attributes:
        DESCRIPTION: String.
        HOMEPAGE: String.
        CITATION: String, in BibTeX.
        ENCODING: String or `None`. The format of the files, if all have the
            same.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    DESCRIPTION: str
    HOMEPAGE: str
    CITATION: str
    ENCODING: str | None = "jpeg"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format=self.ENCODING),
                    "image/file_name": tfds.features.Text(),
                    # The names are read from the archive.
                    "label": tfds.features.ClassLabel(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
        )

    def _photos(
        self, dl_manager
    ) -> tuple[list[str], dict[str, Iterable[Photo]]]:
        """Returns the names of the classes, and the photos of each split."""
        raise NotImplementedError

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        names, photos = self._photos(dl_manager)
        self.info.features["label"].names = names
        return {
            split: self._generate_examples(each)
            for split, each in photos.items()
        }

    def _generate_examples(
        self, photos: Iterable[Photo]
    ) -> Iterator[tuple[str, dict]]:
        for name, image, label in photos:
            yield (
                name,
                {"image": image, "image/file_name": name, "label": label},
            )
