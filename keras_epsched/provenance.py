"""What a model and a dataset say of themselves, beyond what they compute.

Three facts travel with the objects that they are about, as attributes. This
module is the only one that sets and reads those attributes:

- `model.value_range`: the pair of the lowest and the highest pixel value that
  a classifier takes. `keras_epsched.models.classifier` and
  `AdversarialTrainer` set it; the trainer and `evaluate` read it.
- `model.training_splits`: a tuple of the `SplitInfo` that a classifier was
  trained on. `AdversarialTrainer.fit` extends it; `evaluate` reads it, to warn
  of test images that were trained on.
- `dataset.split_info`: the `SplitInfo` of a dataset, or `None`.
  `keras_epsched.datasets` sets it; `fit` and `evaluate` read it.

How pixels are scaled for the network needs no attribute: that is a layer of
the classifier.

What is kept:

- In the `.keras` file of a classifier: none of them. After loading one, pass
  `value_range` and `trained_on` to `evaluate`. The scaling is kept.
- In the `.keras` file of an `AdversarialTrainer`: the range, in the trainer's
  configuration. Loading it sets the classifier's attribute again.
- In copies (`keras.models.clone_model`) and in what is built on a classifier:
  none of them.
- In what a `tf.data.Dataset` is transformed into (`map`, `take`): nothing.
  `keras_epsched.datasets.worker_rows` hands `split_info` on.
"""

import dataclasses

import keras

# Attributes of models and datasets, which users read as well.
VALUE_RANGE = "value_range"
TRAINING_SPLITS = "training_splits"
SPLIT_INFO = "split_info"


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """Which examples of which dataset a `tf.data.Dataset` holds.

    Every dataset that `load` returns carries one as its attribute
    `split_info`, so that a program can refuse to test on examples that it has
    trained on. `dataclasses.asdict` gives what belongs in a JSON file.

    The examples are numbers `start` to `stop` of the stored split `base`,
    counted in the order in which they are stored or, where `order` is not
    `"stored"`, in a seeded permutation of it. The digest identifies the
    permutation, so the few fields say exactly which images were chosen.

    Args:
        dataset: String. The dataset with its version, as `"digits/1.0.0"`;
            `"image_folder:<path>"` for a folder of images.
        split: String. The split in tfds' notation, as `"train[:80%]"`, where
            it has one; else as `"test[0:1000] stratified, seed 0"`.
        base: String. The stored split that `split` is a part of.
        start: Integer. Number of the first example within `base`.
        stop: Integer. Number after the last example within `base`.
        num_examples: Integer. `stop - start`.
        order: String. What the numbers count: `"stored"`, `"stratified"` or
            `"balanced"`.
        seed: Integer or `None`. The seed of the order.
        digest: String. Checksum of the order, empty for `"stored"`.

    Example:
    ```python
    data = keras_epsched.datasets.load("digits", image_size=(32, 32))
    print(data.train.split_info)  # digits/1.0.0 train[0:1038]
    data.train.split_info.overlaps(data.validation.split_info)  # False
    ```
    """

    dataset: str
    split: str
    base: str
    start: int
    stop: int
    num_examples: int
    order: str = "stored"
    seed: int | None = None
    digest: str = ""

    def overlaps(self, other: "SplitInfo") -> bool:
        """Says whether the two may share examples of one stored split.

        Args:
            other: `SplitInfo`. The split to compare with.

        Returns:
            `True` where at least one example is in both. Two parts of one
            stored split that are counted in different orders are said to
            overlap: two independent choices nearly always do. Different
            versions of a dataset count as different datasets.

        Example:
        ```python
        if data.train.split_info.overlaps(other.test.split_info):
            raise ValueError("The test images were trained on.")
        ```
        """
        if (self.dataset, self.base) != (other.dataset, other.base):
            return False
        if (self.order, self.digest) != (other.order, other.digest):
            return self.num_examples > 0 and other.num_examples > 0
        return self.start < other.stop and other.start < self.stop

    def __str__(self):
        text = f"{self.dataset} {self.base}[{self.start}:{self.stop}]"
        if self.order != "stored":
            text += f" {self.order}, seed {self.seed}, order {self.digest}"
        return text


def value_range_of(model: keras.Model) -> tuple[float, float] | None:
    """Returns the pixel range of a classifier, or `None` if it has none.

    Args:
        model: `keras.Model`.
    """
    known = getattr(model, VALUE_RANGE, None)
    return None if known is None else tuple(known)


def remember_value_range(
    model: keras.Model, value_range: tuple[float, float]
) -> None:
    """Notes on a classifier the pixel range that it takes.

    Args:
        model: `keras.Model`.
        value_range: Pair of the lowest and the highest pixel value.
    """
    setattr(model, VALUE_RANGE, tuple(value_range))


def splits_seen_by(model: keras.Model) -> tuple[SplitInfo, ...]:
    """Returns the splits that a classifier was trained on, in their order.

    Args:
        model: `keras.Model`.
    """
    return tuple(getattr(model, TRAINING_SPLITS, ()))


def remember_split(model: keras.Model, split: SplitInfo | None) -> None:
    """Notes on a classifier that it is trained on a split.

    Args:
        model: `keras.Model`.
        split: `SplitInfo`. Where it is `None`, as of data that say nothing of
            themselves, nothing is noted.

    Example:
    ```python
    remember_split(classifier, split_of(data.train))
    ```
    """
    if split is not None:
        setattr(model, TRAINING_SPLITS, (*splits_seen_by(model), split))


def split_of(dataset) -> SplitInfo | None:
    """Returns which examples a dataset holds, or `None` if it does not say.

    Args:
        dataset: Any object with batches.
    """
    return getattr(dataset, SPLIT_INFO, None)


def set_split(dataset, split: SplitInfo | None) -> None:
    """Notes on a dataset which examples it holds.

    Args:
        dataset: Object that takes attributes, as a `tf.data.Dataset`.
        split: `SplitInfo` or `None`.
    """
    setattr(dataset, SPLIT_INFO, split)
