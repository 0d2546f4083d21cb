"""What models and datasets say of themselves, and what a file keeps of it."""

import keras
import numpy as np
import pytest
from networks import conv_net, make_data, make_trainer

import keras_epsched as ke
from keras_epsched import provenance

SPLIT = ke.datasets.SplitInfo("toy/1.0.0", "train", "train", 0, 8, 8)
OTHER = ke.datasets.SplitInfo("toy/1.0.0", "test", "test", 0, 4, 4)


def ranged(value_range=(0, 1)):
    return ke.models.classifier(
        conv_net(), scale=1 / 255, offset=0.0, value_range=value_range
    )


def test_a_model_that_says_nothing():
    net = conv_net()
    assert provenance.value_range_of(net) is None
    assert provenance.splits_seen_by(net) == ()
    assert provenance.split_of([1, 2]) is None


def test_a_range_is_a_pair_however_it_was_set():
    net = conv_net()
    for value in ([0, 1], (0, 1), np.array([0, 1])):
        net.value_range = value
        assert provenance.value_range_of(net) == (0, 1)
    provenance.remember_value_range(net, [-1, 1])
    assert net.value_range == (-1, 1)


def test_splits_add_up():
    net = conv_net()
    provenance.remember_split(net, None)
    assert not hasattr(net, "training_splits")
    for split in (SPLIT, OTHER, SPLIT):
        provenance.remember_split(net, split)
    assert provenance.splits_seen_by(net) == (SPLIT, OTHER, SPLIT)
    assert net.training_splits == provenance.splits_seen_by(net)


def test_a_dataset_tells_its_split():
    dataset = ke.datasets.ImageBatches([(np.zeros((8, 8), "uint8"), 0)], (8, 8))
    assert provenance.split_of(dataset) is None
    provenance.set_split(dataset, SPLIT)
    assert provenance.split_of(dataset) == dataset.split_info == SPLIT
    rows = ke.datasets.worker_rows(dataset, 0, 1)
    assert provenance.split_of(rows) == SPLIT


def test_evaluation_takes_the_range_of_the_classifier():
    images, labels = make_data(8)
    net = ranged()
    arguments = {"epsilons": [0.01], "self_check": False, "verbose": 0}
    report = ke.evaluate(net, (images / 255, labels), **arguments)
    assert report.value_range == (0, 1)
    del net.value_range
    with pytest.raises(ValueError, match="scaled to"):
        ke.evaluate(net, (images / 255, labels), **arguments)


def test_a_file_of_a_classifier_keeps_neither(tmp_path):
    net = ranged()
    provenance.remember_split(net, SPLIT)
    net.save(tmp_path / "net.keras")
    again = ke.models.load(tmp_path / "net.keras")
    assert provenance.value_range_of(again) is None
    assert provenance.splits_seen_by(again) == ()
    # The scaling is a layer.
    pixels = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    np.testing.assert_array_equal(again(pixels), net(pixels))
    assert provenance.value_range_of(keras.models.clone_model(net)) is None


def test_a_file_of_a_trainer_keeps_the_range(tmp_path):
    trainer = make_trainer(ranged(), attack=ke.attacks.FGSM())
    provenance.remember_split(trainer.model, SPLIT)
    images, labels = make_data(8)
    trainer.train_on_batch(images / 255, labels)
    trainer.save(tmp_path / "trainer.keras")
    classifier = ke.models.load(tmp_path / "trainer.keras")
    assert provenance.value_range_of(classifier) == (0, 1)
    assert provenance.splits_seen_by(classifier) == ()
