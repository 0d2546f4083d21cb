"""Image folders: what is in them that is no image to train on."""

import io
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_epsched import datasets

SIZE = (8, 8)


def picture(value, size=(10, 10)):
    ramp = np.add.outer(np.arange(size[1]), np.arange(size[0])) + value
    return Image.fromarray(ramp.astype("uint8")).convert("RGB")


@pytest.fixture
def folder(tmp_path):
    """Two classes, 8 training and 2 test images each."""
    root = tmp_path / "photos"
    for split, count in (("train", 8), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                path = root / split / name / f"{number}.png"
                picture(20 * number + 10 * label).save(path)
    return root


def load(folder, **arguments):
    return datasets.load(folder, image_size=SIZE, batch_size=2, **arguments)


def encoded(image, kind, **arguments):
    file = io.BytesIO()
    image.save(file, kind, **arguments)
    return file.getvalue()


def noise(size=200):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (size, size, 3)).astype("uint8")
    return Image.fromarray(pixels)


def damaged():
    """A JPEG with another image's bytes in the middle: a broken table."""
    whole = encoded(noise(), "JPEG")
    # The frame header is kept, so that the file says its size.
    start = whole.index(b"\xff\xda")
    return whole[: start + 3] + b"\xff" * 200 + whole[start + 203 :]


