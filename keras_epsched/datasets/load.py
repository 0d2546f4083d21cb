"""`load`: a name or a folder to batches for training and evaluation."""

import math
import os
from collections.abc import Mapping, Sequence

from keras_epsched import provenance
from keras_epsched.datasets import (
    builders,
    embedded,
    labels,
    paper,
    pipeline,
)
from keras_epsched.datasets.arguments import checked_batch_size, checked_size
from keras_epsched.datasets.batches import ImageBatches
from keras_epsched.datasets.image_data import ImageData
from keras_epsched.datasets.sources import Source
from keras_epsched.datasets.splits import PARTS, Part, own_parts, resolve

_CACHE_BYTES = 2**31
# Records whose labels are read without asking: a few seconds a GiB.
_LABEL_BYTES = 2**33
_VALIDATION_SPLIT = 0.2
_SPLITS = ("paper", "stratified", "contiguous")


def load(
    name: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    batch_size: int = 64,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    splits: str | None = None,
    validation_split: float | None = None,
    test_split: float | None = None,
    test_examples: int | None = None,
    split_seed: int = 0,
    augment: bool | Sequence[str] = False,
    seed: int = 0,
    cache: bool | str = "auto",
    skip_corrupt: bool = False,
) -> ImageData:
    """Loads an image classification dataset.

    Grey images are repeated to three channels and all are squashed to
    `image_size` (bilinear, antialiased). Training batches are shuffled anew
    each epoch and may be augmented; validation and test batches are never
    augmented and always come in the same order. What comes out is what an
    attack perturbs: "pixel space" means the resized, augmented image, clipped
    to `[0, 255]`.

    The datasets of the paper (`PAPER_DATASETS`) come with its splits. Of any
    other, the own `"validation"` split is used where there is one; where
    there is no `"test"` split, it is the test set, as in ImageNet's case.
    Otherwise, `validation_split` of `"train"` is held out, stratified: every
    class in proportion. Where there is nothing to test on, `test_split` of it
    is, too.

    Stored labels are read for that, and to count the classes: images without
    a label, classes without a training image and classes 10 times as
    frequent as others are reported. Nothing is decoded, but the records are
    read: a few seconds a GiB. Where there are more than 8 GiB of them, nothing
    is reported (ask for `ImageData.class_counts`), and the end of `"train"` is
    held out, which tfds stores in the order of a hash, so that it holds the
    classes in about the same proportion.

    Where TensorFlow or tfds is not installed, `"digits"`, `"letters"` and
    folders of images are read by Python and Pillow instead: the same examples,
    in the same splits, in a `keras.utils.PyDataset` that shuffles otherwise
    (see `ImageBatches`, which takes other data). Pixels are the same but for
    JPEG files, which TensorFlow decodes less accurately: by a grey level.

    Args:
        name: String or path. One of:
            - `"digits"` or `"letters"`, which need no network and are
              prepared on first use;
            - a dataset of the paper: `"caltech256"`, `"cub200"`,
              `"stanford_dogs"`, `"stanford_cars"`, `"fgvc_aircraft"`,
              `"imagenette"`;
            - a tfds name, as `"cifar10"`, `"name/config"` or
              `"name:version"`;
            - a folder that tfds prepared, with or without its version (an
              existing folder is preferred to a tfds name);
            - a folder of images laid out as `split/class/image.png` (or
              `.jpg`, `.jpeg`), with the splits `train` and `test`; or as
              `class/image.png`, which are all `"train"` and need
              `test_split`. Sub-folders of a class belong to it.
        image_size: Pair of integers `(height, width)`.
        batch_size: Integer. Images in a batch.
        data_dir: Path. Where tfds keeps prepared datasets; its own default
            if `None`. Not used for folders.
        download: Boolean. Whether a tfds dataset that is not prepared may be
            downloaded. Prepare it once before several processes load it.
        splits: String or `None`. `"paper"` for those of the paper;
            `"stratified"` or `"contiguous"` for the dataset's own, where a
            validation part that is not stored is a stratified choice or the
            end of `"train"` as stored. By default, those of the paper where
            it uses the dataset and neither of the next two arguments is
            given; contiguous for `"digits"` and `"letters"`; else stratified.
        validation_split: Float in `(0, 1)`. The share of `"train"` to hold
            out where there is no `"validation"` split. Defaults to 0.2.
        test_split: Float in `(0, 1)`. The share of `"train"` to test on, of a
            dataset with neither a `"test"` nor a `"validation"` split, as
            `"tf_flowers"`. Such a dataset needs it.
        test_examples: Integer. Size of a stratified subsample of the test
            images, all of which are taken by default.
        split_seed: Integer. Seeds what is stratified. It is part of the
            definition of the data: do not vary it with the training's seed.
        augment: Boolean or sequence of strings. Any of `"flip"` (horizontal,
            half of the images), `"color"` (brightness, contrast and
            saturation by a factor in `[0.75, 1.25]` each) and `"rotation"`
            (up to 2 degrees); `True` for all three. Training images only.
        seed: Integer. Seeds shuffling and augmentation: what a batch of
            training images holds follows from it, the epoch and the batch's
            index.
        cache: Boolean or `"auto"`. Whether to keep the resized images in
            memory (600 KB for one of 224 x 224); `"auto"` where all three
            splits together take at most 2 GiB. Without it images are decoded
            and resized again each epoch.
        skip_corrupt: Boolean. Whether to leave out the files of an image
            folder that cannot be used (corrupt, 16 bits, no PNG or JPEG)
            instead of refusing the folder. They are counted and named in a
            warning and in `ImageData.skipped`.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: If an argument is out of range, the dataset is unknown,
            not prepared or no image classification, a split or labels of
            training images are missing, a class folder is empty, files cannot
            be used, or the training images do not fill one batch.
        ImportError: If the dataset needs tfds, and that or TensorFlow is not
            installed.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    images, labels = next(iter(data.train))
    ```

    A dataset of the paper to download, with its splits and augmentations:

    ```python
    data = keras_epsched.datasets.load(
        "stanford_dogs",
        image_size=(224, 224),
        download=True,
        augment=True,
    )
    ```

    Any other, with a tenth to validate and 1000 images to test on:

    ```python
    data = keras_epsched.datasets.load(
        "oxford_iiit_pet",
        image_size=(224, 224),
        validation_split=0.1,
        test_examples=1000,
    )
    ```
    """
    image_size = checked_size(image_size)
    batch_size = checked_batch_size(batch_size)
    shares = {"validation_split": validation_split, "test_split": test_split}
    for argument, share in shares.items():
        if share is not None and not 0 < share < 1:
            raise ValueError(
                f"`{argument}` must be a share of the training images, "
                "between 0 and 1 and neither of them. "
                f"Received: {argument}={share}."
            )
    if splits is not None and splits not in _SPLITS:
        raise ValueError(
            f"`splits` must be one of {_SPLITS} or None. Received: "
            f"splits={splits!r}."
        )
    augmentations = pipeline.checked_augmentations(augment)

    source = builders.find(
        name, data_dir=data_dir, download=download, skip_corrupt=skip_corrupt
    )
    rules = _rules(
        source, splits, validation_split, test_split, test_examples, split_seed
    )
    parts = {part: resolve(source, rule) for part, rule in rules.items()}
    sizes = {part: info.num_examples for part, (info, _) in parts.items()}
    if sizes["train"] < batch_size:
        raise ValueError(
            f"The {sizes['train']} training images of {source.name} do "
            f"not fill one batch. Received: batch_size={batch_size}. Use a "
            "smaller batch."
        )
    if cache == "auto":
        pixels = math.prod(image_size) * 3
        cache = sum(sizes.values()) * pixels * 4 <= _CACHE_BYTES

    data = ImageData(
        **{
            part: _batches(
                source,
                *parts[part],
                train=part == "train",
                augmentations=augmentations,
                seed=seed,
                image_size=image_size,
                batch_size=batch_size,
                cache=cache,
            )
            for part in PARTS
        },
        num_classes=len(source.class_names),
        class_names=source.class_names,
        image_size=image_size,
        name=source.name,
        skipped=source.skipped,
        count=lambda part: labels.count(
            source, parts[part][0].base, parts[part][1]
        ),
    )
    bases = {info.base for info, _ in parts.values()}
    quick = sum(source.split_bytes[base] for base in bases) <= _LABEL_BYTES
    # Nothing is missing in those of this package.
    if quick and source.name.split("/")[0] not in embedded.NAMES:
        labels.check(source.name, source.class_names, data.class_counts, sizes)
    return data


