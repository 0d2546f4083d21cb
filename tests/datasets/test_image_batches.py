"""`ImageBatches`, and `load` where TensorFlow is not installed."""

import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_epsched as ke
from keras_epsched import optional
from keras_epsched.datasets import arrays, embedded, pipeline
from keras_epsched.datasets.letters import examples as letters

PARTS = ("train", "validation", "test")
SIZE = (12, 12)


def toy(number=23, side=8):
    """Grey images; the first pixel tells which example it is."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (number, side, side, 1), "uint8")
    images[:, 0, 0, 0] = np.arange(number)
    return [
        {"image": image, "label": int(image[0, 0, 0]) % 5} for image in images
    ]


def batches(examples=None, **arguments):
    arguments = {"image_size": (8, 8), "batch_size": 4, **arguments}
    return ke.datasets.ImageBatches(examples or toy(), **arguments)


def which(batch):
    """The numbers of the examples in a batch."""
    return batch[0][:, 0, 0, 0].astype(int).tolist()


def images_of(dataset, indices):
    """Images of some batches, as `fit` takes them."""
    return np.concatenate([dataset[index][0] for index in indices])


def epoch_of(dataset):
    """One pass by the indices, as `fit` makes it."""
    images = images_of(dataset, range(len(dataset)))
    dataset.on_epoch_end()
    return images


@pytest.fixture
def without_tensorflow(monkeypatch):
    """`load` behaves as if it could not be imported."""
    monkeypatch.setattr(optional, "available", lambda *names: False)


def test_evaluation_holds_all_in_order():
    dataset = batches()
    assert len(dataset) == dataset.num_batches == 6
    for _ in range(2):
        passed = list(dataset)
        assert sum(map(which, passed), []) == list(range(23))
    images, labels = passed[-1]
    assert images.shape == (3, 8, 8, 3) and images.dtype == np.float32
    assert labels.dtype == np.int64 and labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    with pytest.raises(IndexError):
        dataset[6]
    assert "23 examples" in repr(dataset)


@pytest.mark.parametrize("cache", [True, False])
def test_training_is_shuffled_by_seed_epoch_and_index(cache):
    arguments = {"shuffle": True, "cache": cache, "augment": ("flip",)}
    first, second = batches(**arguments), batches(**arguments)
    assert len(first) == 5
    epochs = [epoch_of(first) for _ in range(3)]
    np.testing.assert_array_equal(epochs, [epoch_of(second) for _ in range(3)])
    assert len({epoch.tobytes() for epoch in epochs}) == 3
    # An epoch in any order of its indices, and any epoch by its number.
    second.seek(1)
    backwards = [second[index][0] for index in reversed(range(5))]
    np.testing.assert_array_equal(
        np.concatenate(backwards[::-1]).tobytes(), epochs[1].tobytes()
    )
    # From the middle on, without reading what is before; then the next one.
    second.seek(1, 3)
    second._read = None
    assert not images_of(second, range(3)).any()
    del second._read
    np.testing.assert_array_equal(
        images_of(second, range(3, 5)), epochs[1][12:]
    )
    second.on_epoch_end()
    np.testing.assert_array_equal(epoch_of(second), epochs[2])
    other = epoch_of(batches(seed=1, **arguments))
    assert other.tobytes() != epochs[0].tobytes()


def test_an_epoch_holds_no_example_twice():
    dataset = batches(shuffle=True)
    seen = set()
    for _ in range(8):
        numbers = sum(map(which, dataset), [])
        assert len(set(numbers)) == 20
        seen |= set(numbers)
    assert seen == set(range(23)), "each epoch leaves out others"
    assert dataset.epoch == 8


def test_an_epoch_ends_when_all_is_taken():
    """What Keras takes to build a model, or of `steps_per_epoch`, is none."""
    dataset = batches(shuffle=True)
    expected = which(dataset[0])
    dataset.on_epoch_end()
    assert dataset.epoch == 0 and which(dataset[0]) == expected
    for _ in dataset:
        break
    assert dataset.epoch == 0
    list(dataset)
    assert dataset.epoch == 1 and which(dataset[0]) != expected


@pytest.mark.parametrize("threads", [1, 3])
def test_fit_takes_each_example_once_an_epoch(threads):
    dataset = batches(shuffle=True, threads=threads)
    expected = set(which([epoch_of(batches(shuffle=True))]))
    taken = []
    original = dataset._example

    def noted(number, epoch):
        taken.append((epoch, number))
        return original(number, epoch)

    dataset._example = noted
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5)])
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(dataset, epochs=3, verbose=0, validation_data=batches())
    assert dataset.epoch == 3
    by_epoch = [{n for e, n in taken if e == epoch} for epoch in range(3)]
    assert [len(numbers) for numbers in by_epoch] == [20] * 3
    assert by_epoch[0] == expected
    assert len(set(map(frozenset, by_epoch))) == 3


def test_evaluate_goes_through_it_once():
    examples = toy(30)
    net = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    dataset = batches(examples)
    images, labels = zip(*dataset, strict=True)
    pair = np.concatenate(images), np.concatenate(labels)
    arguments = {"epsilons": [0.01], "self_check": False, "verbose": 0}
    report = ke.evaluate(net, dataset, **arguments)
    assert len(report.labels) == 30
    np.testing.assert_array_equal(
        report.accuracy, ke.evaluate(net, pair, **arguments).accuracy
    )


def test_pairs_pillow_and_floats():
    grey = np.arange(64, dtype="uint8").reshape(8, 8)
    palette = Image.fromarray(grey).convert("RGB").quantize()
    examples = [
        (grey, 0),
        (Image.fromarray(grey), np.int64(1)),
        (palette, np.array([2])),
        (grey.astype("float64")[..., None], np.uint8(3)),
    ]
    ((images, labels),) = batches(examples)
    assert labels.tolist() == [0, 1, 2, 3]
    for image in images:
        np.testing.assert_allclose(image, images[0], atol=4)
    images[:] = 0
    assert grey.max() == 63, "the examples are left as they are"


def test_a_sequence_of_tfds(tmp_path):
    """A `data_source` needs no TensorFlow, but must be prepared for it."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    from keras_epsched.datasets.digits import digits_dataset_builder

    builder = digits_dataset_builder.Builder(
        data_dir=tmp_path, file_format="array_record"
    )
    builder.download_and_prepare()
    source = builder.as_data_source()
    with pytest.raises(ValueError, match="keys .*'test'.*one of its values"):
        batches(source)
    dataset = batches(source["test"], batch_size=250)
    assert len(dataset) == 2
    ours = embedded.source("digits", None)
    images, labels = zip(*dataset, strict=True)
    np.testing.assert_array_equal(np.concatenate(labels), ours.labels("test"))
    expected, _ = zip(*ours.read("test", np.arange(500)), strict=True)
    np.testing.assert_array_equal(
        np.concatenate(images)[..., :1], np.stack(expected)
    )
    assert tfds.core.constants.DATA_DIR is not None


