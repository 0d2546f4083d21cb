"""Classifiers as tasks and presets of KerasHub."""

import families
import keras
import numpy as np
import pytest
from keras import ops

import keras_epsched as ke

keras_hub = pytest.importorskip("keras_hub")


def pixels(net, seed=0):
    shape = (3, *net.input_shape[1:])
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape).astype("float32")


def logits(model, images):
    return ops.convert_to_numpy(model(images, training=False))


def make(name, dtype=None):
    size = {"image_size": (32, 32), "seed": 1}
    if name == "resnet_letters":
        return ke.models.classifier(name, 4, dtype=dtype, **size)
    task = keras_hub.models.ViTImageClassifier(
        families.build("vit"), 5, pooling="gap"
    )
    return ke.models.classifier(task, scale=[0.01, 0.02, 0.03], offset=-1.0)


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("resnet_letters", None),
        ("resnet_letters", "mixed_bfloat16"),
        ("vit", None),
    ],
)
def test_a_preset_gives_the_same_logits(name, dtype, tmp_path):
    net = make(name, dtype)
    if name == "resnet_letters":
        # As after a fine-tuning.
        for weight in net.trainable_variables:
            weight.assign(weight + 0.01)
    net.save(tmp_path / "net.keras")
    net = ke.models.load(tmp_path / "net.keras")
    images = pixels(net)
    expected = logits(net, images)

    ke.models.to_keras_hub(net).save_to_preset(str(tmp_path / "preset"))

    task = keras_hub.models.ImageClassifier.from_preset(
        str(tmp_path / "preset")
    )
    close = {"rtol": 1e-4, "atol": 1e-4}
    if dtype:
        close = {"rtol": 0.05, "atol": 0.001 * np.abs(expected).max()}
    np.testing.assert_allclose(
        task.predict(images, verbose=0), expected, **close
    )
    # And back, in pixel space.
    again = ke.models.classifier(str(tmp_path / "preset"))
    np.testing.assert_allclose(logits(again, images), expected, **close)


# Of the others KerasHub has no classifier, or one with another head than ours
# on a bare backbone.
@pytest.mark.parametrize(
    "family",
    [
        *("vit", "deit", "resnet", "efficientnet"),
        *(
            pytest.param(family, marks=pytest.mark.ci)
            for family in ("swin", "densenet", "xception", "mit", "cspnet")
        ),
    ],
)
def test_a_new_head_on_a_backbone_is_one_of_keras_hub(family):
    net = ke.models.classifier(
        families.build(family), 3, scale=0.01, offset=-1.0, image_size=(32, 32)
    )
    task = ke.models.to_keras_hub(net)
    images = pixels(net)
    found = logits(task, task.preprocessor(images))
    np.testing.assert_allclose(found, logits(net, images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family, name", [("vgg", "VGG"), ("resnet", "ResNet")])
def test_a_task_of_keras_hub_comes_back(family, name):
    task_class = getattr(keras_hub.models, f"{name}ImageClassifier")
    net = ke.models.classifier(
        task_class(families.build(family), 3), scale=0.01, offset=-1.0
    )
    assert type(ke.models.to_keras_hub(net)) is task_class


def test_a_global_policy_stays_out_of_a_preset():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        task = ke.models.to_keras_hub(make("resnet_letters"))
    finally:
        keras.config.set_dtype_policy("float32")
    converter = task.preprocessor.image_converter
    assert converter.compute_dtype == task.backbone.compute_dtype == "float32"


def test_what_keras_hub_has_no_classifier_for_is_refused():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    plain = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(ValueError, match="0 backbones of KerasHub"):
        ke.models.to_keras_hub(plain)
    # A head that no classifier of KerasHub has.
    net = make("resnet_letters")
    stretched = keras.Model(net.input, 2.0 * net.output)
    with pytest.raises(ValueError, match="head or normalisation"):
        ke.models.to_keras_hub(stretched)
    tower = families.build("dinov3")
    net = ke.models.classifier(tower, 3, scale=1.0, offset=0.0)
    with pytest.raises(ValueError, match="no classifier of a DINOV3Backbone"):
        ke.models.to_keras_hub(net)
