"""Pictures of adversarial images, as TensorBoard reads them."""

import io

import keras
import numpy as np
import pytest
from networks import conv_net, make_data, make_trainer
from PIL import Image

import keras_epsched as ke

pytest.importorskip("tensorflow", reason="writes what TensorBoard shows")
TARGET = 8 / 255


def read(folder):
    """Pictures by epoch as arrays from 0 to 1, and the texts."""
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    logs = event_accumulator.EventAccumulator(
        str(folder / "adversarial"), size_guidance={"tensors": 0}
    )
    logs.Reload()
    pictures, texts = {}, {}
    for tag in logs.Tags()["tensors"]:
        for event in logs.Tensors(tag):
            value = tensor_util.make_ndarray(event.tensor_proto)
            if "taken_for" in tag:
                texts[event.step] = value.item().decode()
            else:
                # Width, height, and a PNG each.
                pictures[event.step] = np.stack(
                    [np.asarray(Image.open(io.BytesIO(v))) for v in value[2:]]
                )
    return {k: v / 255 for k, v in pictures.items()}, texts


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with space")
    images, labels = make_data()
    model = make_trainer(conv_net(dropout=0, batchnorm=False))
    callback = ke.callbacks.AdversarialImages(images[:4], labels[:4], folder)
    schedule = ke.schedules.TwoHinge(TARGET, 0.3, 0.6)
    model.fit(
        images,
        labels,
        epochs=5,
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule), callback],
    )
    return images[:4], labels[:4], *read(folder)


def test_a_picture_is_clean_adversarial_and_their_difference(shown):
    images, _, pictures, _ = shown
    assert sorted(pictures) == [0, 1, 2, 3, 4]
    height, width = images.shape[1:3]
    for epoch, found in pictures.items():
        assert found.shape == (4, height, 3 * width, 3)
        clean, moved, difference = np.split(found, 3, axis=2)
        np.testing.assert_allclose(clean, images / 255, atol=1 / 255)
        epsilon = 0 if epoch < 2 else TARGET
        # Rounded to grey levels, twice.
        size = np.abs(moved - clean).max(axis=(1, 2, 3))
        if epoch in (0, 1, 4):
            np.testing.assert_allclose(size, epsilon, atol=1.1 / 255)
        if epoch == 0:
            np.testing.assert_allclose(difference, 0.5, atol=1 / 255)
        if epoch == 4:
            np.testing.assert_allclose(
                difference.max(axis=(1, 2, 3)), 1, atol=0.02
            )


def test_the_text_has_numbers_and_classes(shown):
    _, labels, _, texts = shown
    rows = texts[4].splitlines()[2:]
    cells = [[int(c) for c in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [
        [index, int(label)] for index, label in enumerate(labels)
    ]


def test_at_epsilon_zero_it_says_what_the_network_does(tmp_path):
    images, labels = make_data()
    model = make_trainer(conv_net(dropout=0, batchnorm=False))
    callback = ke.callbacks.AdversarialImages(images, labels, tmp_path)
    schedule = ke.schedules.Constant(0.0)
    model.fit(
        *(images, labels),
        verbose=0,
        callbacks=[ke.callbacks.EpsilonScheduler(schedule), callback],
    )
    rows = read(tmp_path)[1][0].splitlines()[2:]
    found = [int(row.strip("|").split("|")[2]) for row in rows]
    logits = model.model.predict(images, verbose=0)
    assert found == logits.argmax(axis=-1).tolist()
    assert len(set(found)) > 1


@pytest.mark.filterwarnings("ignore:epsilon is 0")
def test_epochs_between_are_left_out(tmp_path):
    images, labels = make_data()
    model = make_trainer(conv_net(dropout=0, batchnorm=False))
    callback = ke.callbacks.AdversarialImages(
        images[:1], labels[:1], tmp_path, every=3
    )
    model.fit(images, labels, epochs=4, verbose=0, callbacks=[callback])
    assert sorted(read(tmp_path)[0]) == [0, 2]


def test_the_training_stays_as_it_is(tmp_path):
    images, labels = make_data()

    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        model = make_trainer(conv_net(batchnorm=True))
        model.epsilon = TARGET
        model.fit(images, labels, epochs=2, verbose=0, callbacks=[*callbacks])
        return model.model.get_weights()

    watched = trained(
        ke.callbacks.AdversarialImages(images[:2], labels[:2], tmp_path)
    )
    for found, expected in zip(watched, trained(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "shape, arguments, message",
    [
        ((4, 8), {}, r"\(4, 8\)"),
        ((4, 8, 8, 2), {}, "1 or 3 channels"),
        ((4, 8, 8, 3), {"every": 0}, "every=0"),
        ((4, 8, 8, 3), {"attack": "pgd"}, "attack='pgd'"),
    ],
)
def test_mistakes_are_named(shape, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ke.callbacks.AdversarialImages(
            np.zeros(shape), np.zeros(4), tmp_path, **arguments
        )