BAD = {
    "text.png": (b"no image at all", "no image that can be read"),
    "empty.jpg": (b"", "no image that can be read"),
    "short.jpg": (encoded(noise(), "JPEG")[:-3000], "cannot be decoded"),
    "short.png": (encoded(noise(), "PNG")[:-3000], "cannot be decoded"),
    "deep_grey.png": (
        encoded(Image.fromarray(np.full((5, 5), 40000, "uint16")), "PNG"),
        "16 bits per channel, expected 8",
    ),
    "moving.png": (encoded(picture(0), "GIF"), "a GIF image, expected JPEG"),
    "photo.webp": (encoded(picture(0), "WEBP"), "name does not end in"),
    "photo.png.bak": (encoded(picture(0), "PNG"), "name does not end in"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_or_skipped(folder, name):
    content, problem = BAD[name]
    (folder / "train" / "bee" / name).write_bytes(content)
    message = rf"1 files .*train.bee.{name}: .*{problem}.*skip_corrupt=True"
    with pytest.raises(ValueError, match=message):
        load(folder)
    with pytest.warns(UserWarning, match="1 of 21 files .* are skipped"):
        data = load(folder, skip_corrupt=True)
    (skipped,) = data.skipped
    assert name in skipped and problem in skipped
    assert data.class_counts["train"].sum() == 13
    assert len(list(data.train)) == 6


def test_photographs_with_a_preview_are_images(folder):
    """Cameras write two pictures into a file, which Pillow calls MPO."""
    both = io.BytesIO()
    picture(0).save(both, "MPO", save_all=True, append_images=[picture(1)])
    assert Image.open(both).format == "MPO"
    (folder / "train" / "ant" / "camera.jpg").write_bytes(both.getvalue())
    assert load(folder).class_counts["train"].sum() == 14


def test_sixteen_bit_colour(folder):
    """Pillow reads these as 8 bits, without a word."""
    import tensorflow as tf

    pixels = np.full((4, 4, 3), 40000, "uint16")
    path = folder / "test" / "ant" / "deep.png"
    path.write_bytes(tf.io.encode_png(pixels).numpy())
    with pytest.raises(ValueError, match="test.ant.deep.png: 16 bits"):
        load(folder)


def test_all_bad_files_are_counted_and_ten_are_named(folder):
    for number in range(12):
        (folder / "train" / "ant" / f"bad{number:02}.png").write_text("x")
    with pytest.raises(ValueError, match="12 files .*bad09.*and 2 more"):
        load(folder)
    with pytest.warns(UserWarning, match="12 of 32 files"):
        assert len(load(folder, skip_corrupt=True).skipped) == 12


def test_damage_in_the_middle_is_named_when_it_is_decoded(folder):
    import tensorflow as tf

    path = folder / "test" / "ant" / "damaged.jpg"
    path.write_bytes(damaged())
    with Image.open(path) as image:
        assert image.size == (200, 200), "the header is whole"
    data = load(folder)
    with pytest.raises(tf.errors.InvalidArgumentError, match="damaged.jpg"):
        list(data.test)
    with pytest.warns(UserWarning, match="skipped.*damaged.jpg"):
        data = load(folder, skip_corrupt=True)
    assert sum(len(labels) for _, labels in data.test) == 4


def test_a_repaired_file_is_looked_at_again(folder):
    path = folder / "test" / "bee" / "1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="cut short"):
        load(folder)
    path.write_bytes(whole)
    assert load(folder).skipped == ()


def test_what_can_be_read_is_read(folder):
    """Grey, palette, other suffixes, a JPEG that is called PNG."""
    ants = folder / "test" / "ant"
    shutil.rmtree(ants)
    ants.mkdir()
    base = Image.new("RGB", (6, 6), (90, 90, 90))
    base.convert("L").save(ants / "grey.PNG")
    base.convert("L").save(ants / "grey.jpeg")
    base.convert("P", palette=Image.Palette.ADAPTIVE).save(ants / "palette.png")
    base.convert("CMYK").save(ants / "print.jpg")
    (ants / "misnamed.png").write_bytes(encoded(base, "JPEG"))
    (ants / "notes.txt").write_text("not an image")
    (ants / "Thumbs.db").write_bytes(b"\0\1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = load(folder)
    assert data.class_counts["test"].tolist() == [5, 2]
    for images, labels in data.test.as_numpy_iterator():
        assert images.shape[1:] == (*SIZE, 3)
        np.testing.assert_allclose(images[labels == 0], 90, atol=3)


def test_an_alpha_channel_is_dropped_with_a_warning(folder):
    path = folder / "train" / "bee" / "clear.png"
    Image.new("RGBA", (6, 6), (10, 20, 30, 0)).save(path)
    with pytest.warns(UserWarning, match="1 images .*alpha.*clear.png"):
        load(folder)


def test_an_empty_class_is_named(folder):
    (folder / "train" / "wasp").mkdir()
    with pytest.raises(ValueError, match="without an image.*train.wasp"):
        load(folder)
    (folder / "train" / "wasp" / "list.txt").write_text("none yet")
    with pytest.raises(ValueError, match="without an image.*train.wasp"):
        load(folder)


def test_a_class_of_the_test_alone_is_reported(folder):
    shutil.copytree(folder / "test" / "bee", folder / "test" / "wasp")
    with pytest.warns(UserWarning, match="1 of the 3 classes.*wasp"):
        load(folder)


def test_other_files_are_another_choice(folder):
    before = load(folder).validation.split_info
    assert load(folder).validation.split_info == before
    picture(7).save(folder / "train" / "ant" / "new.png")
    after = load(folder).train.split_info
    assert after.digest != before.digest and after.overlaps(before)


# === Layouts ===


def place(folder, count, value=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(20 * number + value).save(folder / f"{number}.png")


def test_images_in_sub_folders_belong_to_their_class(folder):
    place(folder / "train" / "ant" / "wings" / "two", 3, 5)
    place(folder / "test" / "bee" / "old", 1, 5)
    data = load(folder)
    assert data.class_names == ("ant", "bee")
    assert data.train.split_info.base == "train"
    counts = data.class_counts["train"] + data.class_counts["validation"]
    assert counts.tolist() == [11, 8]
    assert data.class_counts["test"].tolist() == [2, 3]


def test_a_class_folder_that_is_a_link_is_followed(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (folder / "train" / "ant").rename(elsewhere)
    (folder / "train" / "ant").symlink_to(elsewhere, target_is_directory=True)
    assert sum(load(folder).class_counts["train"]) > 0


def test_class_folders_without_splits_are_training_images(folder):
    flat = folder / "train"
    with pytest.raises(ValueError, match="test_split=0.2"):
        load(flat)
    place(flat / "ant" / "small", 2, 5)
    data = load(flat, test_split=0.25)
    assert data.class_names == ("ant", "bee")
    sizes = [
        part.split_info.num_examples
        for part in (data.train, data.validation, data.test)
    ]
    assert sum(sizes) == 18
    for part in (data.train, data.validation, data.test):
        assert part.split_info.base == "train"
    images, labels = next(iter(data.test))
    assert images.shape[1:] == (*SIZE, 3) and set(np.asarray(labels)) <= {0, 1}


def test_images_outside_of_class_folders_are_refused(folder):
    picture(0).save(folder / "train" / "loose.png")
    with pytest.raises(ValueError, match="1 images .* no class folder: train/"):
        load(folder)


def test_hidden_folders_within_classes_are_refused(folder):
    place(folder / "train" / "ant" / ".ipynb_checkpoints", 1)
    with pytest.raises(ValueError, match="ipynb_checkpoints"):
        load(folder)


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_orientation_is_told_and_not_applied(folder, orientation):
    image = picture(0, size=(6, 12))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / "test" / "ant" / "turned.jpg", exif=exif, quality=95)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load(folder)
    said = [str(each.message) for each in caught]
    turned = [each for each in said if "orientation" in each]
    assert bool(turned) == (orientation != 1)
    if turned:
        assert "test/ant/turned.jpg" in turned[0]
    images = np.concatenate([np.asarray(each) for each, _ in data.test])
    stored = np.asarray(image.resize(SIZE), "float32")
    assert min(np.abs(each - stored).mean() for each in images) < 3


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_validation_folders_by_their_usual_names(folder, name):
    place(folder / name / "ant", 3, 5)
    place(folder / name / "bee", 1, 9)
    data = load(folder)
    assert data.class_counts["validation"].tolist() == [3, 1]
    assert data.class_counts["train"].tolist() == [8, 8]


def test_links_in_a_circle_are_named(folder):
    (folder / "train" / "ant" / "loop.png").symlink_to("loop.png")
    with pytest.raises(ValueError, match="loop.png"):
        load(folder)
    with pytest.warns(UserWarning, match="loop.png"):
        assert load(folder, skip_corrupt=True).num_classes == 2
