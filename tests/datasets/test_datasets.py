"""`datasets`: names and folders to batches of images and labels."""

import dataclasses
import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_epsched import batches, datasets
from keras_epsched.datasets import pipeline

SIZE = (16, 16)
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where the embedded datasets are prepared, once for all tests."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Grey and colour images; the pixel value tells which file it is."""
    from PIL import Image

    root = tmp_path_factory.mktemp("folder") / "shapes"
    for split, per_class in (("train", 20), ("test", 6)):
        for label, name in enumerate(("bee", "ant")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                value = 100 * label + 3 * number
                mode = "L" if number % 2 else "RGB"
                color = value if mode == "L" else (value,) * 3
                Image.new(mode, (9, 7), color).save(folder / f"{number}.png")
    return root


def digits(data_dir, **arguments):
    arguments = {"image_size": SIZE, **arguments}
    return datasets.load("digits", data_dir=data_dir, **arguments)


def stacked(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def rows(images):
    return sorted(image.tobytes() for image in images)


def test_what_is_built_in_is_not_said_to_be_downloaded(tmp_path, capsys):
    digits(tmp_path)
    said = capsys.readouterr()
    assert "ownload" not in said.out and "splits/s" not in said.err


def test_digits_sizes_and_ranges(data_dir):
    data = digits(data_dir)
    assert data.num_classes == 10 and data.name == "digits/1.0.0"
    assert data.class_names == tuple("0123456789")
    for part, size in (("validation", 259), ("test", 500)):
        dataset = getattr(data, part)
        images, labels = stacked(dataset)
        assert dataset.split_info.num_examples == size == len(images)
        assert images.dtype == np.float32 and labels.dtype == np.int64
        assert images.shape[1:] == (*SIZE, 3)
        assert images.min() >= 0 and 200 < images.max() <= 255
        assert (images % 1 != 0).any(), "resized values are rounded"
        assert set(labels) == set(range(10))
    _, test_labels = stacked(data.test)
    assert np.bincount(test_labels).tolist() == [50] * 10
    batches = list(data.train.as_numpy_iterator())
    assert data.train.split_info.num_examples == 1038
    assert [len(labels) for _, labels in batches] == [64] * (1038 // 64)
    assert "train=1038" in repr(data) and "digits/1.0.0" in repr(data)


def test_digits_are_those_of_scikit_learn(data_dir):
    import sklearn.datasets

    data = digits(data_dir, image_size=(8, 8), batch_size=1, augment=False)
    parts = [stacked(getattr(data, part)) for part in PARTS]
    images = np.concatenate([images for images, _ in parts])
    expected = np.rint(sklearn.datasets.load_digits().images * (255 / 16))
    expected = np.repeat(expected[..., np.newaxis], 3, axis=-1)
    assert rows(images) == rows(expected.astype("float32"))


@pytest.mark.parametrize("share", [0.2, 0.05, 0.155, 0.5])
def test_split_info_is_the_slice_of_tfds(data_dir, share):
    import tensorflow_datasets as tfds

    data = digits(data_dir, validation_split=share)
    info = tfds.builder("digits", data_dir=data_dir).info
    infos = {part: getattr(data, part).split_info for part in PARTS}
    for split in infos.values():
        assert info.splits[split.split].num_examples == split.num_examples
        assert split.num_examples == split.stop - split.start
        json = dataclasses.asdict(split)
        assert datasets.SplitInfo(**json) == split
    assert infos["train"].stop == infos["validation"].start
    assert infos["validation"].stop == info.splits["train"].num_examples


def test_split_info_overlap(data_dir):
    data = digits(data_dir)
    train = data.train.split_info
    assert str(train) == "digits/1.0.0 train[0:1038]"
    assert train.split == "train[:80%]"
    assert train.overlaps(train)
    assert not train.overlaps(data.validation.split_info)
    assert not data.validation.split_info.overlaps(train)
    assert not train.overlaps(data.test.split_info)
    wider = digits(data_dir, validation_split=0.3).validation.split_info
    assert train.overlaps(wider) and wider.overlaps(train)
    other = dataclasses.replace(train, dataset="digits/2.0.0")
    assert not train.overlaps(other)


@pytest.mark.parametrize(
    "cache", [True, pytest.param(False, marks=pytest.mark.ci)]
)
def test_order(data_dir, cache):
    first, second = (digits(data_dir, cache=cache) for _ in range(2))
    for part in ("validation", "test"):
        images, _ = stacked(getattr(first, part))
        for again in (first, second):
            np.testing.assert_array_equal(
                images, stacked(getattr(again, part))[0]
            )
    epochs = [stacked(first.train)[0] for _ in range(2)]
    repeated = [stacked(second.train)[0] for _ in range(2)]
    np.testing.assert_array_equal(epochs, repeated)
    assert (epochs[0] != epochs[1]).any()
    other = stacked(digits(data_dir, cache=cache, seed=1).train)[0]
    assert (epochs[0] != other).any()


@pytest.mark.parametrize(
    "cache", [True, pytest.param(False, marks=pytest.mark.ci)]
)
def test_training_is_a_function_of_seed_epoch_and_index(data_dir, cache):
    first = digits(data_dir, cache=cache, augment=True).train
    epochs = [[x.numpy() for x, _ in first] for _ in range(3)]
    # Whatever was drawn before, and kept.
    tf.random.set_seed(7)
    second = digits(data_dir, cache=not cache, augment=True).train
    for epoch in (2, 0, 1):
        second.seek(epoch)
        np.testing.assert_array_equal(
            [x.numpy() for x, _ in second], epochs[epoch]
        )
    # After it comes the next one.
    np.testing.assert_array_equal([x.numpy() for x, _ in second], epochs[2])
    # In the middle of an epoch: nothing is decoded for what was before.
    second.seek(1, 5)
    found = [x.numpy() for x, _ in second]
    assert len(found) == len(second)
    np.testing.assert_array_equal(found[5:], epochs[1][5:])
    assert not np.any(found[:5])


def cached_batches(train, records, num_examples):
    """Batches of 8 small images, for training or for evaluation."""
    arguments = {
        "decode": lambda image: image,
        "image_size": (4, 4),
        "batch_size": 8,
        "cache": True,
        "num_examples": num_examples,
    }
    if not train:
        return pipeline.evaluation_batches(records, **arguments)
    return pipeline.training_batches(
        records, **arguments, augmentations=(), seed=0
    )


@pytest.mark.parametrize("train", [False, True])
def test_a_stream_that_breaks_off_does_not_become_the_cache(train):
    looks = tf.Variable(0, dtype=tf.int64)

    def begin(_):
        return looks.assign_add(1)

    # At the first look it ends after 19 of 40 images.
    records = (
        tf.data.Dataset.range(1)
        .map(begin)
        .flat_map(
            lambda look: tf.data.Dataset.range(
                40 - 21 * tf.cast(look == 1, tf.int64)
            )
        )
        .map(lambda i: (tf.zeros((4, 4, 3), tf.uint8), i))
    )
    found = cached_batches(train, records, 40)
    with pytest.raises(tf.errors.FailedPreconditionError, match="only 19"):
        list(found)
    for _ in range(2):
        numbers = [int(i) for _, labels in found for i in labels]
        assert sorted(numbers) == list(range(40))


@pytest.mark.parametrize("train", [False, True])
def test_a_look_at_one_batch_fills_the_cache(train):
    passes = tf.Variable(0, dtype=tf.int64)
    records = (
        tf.data.Dataset.range(1)
        .map(lambda _: passes.assign_add(1))
        .flat_map(lambda _: tf.data.Dataset.range(4000))
        .map(lambda i: (tf.zeros((4, 4, 3), tf.uint8), i))
    )
    found = cached_batches(train, records, 4000)
    (images, _), again = batches.look(found)
    assert images.shape == (8, 4, 4, 3) and again is found
    for _ in range(2):
        assert len(list(found)) == 500
    assert int(passes) == 1


def test_augmentation_is_seeded_and_for_training_only(data_dir):
    plain = digits(data_dir, batch_size=1)
    first, second = (
        digits(data_dir, batch_size=1, augment=True) for _ in range(2)
    )
    epochs = [stacked(first.train)[0] for _ in range(2)]
    repeated = [stacked(second.train)[0] for _ in range(2)]
    np.testing.assert_array_equal(epochs, repeated)
    assert np.min(epochs) >= 0 and np.max(epochs) <= 255
    originals = rows(stacked(plain.train)[0])
    for epoch in epochs:
        assert len(set(rows(epoch)) & set(originals)) < 0.01 * len(epoch)
    assert len(set(rows(epochs[0])) & set(rows(epochs[1]))) < 10
    for part in ("validation", "test"):
        np.testing.assert_array_equal(
            stacked(getattr(plain, part))[0], stacked(getattr(first, part))[0]
        )


def test_flip_alone_mirrors_half_of_the_images(data_dir):
    plain = rows(stacked(digits(data_dir, batch_size=1).train)[0])
    data = digits(data_dir, batch_size=1, augment=("flip",))
    images, _ = stacked(data.train)
    originals = set(plain)
    kept = np.array([image.tobytes() in originals for image in images])
    mirrored = images[~kept][:, :, ::-1]
    assert all(image.tobytes() in originals for image in mirrored)
    assert 0.4 < kept.mean() < 0.6


def test_color_moves_values_by_at_most_a_quarter():
    image = np.full((8, 8, 3), 100.0, "float32")
    values = np.array(
        [
            pipeline.augmented(image, (seed, 0), ("color",)).numpy()
            for seed in range(40)
        ]
    )
    # Contrast and saturation leave an even grey alone.
    assert np.ptp(values, axis=(1, 2, 3)).max() < 1e-3
    assert values.min() >= 75 - 1e-3 and values.max() <= 125 + 1e-3
    assert values.min() < 85 and values.max() > 115
    colored = np.zeros((8, 8, 3), "float32") + [40.0, 120.0, 200.0]
    spreads = [
        np.ptp(pipeline.augmented(colored, (seed, 0), ("color",)).numpy()[0, 0])
        for seed in range(40)
    ]
    assert min(spreads) < 130 and max(spreads) > 190


def test_rotation_is_about_the_centre_and_at_most_two_degrees():
    side = 65
    ramp = np.arange(side, dtype="float32")
    image = np.broadcast_to(2 * ramp[:, None, None], (side, side, 3)).copy()
    slopes = []
    for seed in range(30):
        turned = pipeline.augmented(image, (seed, 1), ("rotation",)).numpy()
        inner = turned[20:45, 20:45, 0]
        np.testing.assert_allclose(turned[32, 32], 64.0, atol=1e-3)
        slopes.append((inner[12, -1] - inner[12, 0]) / (2 * 24))
    degrees = np.degrees(np.arcsin(slopes))
    assert np.abs(degrees).max() <= 2 + 1e-3
    assert degrees.min() < -1 and degrees.max() > 1
    white = np.full((9, 9, 3), 255.0, "float32")
    turned = pipeline.augmented(white, (0, 1), ("rotation",)).numpy()
    np.testing.assert_allclose(turned, 255.0, atol=1e-3)


def test_letters_are_legible_and_repeat(letters_fonts):
    from keras_epsched.datasets.letters.examples import render

    images = np.stack([render(i % 26, seed=(0, i)) for i in range(104)])
    assert images.shape == (104, 32, 32, 1) and images.dtype == np.uint8
    assert (np.ptp(images.astype(int), axis=(1, 2, 3)) > 60).all()
    np.testing.assert_array_equal(images[7], render(7, seed=(0, 7)))
    assert (images[7] != render(7, seed=(1, 7))).any()
    assert len(set(rows(images))) == 104


@pytest.mark.slow
def test_letters_in_full(tmp_path, letters_fonts):
    data = datasets.load("letters", image_size=(32, 32), data_dir=tmp_path)
    assert data.class_names == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    images, labels = stacked(data.test)
    assert np.bincount(labels).tolist() == [80] * 26
    assert images.shape[1:] == (32, 32, 3)
    assert data.train.split_info.num_examples == 8320
    assert data.validation.split_info.num_examples == 2080
    _, labels = stacked(data.validation)
    assert np.bincount(labels).min() > 50


def test_two_processes_may_prepare_at_once(tmp_path, monkeypatch):
    from keras_epsched.datasets.digits import digits_dataset_builder

    builder = digits_dataset_builder.Builder
    original = builder.download_and_prepare
    examples = builder._generate_examples
    started = []

    def few_examples(self, split):
        for key, example in examples(self, split):
            if key % 20 == 0:
                yield key, example

    def raced(self, **arguments):
        if not started:
            started.append(True)
            random.seed(0)
            load()
        random.seed(0)
        return original(self, **arguments)

    def load():
        return digits(tmp_path, batch_size=2)

    monkeypatch.setattr(builder, "_generate_examples", few_examples)
    monkeypatch.setattr(builder, "download_and_prepare", raced)
    data = load()
    size = data.test.split_info.num_examples
    assert 0 < size == len(stacked(data.test)[1]) < 100
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_prepared_folder(shared_data, version):
    folder = shared_data / "datasets" / "flowers12_128" / version
    data = datasets.load(folder, image_size=(24, 32), cache=False)
    assert data.name == "flowers12_128/1.0.0"
    assert data.num_classes == len(data.class_names) == 12
    infos = [getattr(data, part).split_info for part in PARTS]
    assert [info.num_examples for info in infos] == [576, 144, 240]
    images, labels = stacked(data.validation)
    assert images.shape == (144, 24, 32, 3)
    assert images.min() >= 0 and images.max() <= 255
    assert set(labels) == set(range(12)), "the slice does not mix the classes"


def test_image_folder(image_folder):
    data = datasets.load(str(image_folder), image_size=SIZE, batch_size=1)
    assert data.class_names == ("ant", "bee")
    assert data.name == f"image_folder:{image_folder.resolve()}"
    names = {}
    for part in PARTS:
        images, labels = stacked(getattr(data, part))
        assert (np.ptp(images, axis=(1, 2, 3)) < 1e-2).all()
        values = np.rint(images[:, 0, 0, 0]).astype(int).tolist()
        # "ant" is label 0 after sorting and was written with 100 and more.
        assert [value >= 100 for value in values] == (labels == 0).tolist()
        assert len(set(labels)) == 2, "the slice does not mix the classes"
        names[part] = sorted(values)
    every = sorted(100 * label + 3 * i for label in (0, 1) for i in range(20))
    assert len(names["train"]) == 32 and len(names["validation"]) == 8
    assert sorted(names["train"] + names["validation"]) == every
    assert len(names["test"]) == 12
    again = datasets.load(image_folder, image_size=SIZE, batch_size=1, seed=5)
    np.testing.assert_array_equal(
        stacked(data.validation)[0], stacked(again.validation)[0]
    )


@pytest.mark.parametrize("hidden", [".cache", "train/.ipynb_checkpoints"])
def test_hidden_folders_are_not_classes(image_folder, tmp_path, hidden):
    import shutil

    root = tmp_path / "shapes"
    shutil.copytree(image_folder, root)
    (root / hidden).mkdir()
    with pytest.raises(ValueError, match=f"Hidden folders.*{hidden}"):
        datasets.load(root, image_size=SIZE, batch_size=4)


def test_embedded_name_with_version_and_home_folder(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    data = datasets.load("digits:1.0.0", image_size=SIZE, data_dir="~/data")
    assert data.name == "digits/1.0.0"
    prepared = home / "data" / "digits"
    assert [path.name for path in prepared.iterdir()] == ["1.0.0"]
    assert not list(elsewhere.iterdir())
    again = datasets.load(data.name, image_size=SIZE, data_dir="~/data")
    assert again.name == data.name
    with pytest.raises(ValueError, match="one version, 1.0.0"):
        datasets.load("digits:9.9.9", image_size=SIZE)


def test_validation_is_the_test_set_where_there_is_none(image_folder, tmp_path):
    import shutil

    root = tmp_path / "shapes"
    shutil.copytree(image_folder / "train", root / "train")
    shutil.copytree(image_folder / "test", root / "validation")
    data = datasets.load(root, image_size=SIZE, batch_size=4)
    assert data.test.split_info.split == "validation"
    assert data.validation.split_info.base == "train"
    assert not data.train.split_info.overlaps(data.validation.split_info)


def test_own_validation_split_is_used(image_folder, tmp_path):
    import shutil

    root = tmp_path / "shapes"
    shutil.copytree(image_folder, root)
    shutil.copytree(image_folder / "test", root / "validation")
    data = datasets.load(root, image_size=SIZE, batch_size=4)
    assert data.validation.split_info.split == "validation"
    assert data.validation.split_info.num_examples == 12
    assert data.train.split_info.split == "train"
    assert data.train.split_info.num_examples == 40


def test_images_with_four_channels_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, 4, 4)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
    )
    store(tmp_path, features, np.zeros((4, 4, 4), "uint8"), splits=["train"])
    with pytest.raises(ValueError, match="1 or 3 channels"):
        datasets.load(tmp_path / "toy", image_size=SIZE)


def test_missing_split_and_ambiguous_features_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    image = np.zeros((4, 4, 3), "uint8")
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    one = tfds.features.FeaturesDict(features)
    store(tmp_path / "one", one, image, splits=["train"])
    with pytest.raises(ValueError, match="test on.*test_split=0.2"):
        datasets.load(tmp_path / "one" / "toy", image_size=SIZE)
    two = tfds.features.FeaturesDict(
        {**features, "mask": tfds.features.Image(shape=(4, 4, 3))}
    )
    store(tmp_path / "two", two, image, splits=["train", "test"])
    with pytest.raises(ValueError, match="one image and one class label"):
        datasets.load(tmp_path / "two" / "toy", image_size=SIZE)


def store(folder, features, image, splits):
    """Prepares the dataset `toy` with four examples in each split."""
    import tensorflow_datasets as tfds

    example = {key: 0 if key == "label" else image for key in features.keys()}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="toy",
        version="1.0.0",
        features=features,
        split_datasets={
            split: [(key, example) for key in range(4)] for split in splits
        },
        data_dir=folder,
    )


@pytest.mark.parametrize(
    "name, message",
    [
        ("no_such_dataset", "neither a dataset that tfds knows"),
        ("standford_dogs", "Near matches: stanford_dogs"),
        ("digit", "Near matches: digits"),
        ("mnist", "download=True"),
        ("mnist:9.9.9", "cannot build 'mnist:9.9.9'"),
        ("mnist/no_such_config", "cannot build"),
        ("./no/such/folder", "no folder"),
    ],
)
def test_unknown_and_unprepared_names(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as error:
        datasets.load(name, image_size=SIZE, data_dir=tmp_path)
    if name == "mnist":
        assert str(tmp_path / "mnist" / "3.0.1") in str(error.value)


def test_folder_without_a_dataset(tmp_path):
    (tmp_path / "1.0.0").mkdir()
    with pytest.raises(ValueError, match="dataset_info.json.*<class>"):
        datasets.load(tmp_path, image_size=SIZE)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 16}, "image_size"),
        ({"image_size": (16, 0)}, "image_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2000}, "do not fill one batch"),
        ({"validation_split": 0.0}, "validation_split"),
        ({"validation_split": 1.0}, "validation_split"),
        ({"validation_split": 1e-5}, "without images"),
        ({"augment": ("flip", "blur")}, "augment"),
        ({"augment": "flip"}, "augment"),
    ],
)
def test_arguments_out_of_range(data_dir, arguments, message):
    with pytest.raises(ValueError, match=message):
        digits(data_dir, **arguments)


@pytest.mark.ci
def test_import_is_light():
    code = (
        "import sys, keras_epsched.datasets; "
        "print('tensorflow_datasets' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False"]
