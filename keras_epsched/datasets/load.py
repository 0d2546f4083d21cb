"""`load` turns a name or a folder into training and evaluation batches."""

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
# Labels are counted without asking up to this size of the records. Reading
# takes a few seconds per GiB.
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
    """Loads an image classification dataset for training and evaluation.

    Use it to get training, validation and test batches from a tfds dataset,
    or from a folder of your own images. For other data, use `ImageBatches` or
    any `tf.data.Dataset`.

    **Images.** Grey images are repeated to three channels. All images are
    resized to `image_size` (bilinear, antialiased) without keeping the aspect
    ratio. Training batches are shuffled in each epoch, and augmented if you
    ask for it. Validation and test batches are never augmented and always
    have the same order. An attack perturbs these resized (and augmented)
    images, clipped to `[0, 255]`.

    **Splits.** A dataset of the paper (`PAPER_DATASETS`) has the paper's
    splits. Any other dataset is split by these rules:

    - With stored `"validation"` and `"test"` splits, both are used.
    - With only a `"test"` split, the share `validation_split` of `"train"` is
      held out for validation.
    - With only a `"validation"` split, as in ImageNet, that split becomes the
      test set, and the share `validation_split` of `"train"` is held out for
      validation.
    - With neither, pass `test_split`. That share of `"train"` is held out too,
      as the test set.

    A held-out share is stratified: it contains every class in proportion. If
    `"train"` has more than 8 GiB of records, the share is the end of
    `"train"` instead. tfds stores examples in the order of a hash, so that
    end holds the classes in about the same proportion.

    **Checks.** `load` reads the labels and warns about unlabelled test
    images, about classes without a training image, and if the most frequent
    class has more than 10 times the images of the rarest. It decodes no image,
    but reads the records, which takes a few seconds per GiB. It does not check
    datasets with more than 8 GiB of records; for those, print
    `ImageData.class_counts`.

    **Without TensorFlow or tfds**, `"digits"`, `"letters"` and folders of
    images are read with Python and Pillow. The examples and the splits are the
    same; the shuffled order differs. Pixels are equal except in JPEG files,
    which TensorFlow decodes less accurately (by a grey level). The
    datasets are then `ImageBatches` instead of `tf.data.Dataset`.

    Args:
        name: String or path. One of:

            - `"digits"` or `"letters"`. They need no download and are
              prepared on first use.
            - A dataset of the paper: `"caltech256"`, `"cub200"`,
              `"stanford_dogs"`, `"stanford_cars"`, `"fgvc_aircraft"` or
              `"imagenette"`.
            - A tfds name, such as `"cifar10"`, `"name/config"` or
              `"name:version"`. If a folder with that path exists, the folder
              is used.
            - A folder that tfds prepared, with or without its version.
            - A folder of images with the layout `split/class/image.png` (or
              `.jpg`, `.jpeg`) and the splits `train` and `test`.
            - A folder of images with the layout `class/image.png`. All images
              are in `"train"`, so it needs `test_split`. Images in a
              sub-folder of a class belong to the class.
        image_size: Pair of integers `(height, width)`, in pixels.
        batch_size: Integer. Number of images in a batch.
        data_dir: Path. The folder where tfds keeps prepared datasets. `None`
            uses the default of tfds. Not used if `name` is a folder.
        download: Boolean. Whether a tfds dataset that is not prepared may be
            downloaded. Prepare it once before several processes load it.
        splits: String or `None`. `"paper"` uses the splits of the paper.
            `"stratified"` and `"contiguous"` use the dataset's own splits; a
            held-out share of `"train"` is then stratified, or the end of
            `"train"` as stored. `None` chooses `"paper"` for a dataset of the
            paper if none of `validation_split`, `test_split`, `test_examples`
            and `split_seed` is set; `"contiguous"` for `"digits"`, `"letters"`
            and more than 8 GiB of training records; and `"stratified"`
            otherwise.
        validation_split: Float in `(0, 1)`. The share of `"train"` to hold
            out for validation if the rules above need it. Defaults to 0.2.
        test_split: Float in `(0, 1)`. The share of `"train"` to hold out as
            the test set. Only for a dataset with neither a `"test"` nor a
            `"validation"` split, such as `"tf_flowers"`, which needs it.
        test_examples: Integer. Size of a stratified sample of the test
            images. `None` uses all test images.
        split_seed: Integer. Seed of stratified choices. It is part of the
            definition of the data, so keep it the same in runs that you
            compare, also if they train with different seeds.
        augment: Boolean or sequence of strings. Augmentations of the training
            images: `"flip"` (horizontal, half of the images), `"color"`
            (brightness, contrast and saturation, each by a factor in
            `[0.75, 1.25]`) and `"rotation"` (up to 2 degrees). `True` uses
            all three.
        seed: Integer. Seed of shuffling and augmentation. The seed, the epoch
            and the index of a batch determine its contents.
        cache: Boolean or `"auto"`. Whether to keep the resized images in
            memory (600 KB for an image of 224 x 224). `"auto"` does so if all
            three parts together need at most 2 GiB. Without a cache, images
            are decoded and resized in each epoch.
        skip_corrupt: Boolean. Whether to leave out the files of an image
            folder that cannot be used (damaged, 16 bits per channel, neither
            PNG nor JPEG) instead of refusing the folder. A warning and
            `ImageData.skipped` name these files.

    Returns:
        An `ImageData` with the datasets `train`, `validation` and `test`.

    Raises:
        ValueError: If an argument is out of range; if the dataset is unknown,
            is not prepared, or does not consist of images with one label each;
            if a split or the labels of training images are missing; if a class
            folder is empty or files cannot be used; or if the training images
            do not fill one batch.
        ImportError: If the dataset needs tfds, and tfds or TensorFlow is not
            installed.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    images, labels = next(iter(data.train))
    ```

    Download a dataset of the paper, and use its splits and augmentations:

    ```python
    data = keras_epsched.datasets.load(
        "stanford_dogs",
        image_size=(224, 224),
        download=True,
        augment=True,
    )
    ```

    Use another dataset: a tenth of the training images for validation, and
    1000 test images:

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
                f"`{argument}` must be a share of the training images: above "
                f"0 and below 1. Received: {argument}={share}."
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
    # The datasets of this package need no check: no label is missing.
    if quick and source.name.split("/")[0] not in embedded.NAMES:
        labels.check(source.name, source.class_names, data.class_counts, sizes)
    return data


def _batches(source, info, numbers, *, train, augmentations, seed, **arguments):
    """Returns a `tf.data.Dataset`, or an `ImageBatches` for arrays."""
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
    """Returns the rule for each part that the arguments of `load` ask for."""
    of_paper = paper.of_name(source.name)
    shares = validation_split, test_split, test_examples
    chosen = any(each is not None for each in shares)
    if splits == "paper" and (of_paper is None or chosen or seed):
        raise ValueError(
            'splits="paper" is for the datasets '
            f"{', '.join(paper.PAPER_DATASETS)}. It fixes `validation_split`, "
            "`test_split`, `test_examples` and `split_seed`, so do not pass "
            f"these with it. Received: {source.name}, "
            f"validation_split={validation_split}, test_split={test_split}, "
            f"test_examples={test_examples}, split_seed={seed}."
        )
    if of_paper and (splits == "paper" or not (splits or chosen or seed)):
        of_paper.check(source.name, source.split_sizes)
        return of_paper.parts
    if splits is None:
        # `digits` and `letters` keep the splits of their first release. In
        # large datasets, reading the labels takes too long.
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
