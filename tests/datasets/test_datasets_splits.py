"""Which images make up a split: the paper's, stratified, recorded."""

import dataclasses
import pathlib
import re
import warnings

import numpy as np
import pytest

from keras_epsched import datasets
from keras_epsched.datasets import paper, sources
from keras_epsched.datasets.splits import (
    Part,
    own_parts,
    permutation,
    resolve,
)

PARTS = ("train", "validation", "test")
# Ngnawe et al., 2026; Imagenette's are ours.
PAPER_SIZES = {
    "caltech256": (257, 14649, 771, 15187),
    "cub200": (200, 5394, 600, 5794),
    "stanford_dogs": (120, 10800, 1200, 8580),
    "stanford_cars": (196, 6922, 1222, 1000),
    "fgvc_aircraft": (100, 3334, 3333, 1000),
    "imagenette": (10, 8522, 947, 3925),
}


def fake(labels, name="toy/1.0.0", num_classes=None):
    """A source that has labels only."""
    labels = {split: np.asarray(each) for split, each in labels.items()}
    if num_classes is None:
        num_classes = 1 + max(int(each.max()) for each in labels.values())
    return sources.Source(
        name=name,
        class_names=tuple(str(i) for i in range(num_classes)),
        split_sizes={split: len(each) for split, each in labels.items()},
        split_bytes=dict.fromkeys(labels, 0),
        read=None,
        labels=labels.get,
        content=lambda split: b"",
        decode=None,
    )


def uneven(size, num_classes, smallest=0):
    """Shuffled labels of classes that differ in size."""
    generator = np.random.default_rng(size)
    weights = generator.uniform(0.7, 1.3, num_classes)
    rest = size - smallest * num_classes
    drawn = generator.choice(num_classes, rest, p=weights / weights.sum())
    labels = np.concatenate(
        [drawn, np.repeat(np.arange(num_classes), smallest)]
    )
    return generator.permutation(labels)


@pytest.mark.parametrize("name", PAPER_SIZES)
def test_the_paper_has_these_sizes(name):
    num_classes, *sizes = PAPER_SIZES[name]
    dataset = datasets.PAPER_DATASETS[name]
    assert list(dataset.sizes) == list(PARTS)
    assert list(dataset.sizes.values()) == sizes
    assert dataset.num_classes == num_classes
    source = fake(
        {
            split: uneven(size, num_classes, smallest=20)
            for split, size in dataset.stored_sizes.items()
        }
    )
    dataset.check("x", source.split_sizes)
    found = {
        part: resolve(source, rule) for part, rule in dataset.parts.items()
    }
    for part, size in zip(PARTS, sizes, strict=True):
        info, numbers = found[part]
        assert info.num_examples == len(set(numbers)) == size
        assert (np.diff(numbers) > 0).all(), "not in stored order"
        labels = source.labels(info.base)
        counts = np.bincount(labels[numbers], minlength=num_classes)
        if info.order == "stratified":
            quota = np.bincount(labels) * size / len(labels)
            assert np.abs(counts - quota).max() < 1.01
        if info.order == "balanced" and part != "test":
            assert set(counts) == {size // 257}
    for one in PARTS:
        for other in PARTS:
            shared = found[one][0].base == found[other][0].base and set(
                found[one][1]
            ) & set(found[other][1])
            assert found[one][0].overlaps(found[other][0]) == bool(shared)
            assert bool(shared) == (one == other)
    if name == "stanford_cars":
        seeds = [rule.seed for rule in dataset.parts.values()]
        assert seeds == [42, 42, 0]
    if name in ("caltech256", "stanford_dogs", "cub200"):
        assert "not published" in dataset.note


def test_the_documentation_lists_them():
    page = pathlib.Path(__file__).parents[2] / "docs/how-to/data.md"
    text = page.read_text(encoding="utf-8")
    for name, dataset in datasets.PAPER_DATASETS.items():
        sizes = " / ".join(str(size) for size in dataset.sizes.values())
        (row,) = re.findall(rf"(?m)^\| `{name}` .*$", text)
        assert f"| {dataset.num_classes} | {sizes} |" in row
        assert all(
            f"`{each}`" in row or "this package" in row
            for each in dataset.stored
        )


def test_paper_names():
    for name, dataset in datasets.PAPER_DATASETS.items():
        for each in (name, f"{dataset.stored[0]}/1.0.0"):
            assert paper.of_name(each) is dataset
    assert paper.of_name("cars196:2.1.0").name == "stanford_cars"
    assert paper.of_name("caltech101") is None
    assert paper.of_name("image_folder:/data/cub200") is None


def test_stanford_dogs_are_ninety_and_ten_a_class():
    source = fake({"train": np.repeat(np.arange(120), 100), "test": [0]})
    rules = datasets.PAPER_DATASETS["stanford_dogs"].parts
    for part, each in (("train", 90), ("validation", 10)):
        _, numbers = resolve(source, rules[part])
        assert set(np.bincount(source.labels("train")[numbers])) == {each}


def test_an_order_is_pinned():
    """What reports name by seed must stay what it is."""
    labels = np.array([0, 1, 0, 1, 0, 0, 2, 0])
    order = permutation(labels, "stratified", 0).tolist()
    assert order == PINNED_STRATIFIED
    order = permutation(labels, "balanced", 0).tolist()
    assert order == PINNED_BALANCED
    info, _ = resolve(fake({"train": labels}), Part("train", 0, 4, "balanced"))
    assert info.digest == PINNED_DIGEST


PINNED_STRATIFIED = [2, 3, 0, 7, 6, 4, 1, 5]
PINNED_BALANCED = [3, 6, 2, 0, 1, 7, 4, 5]
PINNED_DIGEST = "6c079944cd7c75bb"


@pytest.mark.parametrize("order", ["stratified", "balanced"])
def test_orders_are_seeded_permutations(order):
    labels = uneven(500, 7)
    first = permutation(labels, order, 3)
    assert sorted(first) == list(range(500))
    np.testing.assert_array_equal(first, permutation(labels, order, 3))
    assert (first != permutation(labels, order, 4)).any()
    # Not the first images of each class, as they are stored.
    assert not (np.diff(first[labels[first] == 0]) > 0).all()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.345])
