"""Builders of datasets that tfds lacks, on tiny archives."""

import importlib
import pathlib
import shutil
import tempfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("dill", reason="tfds' test case needs it")

import tensorflow_datasets as tfds

from keras_epsched import datasets
from keras_epsched.datasets.caltech256 import caltech256_dataset_builder
from keras_epsched.datasets.fgvc_aircraft import fgvc_aircraft_dataset_builder
from keras_epsched.datasets.stanford_cars import stanford_cars_dataset_builder


def photo(path, value, size=(40, 61)):
    """Writes a smooth JPEG whose lowest 20 rows are white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.add.outer(np.arange(size[1]), 2 * np.arange(size[0])) + value
    image = Image.fromarray(ramp.astype("uint8")).convert("RGB")
    ImageDraw.Draw(image).rectangle(
        (0, size[1] - 20, size[0], size[1]), (255, 255, 255)
    )
    image.save(path, quality=90)


def caltech256(root):
    folder = root / "256_ObjectCategories"
    for number, name in ((1, "ak47"), (2, "american-flag"), (257, "clutter")):
        for i in range(1, 4):
            photo(folder / f"{number:03}.{name}" / f"{number:03}_{i:04}.jpg", i)
    # Strays of the real archive.
    photo(folder / "002.american-flag" / "greg" / "vw1.jpg", 9)
    (folder / "257.clutter" / "RENAME2").write_text("")


VARIANTS = ("707-320", "Boeing 717", "F/A-18")


def fgvc_aircraft(root):
    folder = root / "fgvc-aircraft-2013b" / "data"
    number = 0
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        lines = []
        for i in range(count):
            number += 1
            photo(folder / "images" / f"{number:07}.jpg", 3 * number)
            lines.append(f"{number:07} {VARIANTS[i % 3]}\n")
        (folder / f"images_variant_{split}.txt").write_text("".join(lines))
    (folder / "variants.txt").write_text("\n".join(VARIANTS) + "\n")


def stanford_cars(root, labelled=True):
    import scipy.io

    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.empty((1, 2), object)
    names[0] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    scipy.io.savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    for split, path in (
        ("train", folder / "devkit/cars_train_annos.mat"),
        ("test", folder / "cars_test_annos_withlabels.mat"),
    ):
        fields = [("bbox_x1", object), ("class", object), ("fname", object)]
        if not labelled:
            fields.pop(1)
        rows = np.empty((1, 4), fields)
        for i in range(4):
            name = f"{i + 1:05}.jpg"
            value = 40 * (split == "test") + 5 * i
            photo(folder / f"cars_{split}" / name, value)
            rows["bbox_x1"][0, i], rows["fname"][0, i] = i, name
            if labelled:
                rows["class"][0, i] = 1 + i % 2
        scipy.io.savemat(path, {"annotations": rows})


class _Case(tfds.testing.DatasetBuilderTestCase):
    """Writes the archive before the test case of tfds looks for it."""

    SKIP_CHECKSUMS = True
    make = None

    @classmethod
    def setUpClass(cls):
        cls.EXAMPLE_DIR = tempfile.mkdtemp()
        cls.make(pathlib.Path(cls.EXAMPLE_DIR))
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.EXAMPLE_DIR)


class Caltech256Test(_Case):
    DATASET_CLASS = caltech256_dataset_builder.Builder
    SPLITS = {"train": 9}
    make = staticmethod(caltech256)


class FgvcAircraftTest(_Case):
    DATASET_CLASS = fgvc_aircraft_dataset_builder.Builder
    SPLITS = {"train": 6, "validation": 3, "test": 3}
    make = staticmethod(fgvc_aircraft)


class StanfordCarsTest(_Case):
    DATASET_CLASS = stanford_cars_dataset_builder.Builder
    SPLITS = {"train": 4, "test": 4}
    make = staticmethod(stanford_cars)


# pytest would collect the bases as well.
del _Case


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Stands in for what a download would unpack to."""
    root = tmp_path / "unpacked"
    root.mkdir()
    asked = []

    def unpacked(self, url):
        from etils import epath

        asked.append(url)
        return epath.Path(root)

    monkeypatch.setattr(
        tfds.download.DownloadManager, "download_and_extract", unpacked
    )
    return root, asked


def load(name, data_dir, **arguments):
    return datasets.load(
        name,
        image_size=(16, 16),
        batch_size=2,
        data_dir=data_dir,
        download=True,
        **arguments,
    )


def test_caltech256_labels(tmp_path, downloads):
    root, asked = downloads
    caltech256(root)
    with pytest.raises(ValueError, match="30607.*splits=.stratified"):
        load("caltech256", tmp_path)
    assert asked == [caltech256_dataset_builder.URL]
    builder = tfds.builder("caltech256", data_dir=tmp_path)
    label = builder.info.features["label"]
    assert label.names == ["ak47", "american-flag", "clutter"]
    for example in tfds.as_numpy(builder.as_dataset("train")):
        number = int(example["image/file_name"][:3])
        assert (1, 2, 257).index(number) == example["label"]