FLOAT = np.full((8, 8), 256.0)
WRONG_EXAMPLES = {
    "key": ([{"img": FLOAT, "label": 0}], r"no key \['image'\].*image_key"),
    "triple": ([(FLOAT, 0, 1)], "dictionaries or pairs"),
    "channels first": ([(np.zeros((3, 8, 8)), 0)], r"\(3, 8, 8\).*to the end"),
    "alpha": ([(np.zeros((8, 8, 4)), 0)], "alpha"),
    "sixteen bits": ([(FLOAT, 0)], "0..255.*256.0"),
    "nan": ([(FLOAT * np.nan, 0)], "0..255"),
    "normalised": ([(FLOAT / 256 - 2, 0)], "before any normalisation"),
    "name": ([(np.zeros((8, 8)), "cat")], "integers.*'cat'"),
    "one-hot": ([(np.zeros((8, 8)), np.eye(3)[1])], "one-hot"),
    "float label": ([(np.zeros((8, 8)), 1.0)], "must be integers"),
}


@pytest.mark.parametrize("case", WRONG_EXAMPLES)
def test_wrong_examples_are_named(case):
    examples, message = WRONG_EXAMPLES[case]
    with pytest.raises(ValueError, match=message):
        batches(examples)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": iter(toy())}, "__getitem__"),
        ({"examples": {"train": toy()}}, "examples of one split"),
        ({"examples": toy(3), "shuffle": True}, "do not fill one batch"),
        ({"image_size": 8}, "`image_size`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"seed": -1}, "`seed`"),
        ({"threads": 0}, "`threads`"),
        ({"augment": ["blur"]}, "`augment`"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(**arguments)


@pytest.mark.parametrize(
    "sizes", [((8, 8), (8, 8)), ((8, 8), SIZE), ((37, 53), (24, 17))]
)
def test_resizing_is_that_of_tensorflow(sizes):
    tf = pytest.importorskip("tensorflow")
    source, target = sizes
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), "uint8")
    expected = tf.image.resize(
        tf.cast(image, "float32"), target, "bilinear", antialias=True
    )
    np.testing.assert_allclose(
        arrays.prepared(image, target), expected, atol=0.01
    )


