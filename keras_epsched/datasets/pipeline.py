"""The tf.data pipelines: decode, resize, shuffle, augment, batch."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

AUGMENTATIONS = ("flip", "color", "rotation")
JITTER = 0.25
MAX_DEGREES = 2.0

# Bounds memory on datasets of millions, whose stored order is mixed already.
_SHUFFLE_BUFFER = 2**15


def checked_augmentations(augment: bool | Sequence[str]) -> tuple[str, ...]:
    """Returns the augmentations that `augment` stands for, in their order.

    Raises:
        ValueError: If a name is unknown.
    """
    if isinstance(augment, bool):
        return AUGMENTATIONS if augment else ()
    # A bare string is a sequence of letters, none of which is a name.
    unknown = [name for name in augment if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(
            "`augment` must be True, False or a sequence of names out of "
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

    Args are those of `training_batches`.

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
    """Batches the records, shuffled and augmented anew each epoch.

    What a batch holds is a function of the seed, the epoch and the batch's
    index. Each iteration is an epoch; the one after it is the next, unless the
    attribute `seek`, a function `(epoch, batch=0)`, has set another. From the
    middle of an epoch, the batches before `batch` are zeros (and, without a
    cache, nothing is decoded for them): whoever resumes a training passes over
    them.

    Args:
        records: `tf.data.Dataset` of pairs of encoded image and label.
        decode: Callable. Turns an encoded image into a `uint8` tensor.
        image_size: Pair of integers `(height, width)`.
        batch_size: Integer. Records that do not fill a batch are left out of
            the epoch.
        cache: Boolean. Whether to keep the resized images in memory.
        num_examples: Integer. The number of records.
        augmentations: Tuple of strings out of `AUGMENTATIONS`.
        seed: Integer. Seeds order and augmentation.

    Returns:
        `tf.data.Dataset` of `(images, labels)`.
    """
    import tensorflow as tf

    # Encoded images take a fraction of the memory in the buffer.
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
        # Of this graph: else the order depends on the global seed as well.
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
    """Keeps images in memory, all of them or none.

    Once, on a busy machine, a first look at a dataset that was broken off left
    a cache of 19 images, which tf.data took for the whole from then on. A
    stream that ends early is an error here, so that no cache is made of it.
    """
    import tensorflow as tf

    whole = tf.data.experimental.assert_cardinality(num_examples)
    return images.apply(whole).cache().apply(whole)


def _prepare(records, decode: Callable, image_size: tuple[int, int]):
    """Decodes and resizes; the images keep fractions, as float32."""
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
        seed: Integer tensor of shape `(2,)`. All randomness follows from it.
        augmentations: Tuple of strings out of `AUGMENTATIONS`.

    Returns:
        A tensor like `image`.
    """
    import tensorflow as tf

    # The same five numbers are drawn whatever is asked for.
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
    """Moves the image away from the anchor or towards it."""
    import tensorflow as tf

    factor = 1 + JITTER * (2 * draw - 1)
    return tf.clip_by_value(anchor + factor * (image - anchor), 0.0, 255.0)


def _rotated(image, angle):
    """Rotates about the centre; what comes in at the edges is reflected."""
    import tensorflow as tf

    height, width, _ = image.shape
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # For each output pixel: where in the input it comes from.
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
