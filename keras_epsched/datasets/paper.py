"""The datasets of the Epsilon-Scheduling paper, with its splits."""

import dataclasses
from collections.abc import Mapping

from keras_epsched.datasets.splits import PARTS, Part

_SEED = 0
_OUR_LISTS = (
    "The paper uses lists of images from other authors' files, which are not "
    "published with it. This package chooses splits of the same sizes with a "
    "fixed seed."
)


@dataclasses.dataclass(frozen=True)
class PaperDataset:
    """A dataset of [Ngnawé et al.](https://arxiv.org/abs/2509.23325).

    `keras_epsched.datasets.PAPER_DATASETS` maps each name to its
    `PaperDataset`. Use it to list the datasets and their sizes.

    Args:
        name: String. The name for `load`.
        stored: Tuple of strings. The tfds names under which the dataset may
            be prepared. `load` prepares the last one.
        num_classes: Integer. Number of classes.
        stored_sizes: Mapping from each stored split to its size. Empty if any
            size is accepted.
        parts: Mapping from `"train"`, `"validation"` and `"test"` to a `Part`.
        note: String. How the splits differ from those of the paper.
        citation: String. Authors and year of the dataset.

    Example:
    ```python
    for dataset in keras_epsched.datasets.PAPER_DATASETS.values():
        print(dataset.name, dataset.sizes)
    ```
    """

    name: str
    stored: tuple[str, ...]
    num_classes: int
    stored_sizes: Mapping[str, int]
    parts: Mapping[str, Part]
    note: str
    citation: str

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images in each part."""
        return {
            name: (part.stop or self.stored_sizes[part.base]) - part.start
            for name, part in self.parts.items()
        }

    def check(self, name: str, sizes: Mapping[str, int]) -> None:
        """Refuses stored data that differ from the data of the paper.

        Args:
            name: String. The stored dataset with its version.
            sizes: Mapping from each stored split to its size.

        Raises:
            ValueError: If the sizes differ from those of the dataset.
        """
        found = {split: sizes.get(split, 0) for split in self.stored_sizes}
        if found != dict(self.stored_sizes):
            raise ValueError(
                f"{name} does not have the number of images that the paper's "
                f"splits of {self.name!r} need. Expected: "
                f"{dict(self.stored_sizes)}. Received: {dict(sizes)}. To use "
                'the dataset\'s own splits, pass `splits="stratified"`.'
            )


def _cut(sizes: tuple[int, ...], order: str, seed: int) -> list[Part]:
    """Cuts parts of these sizes from `"train"`, one after the other."""
    edges = [0]
    for size in sizes:
        edges.append(edges[-1] + size)
    return [
        Part("train", start, stop, order, seed)
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def _parts(*parts: Part) -> dict[str, Part]:
    return dict(zip(PARTS, parts, strict=True))


PAPER_DATASETS: Mapping[str, PaperDataset] = {
    dataset.name: dataset
    for dataset in (
        PaperDataset(
            name="caltech256",
            stored=("caltech256",),
            num_classes=257,
            stored_sizes={"train": 30607},
            # 14649 = 57 x 257 and 771 = 3 x 257: 60 images of each class, as
            # is usual.
            parts=_parts(*_cut((14649, 771, 15187), "balanced", _SEED)),
            note=(
                "57 training and 3 validation images of each class. "
                f"{_OUR_LISTS}"
            ),
            citation="Griffin, Holub and Perona, 2007",
        ),
        PaperDataset(
            name="cub200",
            stored=("caltech_birds2011",),
            num_classes=200,
            stored_sizes={"train": 5994, "test": 5794},
            parts=_parts(*_cut((5394, 600), "stratified", _SEED), Part("test")),
            note=f"The official test set. {_OUR_LISTS}",
            citation="Wah et al., 2011",
        ),
        PaperDataset(
            name="stanford_dogs",
            stored=("stanford_dogs",),
            num_classes=120,
            stored_sizes={"train": 12000, "test": 8580},
            parts=_parts(
                *_cut((10800, 1200), "stratified", _SEED), Part("test")
            ),
            note=f"The official test set. {_OUR_LISTS}",
            citation="Khosla et al., 2011",
        ),
        PaperDataset(
            name="stanford_cars",
            stored=("cars196", "stanford_cars"),
            num_classes=196,
            stored_sizes={"train": 8144, "test": 8041},
            parts=_parts(
                *_cut((6922, 1222), "stratified", 42),
                Part("test", 0, 1000, "stratified", 0),
            ),
            note=(
                "85 % of the training images to train on and 15 % to validate "
                "(stratified, seed 42), and 1000 test images (stratified, "
                "seed 0), as in the code of arXiv 2508.14079. The rule is the "
                "same; the random numbers differ."
            ),
            citation="Krause et al., 2013",
        ),
        PaperDataset(
            name="fgvc_aircraft",
            stored=("fgvc_aircraft",),
            num_classes=100,
            stored_sizes={"train": 3334, "validation": 3333, "test": 3333},
            parts=_parts(
                Part("train"),
                Part("validation"),
                Part("test", 0, 1000, "stratified", 0),
            ),
            note=(
                "The official training and validation sets, and 1000 test "
                "images (stratified, seed 0) as in the code of arXiv "
                "2508.14079. The rule is the same; the random numbers differ."
            ),
            citation="Maji et al., 2013",
        ),
        PaperDataset(
            name="imagenette",
            stored=("imagenette",),
            num_classes=10,
            stored_sizes={"train": 9469, "validation": 3925},
            parts=_parts(
                *_cut((8522, 947), "stratified", _SEED), Part("validation")
            ),
            note=(
                "The paper states no sizes. This package uses a tenth of the "
                "training images for validation, and the official validation "
                "set for testing."
            ),
            citation="Howard, 2019",
        ),
    )
}


def of_name(name: str) -> PaperDataset | None:
    """Returns the paper's dataset of that name, if there is one.

    Args:
        name: String. A name for `load`, or a full name of tfds such as
            `"caltech_birds2011/0.2.0"`.

    Returns:
        A `PaperDataset` or `None`.
    """
    base = name.split("/")[0].split(":")[0]
    for dataset in PAPER_DATASETS.values():
        if base == dataset.name or base in dataset.stored:
            return dataset
    return None