def test_aircraft_have_no_banner(tmp_path, downloads):
    root, asked = downloads
    fgvc_aircraft(root)
    data = load("fgvc_aircraft", tmp_path, splits="stratified")
    assert asked == [fgvc_aircraft_dataset_builder.URL]
    assert data.class_names == VARIANTS
    assert data.validation.split_info.split == "validation"
    builder = tfds.builder("fgvc_aircraft", data_dir=tmp_path)
    images = root / "fgvc-aircraft-2013b" / "data" / "images"
    for example in tfds.as_numpy(builder.as_dataset("test")):
        assert example["image"].shape == (41, 40, 3)
        name = example["image/file_name"].decode()
        assert example["label"] == (int(name[:7]) - 10) % 3
        with Image.open(images / name) as image:
            whole = np.asarray(image)[:41].astype(int)
        error = np.abs(whole - example["image"].astype(int))
        # The last block of 8 rows held the edge of the banner.
        assert error[:40].max() <= 4 and error[:40].mean() < 0.5


@pytest.mark.parametrize("name", ["stanford_cars", "cars196"])
def test_cars_from_files_placed_by_hand(tmp_path, name):
    stanford_cars(tmp_path / "downloads" / "manual")
    data = load(name, tmp_path, splits="stratified", validation_split=0.5)
    assert data.name == "stanford_cars/1.0.0"
    assert data.class_names[1] == "Acura RL Sedan 2012"
    assert data.class_counts["test"].tolist() == [2, 2]


def test_cars_from_archives(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    stanford_cars(manual)
    root = manual / "stanford_cars"
    for folder, archive in (
        ("devkit", "car_devkit.tgz"),
        ("cars_train", "cars_train.tgz"),
        ("cars_test", "cars_test.tgz"),
    ):
        made = shutil.make_archive(tmp_path / folder, "gztar", root, folder)
        shutil.move(made, root / archive)
        shutil.rmtree(root / folder)
    data = load("stanford_cars", tmp_path, splits="stratified")
    assert data.test.split_info.num_examples == 4


def test_cars_say_what_to_place_where(tmp_path):
    with pytest.raises(ValueError) as caught:
        datasets.load("stanford_cars", image_size=(16, 16), data_dir=tmp_path)
    for text in (
        str(tmp_path / "cars196" / "2.1.0"),
        str(tmp_path / "stanford_cars" / "1.0.0"),
        str(tmp_path / "downloads" / "manual"),
        "cars_test_annos_withlabels.mat",
    ):
        assert text in str(caught.value)
    with pytest.raises(ValueError, match="(?s)cars_train/.*cars_train.tgz"):
        load("stanford_cars", tmp_path)
    manual = tmp_path / "downloads" / "manual"
    (manual / "stanford_cars" / "devkit").mkdir(parents=True)
    with pytest.raises(ValueError, match="cars_train or .*cars_train.tgz"):
        load("stanford_cars", tmp_path)
    shutil.rmtree(manual)
    stanford_cars(manual, labelled=False)
    with pytest.raises(ValueError, match="holds no labels"):
        load("stanford_cars", tmp_path)


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    def offline(self, url):
        raise ConnectionError(f"no route to {url}")

    monkeypatch.setattr(
        tfds.download.DownloadManager, "download_and_extract", offline
    )
    target = tmp_path / "caltech256" / "1.0.0"
    with pytest.raises(ValueError, match="data.caltech.edu") as caught:
        load("caltech256", tmp_path)
    assert f"copy the folder to {target}" in str(caught.value)


@pytest.mark.parametrize(
    "name, num_classes",
    [
        ("caltech101", 102),
        ("oxford_flowers102", 102),
        ("oxford_iiit_pet", 37),
        ("cifar10", 10),
        ("cifar100", 100),
        ("imagenette", 10),
        ("stanford_dogs", 120),
        ("caltech_birds2011", 200),
        ("cars196", 196),
    ],
)
def test_tfds_has_these_for_us(tmp_path, name, num_classes):
    from keras_epsched.datasets import paper, sources

    info = tfds.builder(name, data_dir=tmp_path).info
    image, label = sources.keys(info)
    assert (image, label) == ("image", "label")
    assert info.features[label].num_classes == num_classes
    ours = paper.of_name(info.full_name)
    assert ours is None or ours.num_classes == num_classes


@pytest.mark.parametrize(
    ("name", "shape", "encoding", "num_classes"),
    [
        ("digits", (8, 8, 1), "", 10),
        ("letters", (32, 32, 1), "", 26),
        ("caltech256", (None, None, 3), "", None),
        ("fgvc_aircraft", (None, None, 3), "jpeg", None),
        ("stanford_cars", (None, None, 3), "jpeg", None),
    ],
)
def test_prepared_data_stay_what_they_are(
    tmp_path, name, shape, encoding, num_classes
):
    module = importlib.import_module(
        f"keras_epsched.datasets.{name}.{name}_dataset_builder"
    )
    builder = tfds.builder(name, data_dir=tmp_path)
    assert type(builder) is module.Builder
    # Where tfds looks for checksums.
    assert builder.code_path.name == f"{name}_dataset_builder.py"
    assert builder.data_path == tmp_path / name / "1.0.0"
    assert builder.info.supervised_keys == ("image", "label")
    features = builder.info.features
    photo = {"image/file_name"} if num_classes is None else set()
    assert set(features) == {"image", "label"} | photo
    assert features["image"].shape == shape
    assert features["image"].to_json_content().encoding_format == encoding
    assert features["label"].num_classes == num_classes
    features["label"].save_metadata(tmp_path, "label")
    # The digits were stored without a file of names, the letters with one.
    stored = [path.name for path in tmp_path.glob("*.txt")]
    assert stored == (["label.labels.txt"] if name == "letters" else [])


def test_what_builders_share_is_no_dataset():
    from keras_epsched.datasets import tfds_builders

    known = set(tfds.list_builders())
    for shared in (tfds_builders.OfflineBuilder, tfds_builders.PhotoBuilder):
        assert shared.name not in known
