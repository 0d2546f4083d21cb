"""Bundled presets where KerasHub is not installed."""

import pathlib
import re
import sys

import keras
import numpy as np
import pytest

import keras_epsched as ke
from keras_epsched.models import bundled, presets

NAME = "resnet_letters"
PIXELS = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3))
PIXELS = PIXELS.astype("float32")


@pytest.fixture
def without_hub(monkeypatch):
    """From here on KerasHub cannot be imported."""
    return lambda: monkeypatch.setitem(sys.modules, "keras_hub", None)


def logits(net, pixels=PIXELS):
    return keras.ops.convert_to_numpy(net(pixels))


def names_of(net):
    return {
        block: sorted(weight.path.split("/")[-2] for weight in weights)
        for block, weights in ke.models.blocks(net).items()
        if block != "head"
    }


def test_it_is_the_network_of_keras_hub(without_hub):
    pytest.importorskip("keras_hub")
    theirs = ke.models.classifier(NAME)
    without_hub()
    ours = ke.models.classifier(NAME)
    layers = ours._flatten_layers(include_self=False)
    assert not any("keras_hub" in type(each).__module__ for each in layers)
    np.testing.assert_allclose(logits(ours), logits(theirs), atol=1e-4)
    assert ours.input_shape == theirs.input_shape == (None, 32, 32, 3)
    assert ours.count_params() == theirs.count_params()
    assert names_of(ours) == names_of(theirs)


def test_it_takes_the_arguments_of_a_preset(without_hub, tmp_path):
    without_hub()
    arguments = {"image_size": (24, 20), "seed": 3, "dropout": 0.1}
    net = ke.models.classifier(NAME, 5, **arguments)
    again = ke.models.classifier(NAME, 5, **arguments)
    assert net.input_shape == (None, 24, 20, 3)
    pixels = PIXELS[:, :24, :20]
    expected = logits(again, pixels)
    assert expected.shape == (3, 5)
    np.testing.assert_array_equal(logits(net, pixels), expected)
    assert ke.models.adapt(net, "last") is net
    net.save(tmp_path / "net.keras")
    loaded = ke.models.load(tmp_path / "net.keras")
    np.testing.assert_allclose(logits(loaded, pixels), expected, atol=1e-5)
    random = ke.models.classifier(NAME, 5, weights=None, **arguments)
    assert np.abs(logits(random, pixels) - expected).max() > 0.1
    net.save_weights(tmp_path / "net.weights.h5")
    same = ke.models.classifier(
        NAME, 5, image_size=(24, 20), weights=tmp_path / "net.weights.h5"
    )
    np.testing.assert_allclose(logits(same, pixels), expected, atol=1e-5)


def test_dtype(without_hub):
    without_hub()
    net = ke.models.classifier(NAME, 5, dtype="mixed_bfloat16")
    computed = {
        layer.compute_dtype
        for layer in net._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert computed == {"bfloat16"}
    assert logits(net).dtype == "float32"


def test_the_graph_is_that_of_the_preset(tmp_path):
    """What `launch/pretrain.py` writes beside the preset."""
    hub = pytest.importorskip("keras_hub")
    folder = presets.bundled_folder(NAME)
    backbone = hub.models.Backbone.from_preset(folder)
    bundled.save_graph(backbone, tmp_path)
    written, stored = (
        (pathlib.Path(each) / "network.json").read_text()
        for each in (tmp_path, folder)
    )
    # Older versions of Keras do not know that argument.
    assert '"input_axes"' not in stored and '"kernel_size"' in stored
    # Keras numbers the inputs of a process.
    written = re.sub(r"input_layer_\d+", "input_layer", written)
    # Older versions write a list of one input or output.
    written = re.sub(r'\[(\["\w+", 0, 0\])\]', r"\1", written)
    assert written == stored


def test_what_needs_keras_hub_says_so(without_hub, tmp_path):
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    path = tmp_path / "net.keras"
    net.save(path)
    without_hub()
    with pytest.raises(ImportError, match="vit_base.*pip install keras-hub"):
        ke.models.classifier("vit_base_patch16_224_imagenet", 5)
    with pytest.raises(ImportError, match="Near matches:.*MobileNetV2,"):
        ke.models.classifier("MobileNetV2Large", 5)
    assert ke.models.classifier(NAME, 5).output_shape == (None, 5)
    assert ke.models.load(path).output_shape == (None, 192)


def test_a_file_with_parts_of_keras_hub(without_hub, tmp_path):
    pytest.importorskip("keras_hub")
    path = tmp_path / "net.keras"
    ke.models.classifier(NAME, 5).save(path)
    without_hub()
    with pytest.raises(ImportError, match="net.keras' needs the package keras"):
        ke.models.load(path)