def test_stratified_share(share):
    source = fake({"train": uneven(1000, 8), "test": [0, 1]})
    rules = own_parts(source, share, None, stratify=True, seed=1)
    train, validation = (resolve(source, rules[part]) for part in PARTS[:2])
    assert validation[0].num_examples == round(1000 * share)
    assert sorted([*train[1], *validation[1]]) == list(range(1000))
    labels = source.labels("train")
    quota = share * np.bincount(labels)
    assert np.abs(np.bincount(labels[validation[1]]) - quota).max() < 1.01
    assert not train[0].overlaps(validation[0])
    # A larger share of the same seed contains the smaller one.
    wider = own_parts(source, 0.5, None, stratify=True, seed=1)
    wider_info, wider_numbers = resolve(source, wider["validation"])
    assert set(validation[1]) < set(wider_numbers)
    assert wider_info.overlaps(train[0])
    # Another seed is another choice, as far as one can tell.
    other = own_parts(source, share, None, stratify=True, seed=2)
    assert resolve(source, other["validation"])[0].overlaps(train[0])


def test_a_class_of_one_image_stays_in_the_training():
    labels = np.array([0] * 50 + [1] * 50 + [2, 3, 4, 4])
    source = fake({"train": labels, "test": [0]})
    for seed in range(5):
        rules = own_parts(source, 0.2, None, stratify=True, seed=seed)
        _, numbers = resolve(source, rules["train"])
        assert set(labels[numbers]) == {0, 1, 2, 3, 4}


def test_split_info_is_json_and_small():
    import json

    source = fake({"test": uneven(3000, 5)})
    info, _ = resolve(source, Part("test", 0, 1000, "stratified", 7))
    text = json.dumps(dataclasses.asdict(info))
    assert datasets.SplitInfo(**json.loads(text)) == info
    assert len(text) < 300
    assert info.split == "test[0:1000] stratified, seed 7"
    assert "seed 7" in str(info) and info.digest in str(info)
    # As reports of earlier versions have it.
    old = datasets.SplitInfo("toy/1.0.0", "test", "test", 0, 3000, 3000)
    assert old == resolve(source, Part("test"))[0]
    assert old.overlaps(info) and info.overlaps(old)
    other = dataclasses.replace(info, digest="0" * 16, start=2000, stop=3000)
    assert info.overlaps(other), "another order's numbers count differently"