@pytest.mark.parametrize("names", [*((n,) for n in pipeline.AUGMENTATIONS), ()])
def test_augmentation_is_that_of_tensorflow(names):
    tf = pytest.importorskip("tensorflow")
    names = names or pipeline.AUGMENTATIONS
    image = np.random.default_rng(0).uniform(0, 255, (15, 20, 3))
    image = image.astype("float32")
    for number in range(4):
        seed = tf.constant((0, number), "int64")
        draws = tf.random.stateless_uniform([5], seed).numpy()
        ours = arrays.augmented(image, draws, names)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(
            ours, pipeline.augmented(image, seed, names), atol=0.01
        )


@pytest.mark.parametrize("name", embedded.NAMES)
def test_embedded_data_are_those_of_tfds(
    name, tmp_path, monkeypatch, letters_fonts
):
    """The same examples in the same order, so the same splits."""
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(letters, "SPLIT_SIZES", {"train": 200, "test": 60})

    def load(folder):
        data = ke.datasets.load(
            name, image_size=SIZE, data_dir=tmp_path / folder, batch_size=50
        )
        held = {}
        for part in ("validation", "test"):
            images, labels = zip(*getattr(data, part), strict=True)
            held[part] = np.concatenate(images), np.concatenate(labels)
        return data, held

    stored, theirs = load("tfds")
    monkeypatch.setattr(optional, "available", lambda *names: False)
    data, ours = load("plain")
    assert isinstance(data.train, ke.datasets.ImageBatches)
    assert not isinstance(stored.train, ke.datasets.ImageBatches)
    assert data.name == stored.name and data.class_names == stored.class_names
    assert repr(data) == repr(stored)
    for part, (images, labels) in ours.items():
        np.testing.assert_allclose(images, theirs[part][0], atol=0.01)
        np.testing.assert_array_equal(labels, theirs[part][1])
    for part in PARTS:
        split = getattr(data, part).split_info
        assert split == getattr(stored, part).split_info
        assert len(getattr(data, part)) == len(getattr(stored, part))
        np.testing.assert_array_equal(
            data.class_counts[part], stored.class_counts[part]
        )


def test_letters_are_rendered_once(
    tmp_path, monkeypatch, without_tensorflow, letters_fonts
):
    monkeypatch.setattr(letters, "SPLIT_SIZES", {"train": 30, "test": 10})

    def load():
        data = ke.datasets.load(
            "letters", image_size=SIZE, data_dir=tmp_path, batch_size=5
        )
        return next(iter(data.test))[0]

    first = load()
    kept = [path.name for path in tmp_path.iterdir()]
    assert kept == ["letters-1.0.0-test.npz"], "only what was asked for"
    monkeypatch.setattr(letters, "render", None)
    np.testing.assert_array_equal(first, load())


def test_a_folder_that_cannot_be_written(
    tmp_path, monkeypatch, without_tensorflow
):
    monkeypatch.setattr(letters, "SPLIT_SIZES", {"train": 30, "test": 10})
    occupied = tmp_path / "file"
    occupied.write_text("")
    data = ke.datasets.load(
        "letters", image_size=SIZE, data_dir=occupied, batch_size=5
    )
    with pytest.warns(UserWarning, match="cannot be written.*data_dir"):
        assert len(list(data.test)) == 2


def test_image_folders_without_tensorflow(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    generator = np.random.default_rng(0)
    for split, number in (("train", 12), ("test", 5)):
        for label, mode in (("ant", "RGB"), ("bee", "L")):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for each in range(number):
                pixels = generator.integers(0, 256, (3, 4, 3), "uint8")
                image = Image.fromarray(pixels).convert(mode).resize((14, 9))
                suffix = "png" if each % 2 else "jpg"
                image.save(folder / f"{each}.{suffix}", quality=95)

    def load(**arguments):
        return ke.datasets.load(
            tmp_path, image_size=SIZE, batch_size=4, **arguments
        )

    stored = load()
    monkeypatch.setattr(optional, "available", lambda *names: False)
    data = load(augment=True)
    assert data.class_counts["test"].tolist() == [5, 5]
    assert data.test.split_info == stored.test.split_info
    for (ours, labels), (theirs, expected) in zip(
        data.test, stored.test, strict=True
    ):
        np.testing.assert_array_equal(labels, expected)
        # TensorFlow decodes JPEG by a faster, less accurate transform.
        assert np.abs(ours - theirs).mean() < 2
    assert next(iter(data.train))[0].shape == (4, *SIZE, 3)
    path = tmp_path / "test" / "ant" / "1.png"
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.warns(UserWarning, match="1 of 34 files.*ant.1.png"):
        assert (
            sum(len(labels) for _, labels in load(skip_corrupt=True).test) == 9
        )


def test_what_needs_tfds_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install tensorflow.*ImageBatch"):
        ke.datasets.load("cifar10", image_size=SIZE)
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(ImportError, match="prepared dataset in .*tensorflow"):
        ke.datasets.load(tmp_path, image_size=SIZE)
