"""The tf.data pipelines, which decode, resize, shuffle, augment and batch."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

AUGMENTATIONS = ("flip", "color", "rotation")
JITTER = 0.25
MAX_DEGREES = 2.0

# Limits the memory for datasets of millions of images. Their stored order is
# mixed already.
_SHUFFLE_BUFFER = 2**15


def checked_augmentations(augment: bool | Sequence[str]) -> tuple[str, ...]:
    """Returns the augmentations of an argument `augment`, in their order.

    Raises:
        ValueError: If a name is unknown.
    """
    if isinstance(augment, bool):
        return AUGMENTATIONS if augment else ()
    # A string is a sequence of letters, so it is refused here too.
    unknown = [name for name in augment if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(
            "`augment` must be True, False or a list of names from "
            f"{AUGMENTATIONS}. Received: augment={augment!r}."
        )
    return tuple(name for name in AUGMENTATIONS if name in augment)


def evaluation_batches(
    records: "tf.data.Dataset",
    *,
    decode: Callable,
    image_size: tuple[int, int],
    batch_size: int,
    cache: bool,
    num_examples: int,
) -> "tf.data.Dataset":
    """Batches all records in their order; the last batch may be smaller.

    The arguments are those of `training_batches`.

    Returns:
        `tf.data.Dataset` of `(images, labels)`. Its attribute `is_cached` says
        whether the first pass fills a cache, which it must then read to the
        end.
    """
    import tensorflow as tf

    images = _prepare(records, decode, image_size)
    if cache:
        images = _cached(images, num_examples)
    batches = images.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    batches.is_cached = cache
    return batches


def training_batches(
    records: "tf.data.Dataset",
    *,
    decode: Callable,
    image_size: tuple[int, int],
    batch_size: int,
    cache: bool,
    num_examples: int,
    augmentations: tuple[str, ...],
    seed: int,
) -> "tf.data.Dataset":
    """Batches the records, shuffled and augmented differently in each epoch.

    The seed, the epoch and the index of a batch determine its contents. Each
    iteration over the dataset is one epoch, and the next iteration is the next
    epoch. The dataset's attribute `seek`, a function `(epoch, batch=0)`, sets
    the epoch of the next iteration. With `batch` above 0, the batches before it
    contain zeros (without a cache, nothing is decoded for them). A training
    that resumes skips these batches.

    Args:
        records: `tf.data.Dataset` of pairs of encoded image and label.
        decode: Callable. Turns an encoded image into a `uint8` tensor.
        image_size: Pair of integers `(height, width)`.
        batch_size: Integer. The epoch leaves out records that do not fill a
            batch.
        cache: Boolean. Whether to keep the resized images in memory.
        num_examples: Integer. The number of records.
        augmentations: Tuple of strings from `AUGMENTATIONS`.
        seed: Integer. Seed of the order and the augmentation.

    Returns:
        `tf.data.Dataset` of `(images, labels)`.
    """
    import tensorflow as tf

    # Without a cache, the shuffle buffer holds encoded images, which need a
    # fraction of the memory.
    kept = records
    if cache:
        kept = _cached(_prepare(records, decode, image_size), num_examples)
    with tf.device("CPU:0"):
        position = tf.Variable([0, 0], trainable=False, dtype=tf.int64)

    def begin(_):
        epoch, first = tf.unstack(tf.identity(position))
        position.assign(tf.stack([epoch + 1, tf.zeros_like(first)]))
        return epoch, first

    def epoch_of_batches(epoch, first):
        # Seeds this graph. Without it, the order would also depend on the
        # global seed.
        tf.random.set_seed(1)
        key = tf.random.stateless_uniform(
            [], (seed, epoch), minval=None, maxval=None, dtype=tf.int64
        )
        skipped = first * batch_size
        images = kept.shuffle(
            min(num_examples, _SHUFFLE_BUFFER),
            seed=key,
            reshuffle_each_iteration=False,
        ).skip(skipped)
        if not cache:
            images = _prepare(images, decode, image_size)
        if augmentations:
            places = tf.data.Dataset.range(skipped, num_examples)
            images = tf.data.Dataset.zip((images, places)).map(
                lambda example, place: (
                    augmented(example[0], (key, place), augmentations),
                    example[1],
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        images = images.batch(batch_size, drop_remainder=True)
        passed_over = tf.data.Dataset.from_tensors(
            tuple(tf.zeros(x.shape, x.dtype) for x in images.element_spec)
        )
        return passed_over.repeat(first).concatenate(images)

    batches = (
        tf.data.Dataset.range(1)
        .map(begin)
        .flat_map(epoch_of_batches)
        .apply(
            tf.data.experimental.assert_cardinality(num_examples // batch_size)
        )
        .prefetch(tf.data.AUTOTUNE)
    )
    batches.seek = lambda epoch, batch=0: position.assign([epoch, batch])
    return batches


def _cached(images, num_examples: int):
    """Caches images in memory: all of them or none.

    If reading stops early, tf.data may keep a cache with only some of the
    images, and then use it as if it were complete. This was seen once, with 19
    images, when the first pass over a dataset was stopped on a busy machine.
    So a stream that ends early is an error here, before or after the cache.
    """
    import tensorflow as tf

    whole = tf.data.experimental.assert_cardinality(num_examples)
    return images.apply(whole).cache().apply(whole)


def _prepare(records, decode: Callable, image_size: tuple[int, int]):
    """Decodes and resizes images to float32, without rounding."""
    import tensorflow as tf

    def prepare(encoded, label):
        image = tf.cast(decode(encoded), tf.float32)
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        image = tf.image.resize(image, image_size, "bilinear", antialias=True)
        return tf.clip_by_value(image, 0.0, 255.0), tf.cast(label, tf.int64)

    return records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)


def augmented(
    image: "tf.Tensor", seed: "tf.Tensor", augmentations: tuple[str, ...]
) -> "tf.Tensor":
    """Augments one image.

    Args:
        image: `float32` tensor of shape `(height, width, 3)` in `[0, 255]`.
        seed: Integer tensor of shape `(2,)`, the only source of randomness.
        augmentations: Tuple of strings from `AUGMENTATIONS`.

    Returns:
        A tensor with the shape and dtype of `image`.
    """
    import tensorflow as tf

    # Always draws all five numbers, so that an augmentation does not depend
    # on which others are chosen.
    flip, brightness, contrast, saturation, angle = tf.unstack(
        tf.random.stateless_uniform([5], tf.cast(seed, tf.int64))
    )
    if "flip" in augmentations:
        image = tf.where(flip < 0.5, tf.image.flip_left_right(image), image)
    if "color" in augmentations:
        image = _blend(image, 0.0, brightness)
        mean_grey = tf.reduce_mean(tf.image.rgb_to_grayscale(image))
        image = _blend(image, mean_grey, contrast)
        image = _blend(image, tf.image.rgb_to_grayscale(image), saturation)
    if "rotation" in augmentations:
        degrees = MAX_DEGREES * (2 * angle - 1)
        image = _rotated(image, degrees * (math.pi / 180))
    return tf.clip_by_value(image, 0.0, 255.0)


def _blend(image, anchor, draw):
    """Moves the pixels towards the anchor or away from it."""
    import tensorflow as tf

    factor = 1 + JITTER * (2 * draw - 1)
    return tf.clip_by_value(anchor + factor * (image - anchor), 0.0, 255.0)


def _rotated(image, angle):
    """Rotates about the centre, and fills the corners by reflection."""
    import tensorflow as tf

    height, width, _ = image.shape
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Maps each output pixel to its place in the input.
    transform = tf.stack(
        [
            cosine,
            -sine,
            centre_x - cosine * centre_x + sine * centre_y,
            sine,
            cosine,
            centre_y - sine * centre_x - cosine * centre_y,
            0.0,
            0.0,
        ]
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )[0]