def store(folder, labels, name="toy", names=("a", "b", "c")):
    """Prepares images whose values are their numbers."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 1)),
            "label": tfds.features.ClassLabel(names=list(names)),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=features,
        split_datasets={
            split: [
                (i, {"image": np.full((2, 2, 1), i, "uint8"), "label": label})
                for i, label in enumerate(each)
            ]
            for split, each in labels.items()
        },
        data_dir=folder,
    )
    return folder / name


TOY = {
    "train": [0] * 60 + [1] * 30 + [2] * 10,
    "test": [0] * 40 + [1] * 20 + [2] * 20,
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """100 training and 80 test images of three classes."""
    return store(tmp_path_factory.mktemp("toy"), TOY)


def load(folder, **arguments):
    arguments = {"image_size": (4, 4), "batch_size": 10, **arguments}
    return datasets.load(folder, **arguments)


def values(dataset):
    """The numbers of the images and their labels, in order."""
    batches = list(dataset.as_numpy_iterator())
    images = np.concatenate([images[:, 0, 0, 0] for images, _ in batches])
    return images.round().astype(int), np.concatenate([y for _, y in batches])


@pytest.mark.parametrize(
    "cache", [True, pytest.param(False, marks=pytest.mark.ci)]
)
def test_images_are_those_that_were_chosen(toy, cache):
    data = load(toy, test_examples=40, cache=cache)
    assert data.test.split_info.split == "test[0:40] stratified, seed 0"
    assert len(data.test) == 4 and len(data.validation) == 2
    found = {}
    for part, counts in (("validation", [12, 6, 2]), ("test", [20, 10, 10])):
        dataset = getattr(data, part)
        numbers, labels = values(dataset)
        assert labels.tolist() == [
            TOY[dataset.split_info.base][number] for number in numbers
        ]
        assert np.bincount(labels).tolist() == counts
        assert data.class_counts[part].tolist() == counts
        np.testing.assert_array_equal(numbers, values(dataset)[0])
        found[part] = numbers
    numbers, _ = values(data.train)
    assert len(numbers) == 80 and not set(numbers) & set(found["validation"])
    assert data.class_counts["train"].tolist() == [48, 24, 8]
    again = load(toy, test_examples=20, cache=cache, seed=9)
    assert set(values(again.test)[0]) < set(found["test"])
    other = load(toy, test_examples=40, split_seed=1)
    assert set(values(other.test)[0]) != set(found["test"])
    assert set(values(other.validation)[0]) != set(found["validation"])


def test_contiguous_is_the_end_as_stored(toy):
    data = load(toy, splits="contiguous", validation_split=0.3)
    assert data.validation.split_info.split == "train[70%:]"
    assert data.validation.split_info.order == "stored"


@pytest.mark.parametrize("splits", [None, "contiguous"])
def test_a_test_set_is_cut_where_there_is_none(tmp_path, splits):
    folder = store(tmp_path, {"train": TOY["train"]})
    with pytest.raises(ValueError, match="`test_split=0.2` .--test_split"):
        load(folder)
    data = load(folder, validation_split=0.1, test_split=0.2, splits=splits)
    sizes = [getattr(data, part).split_info.num_examples for part in PARTS]
    assert sizes == [70, 10, 20]
    found = [values(getattr(data, part))[0] for part in PARTS]
    assert sorted(np.concatenate(found)) == list(range(100))
    infos = [getattr(data, part).split_info for part in PARTS]
    assert not infos[0].overlaps(infos[2]) and not infos[1].overlaps(infos[2])
    if splits is None:
        assert data.class_counts["test"].tolist() == [12, 6, 2]
    else:
        assert infos[2].split == "train[80:100]"
    with pytest.raises(ValueError, match="would have no images"):
        load(folder, validation_split=0.5, test_split=0.5)
    with pytest.raises(ValueError, match="combined with `test_examples`"):
        load(folder, test_split=0.2, test_examples=5)


def test_paper_splits_by_default_unless_chosen(tmp_path, monkeypatch):
    rules = dict(
        zip(
            ("train", "validation"),
            (
                Part("train", 0, 75, "stratified", 5),
                Part("train", 75, 100, "stratified", 5),
            ),
            strict=True,
        ),
        test=Part("test", 0, 8, "stratified", 6),
    )
    small = dataclasses.replace(
        datasets.PAPER_DATASETS["stanford_dogs"],
        stored_sizes={"train": 100, "test": 80},
        parts=rules,
    )
    folder = store(tmp_path, TOY, name="stanford_dogs")
    with pytest.raises(ValueError, match="12000.*'train': 100.*stratified"):
        load(folder)
    assert len(values(load(folder, splits="stratified").test)[0]) == 80
    monkeypatch.setitem(datasets.PAPER_DATASETS, "stanford_dogs", small)
    for splits in (None, "paper"):
        data = load(folder, splits=splits)
        infos = [getattr(data, part).split_info for part in PARTS]
        assert [info.num_examples for info in infos] == [75, 25, 8]
        assert [info.seed for info in infos] == [5, 5, 6]
    own = load(folder, validation_split=0.5)
    assert own.validation.split_info.num_examples == 50
    assert own.test.split_info.num_examples == 80
    with pytest.raises(ValueError, match="It fixes"):
        load(folder, splits="paper", test_examples=5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"splits": "random"}, "`splits` must be one of"),
        ({"splits": "paper"}, "is for the datasets caltech256"),
        ({"test_examples": 81}, "number of test images.*80"),
        ({"test_examples": 0}, "`test_examples` must be"),
        ({"validation_split": 0.001}, "without images"),
        ({"test_split": 0.2}, "without a split to test on"),
        ({"test_split": 1.0}, "`test_split` must be a share"),
    ],
)
def test_wrong_splits(toy, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(toy, **arguments)


# === Labels ===


def test_unlabelled_test_images(tmp_path):
    labels = {"train": TOY["train"], "test": [-1] * 20}
    folder = store(tmp_path, labels)
    with pytest.warns(UserWarning, match="20 of the 20 test images.*no valid"):
        data = load(folder)
    assert data.class_counts["test"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="test images, do not pass"):
        load(folder, test_examples=5)

    from keras_epsched import checks

    _, labels = values(data.test)
    with pytest.raises(ValueError, match="never published"):
        checks.check_labels(labels, 3)


def test_unlabelled_training_images(tmp_path):
    labels = {"train": [0, 1, -1, 2] * 10, "test": [0] * 4}
    folder = store(tmp_path, labels)
    with pytest.raises(ValueError, match="10 of the 40 .*no valid label"):
        load(folder)
    with pytest.raises(ValueError, match="of the 32 train .*Label or"):
        load(folder, splits="contiguous")


def test_imbalance_and_absent_classes(tmp_path):
    labels = {"train": [0] * 110 + [1] * 10, "test": [0, 1, 2]}
    folder = store(tmp_path, labels)
    with pytest.warns(UserWarning) as caught:
        load(folder)
    text = " ".join(str(each.message) for each in caught)
    assert "1 of the 3 classes" in text and "['c']" in text
    assert "88 training images of 'a', 8 of 'b'" in text


def test_balanced_data_are_silent(toy):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load(toy)


def test_labels_of_large_data_are_not_read(toy, monkeypatch):
    import sys

    # The package's attribute of this name is the function.
    module = sys.modules["keras_epsched.datasets.load"]
    monkeypatch.setattr(module, "_LABEL_BYTES", 0)
    counted = []
    monkeypatch.setattr(
        module.labels, "count", lambda *a: counted.append(a) or np.ones(3)
    )
    data = load(toy)
    assert data.validation.split_info.split == "train[80%:]"
    assert not counted
    assert data.class_counts["test"].tolist() == [1, 1, 1] and counted