def _batches(source, info, numbers, *, train, augmentations, seed, **arguments):
    """A `tf.data.Dataset`, or an `ImageBatches` of what needs none."""
    records = source.read(info.base, numbers)
    if source.decode is None:
        images = ImageBatches(
            records,
            shuffle=train,
            augment=augmentations if train else (),
            seed=seed,
            threads=os.cpu_count() or 1,
            **arguments,
        )
    elif train:
        images = pipeline.training_batches(
            records,
            decode=source.decode,
            num_examples=len(numbers),
            augmentations=augmentations,
            seed=seed,
            **arguments,
        )
    else:
        images = pipeline.evaluation_batches(
            records,
            decode=source.decode,
            num_examples=len(numbers),
            **arguments,
        )
    provenance.set_split(images, info)
    return images


def _rules(
    source: Source,
    splits: str | None,
    validation_split: float | None,
    test_split: float | None,
    test_examples: int | None,
    seed: int,
) -> Mapping[str, Part]:
    """What the arguments of `load` say of the splits."""
    of_paper = paper.of_name(source.name)
    shares = validation_split, test_split, test_examples
    chosen = any(each is not None for each in shares)
    if splits == "paper" and (of_paper is None or chosen or seed):
        raise ValueError(
            'splits="paper" is for the datasets '
            f"{', '.join(paper.PAPER_DATASETS)}, without `validation_split`, "
            "`test_split`, `test_examples` and `split_seed`, which it decides. "
            f"Received: {source.name}, validation_split={validation_split}, "
            f"test_split={test_split}, test_examples={test_examples}, "
            f"split_seed={seed}."
        )
    if of_paper and (splits == "paper" or not (splits or chosen or seed)):
        of_paper.check(source.name, source.split_sizes)
        return of_paper.parts
    if splits is None:
        # The two were split so before there was another way, and their
        # versions stand for that; of large ones the labels are expensive.
        contiguous = (
            source.name.split("/")[0] in embedded.NAMES
            or source.split_bytes.get("train", 0) > _LABEL_BYTES
        )
        splits = "contiguous" if contiguous else "stratified"
    return own_parts(
        source,
        _VALIDATION_SPLIT if validation_split is None else validation_split,
        test_examples,
        stratify=splits == "stratified",
        seed=seed,
        test_split=test_split,
    )
