"""What is trained in each mode, and that nothing is frozen silently."""

import types

import keras
import keras_hub
import numpy as np
import pytest
from networks import CLASSES, conv_net, drive, make_data, make_trainer

import keras_epsched as ke
from keras_epsched.models import (
    adapt,
    blocks,
    parameter_groups,
    parts,
)


def transformer(num_classes=CLASSES):
    keras.utils.set_random_seed(2)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 3),
        patch_size=4,
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    )
    task = keras_hub.models.ViTImageClassifier(
        backbone, num_classes=num_classes, preprocessor=None
    )
    return ke.models.classifier(task, scale=1 / 127.5, offset=-1.0)


def trained_paths(model):
    return [variable.path for variable in model.trainable_variables]


def test_blocks_of_a_transformer():
    # KerasHub 0.26 misspells them.
    found = {
        name.replace("tranformer", "transformer"): block
        for name, block in blocks(transformer()).items()
    }
    assert [name.split("/")[-1] for name in found] == [
        "stem",
        "transformer_block_1",
        "transformer_block_2",
        "transformer_block_3",
        "head",
    ]
    assert found["head"][0].path == "predictions/kernel"
    # The last normalisation belongs to the last block.
    assert len([*found.values()][3]) == len([*found.values()][1]) + 2


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("MobileNet", "conv_dw_1", "conv_dw_13", 15),
        ("ResNet50", "conv2_block1", "conv5_block3", 18),
        ("EfficientNetB0", "block1a", "block7a", 18),
    ],
)
def test_blocks_of_applications(name, first, last, count):
    backbone = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    model = ke.models.classifier(backbone, 5, scale=1.0, offset=0.0)
    found = blocks(model)
    names = [*found]
    assert (names[0], names[1], names[-2], names[-1]) == (
        "stem",
        first,
        last,
        "head",
    )
    assert len(found) == count
    together = [id(v) for part in found.values() for v in part]
    assert sorted(together) == sorted(map(id, model.trainable_variables))


def test_layers_without_names_are_blocks():
    found = blocks(conv_net())
    names = [*found]
    assert len(found) == 2 and names[-1] == "head"
    # The convolution with its normalisation.
    assert len(found[names[0]]) == 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("block12a_expand_conv", "block12a"),
        ("downsampling_block_0/conv", "downsampling_block_0"),
        ("stage_1_block_3_conv", "stage_1_block_3"),
        ("normal_A_block_12/block_5/conv", "normal_A_block_12"),
        ("reduction_A_block_stem_1/block_2/x", "reduction_A_block_stem_1"),
        ("reduction_A_block_reduce_4/block_1", "reduction_A_block_reduce_4"),
        # The other layers of these blocks have no such names.
        ("block35_10_conv", None),
        ("conv2d_7", None),
    ],
)
def test_names_of_blocks(path, name):
    layer = types.SimpleNamespace(path=path)
    assert parts.block_name(layer) == name


def branched(long_skip=False):
    """Two convolutions, then twice two branches, without names of blocks."""

    def conv(x):
        x = keras.layers.Conv2D(2, 1, padding="same", use_bias=False)(x)
        return keras.layers.BatchNormalization(scale=False)(x)

    inputs = keras.Input((8, 8, 3))
    x = first = conv(conv(inputs))
    for name in ("mixed0", "mixed1"):
        branches = [conv(conv(x)), conv(x)]
        x = keras.layers.Concatenate(name=name)(branches)
    if long_skip:
        x = keras.layers.Concatenate(name="end")([x, first, inputs])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def test_branches_and_their_merge_are_a_block():
    model = branched()
    for each in (model, ke.models.classifier(model, 5, scale=1.0, offset=0.0)):
        found = blocks(each)
        names = [name.split("/")[-1] for name in found]
        assert names[2:] == ["mixed0", "mixed1", "head"]
        assert [len(part) for part in found.values()] == [2, 2, 6, 6, 2]
    adapt(model, "last", last=1)
    assert len(model.trainable_variables) == 8
    rates = [group["multiplier"] for group in parameter_groups(model)]
    assert rates == [1.0] * 5


def test_blocks_of_inception():
    backbone = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(75, 75, 3)
    )
    model = ke.models.classifier(backbone, 5, scale=1.0, offset=0.0)
    names = [name.split("/")[-1] for name in blocks(model)]
    # Five convolutions come first.
    assert names[5:] == [*(f"mixed{i}" for i in range(11)), "head"]


def test_blocks_that_are_not_found():
    model = branched(long_skip=True)
    assert [*blocks(model)] == ["end", "head"]
    with pytest.raises(ValueError, match="`last` needs blocks.*all its 8"):
        adapt(model, "last")
    with pytest.raises(ValueError, match="`layer_decay` needs blocks"):
        parameter_groups(model, layer_decay=0.5)
    # What needs none goes on.
    assert len(parameter_groups(model, head_multiplier=2.0)) == 2
    adapt(model, "head")
    assert len(model.trainable_variables) == 2


def test_modes_and_back_again():
    model = transformer()
    everything = trained_paths(model)
    assert adapt(model, "head") is model
    assert trained_paths(model) == ["predictions/kernel", "predictions/bias"]
    adapt(model, "last", last=2)
    paths = trained_paths(model)
    assert len(paths) == 36
    assert not [path for path in paths if "block_1" in path or "patch" in path]
    adapt(model, "full")
    assert trained_paths(model) == everything


class Encoder(keras.layers.Layer):
    """Holds a weight of its own beside its blocks."""

    def __init__(self):
        super().__init__(name="encoder")
        self.blocks = [keras.layers.Dense(4, name=f"block_{i}") for i in (0, 1)]

    def build(self, shape):
        self.offset = self.add_weight(shape=(shape[-1],), name="offset")
        for block in self.blocks:
            block.build((*shape[:-1], 4))

    def call(self, x):
        x = x + self.offset
        for block in self.blocks:
            x = block(x)
        return x


def test_blocks_inside_a_layer_with_weights():
    inputs = keras.Input((4,))
    logits = keras.layers.Dense(3, name="logits")(Encoder()(inputs))
    model = adapt(keras.Model(inputs, logits), "last", last=1)
    assert trained_paths(model) == [
        "encoder/block_1/kernel",
        "encoder/block_1/bias",
        "logits/kernel",
        "logits/bias",
    ]


@pytest.mark.ci
def test_lora_trains_what_it_says(tmp_path):
    model = transformer()
    images = make_data()[0]
    before = model.predict(images, verbose=0)
    adapt(model, "lora", rank=2)
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)
    paths = trained_paths(model)
    assert len(paths) == 3 * 2 * 2 + 2
    assert all("lora" in path or "predictions" in path for path in paths)
    frozen = [np.asarray(each) for each in model.non_trainable_variables]
    trainer = make_trainer(model, {"optimizer": keras.optimizers.Adam(0.01)})
    trainer.fit(*make_data(), epochs=2, callbacks=drive(), verbose=0)
    for old, new in zip(frozen, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)
    after = model.predict(images, verbose=0)
    assert np.abs(after - before).max() > 1e-3
    model.save(tmp_path / "lora.keras")
    loaded = ke.models.load(tmp_path / "lora.keras")
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), after, atol=1e-5
    )
    with pytest.raises(ValueError, match="cannot be undone"):
        adapt(model, "full")


def test_lora_never_freezes_all():
    model = conv_net()
    with pytest.raises(ValueError, match="freeze the whole backbone"):
        adapt(model, "lora")
    assert len(model.trainable_variables) == 6
    adapt(model, "lora", targets="conv")
    assert [path.split("/")[-1] for path in trained_paths(model)[:2]] == [
        "lora_kernel_a",
        "lora_kernel_b",
    ]


def test_frozen_batchnorm_keeps_its_statistics():
    model = conv_net()
    adapt(model, "head")
    trainer = make_trainer(model)
    trainer.fit(*make_data(), callbacks=drive(), verbose=0)
    layer = next(
        each
        for each in model.layers
        if isinstance(each, keras.layers.BatchNormalization)
    )
    assert not np.asarray(layer.moving_mean).any()


def test_bad_modes():
    model = transformer()
    with pytest.raises(ValueError, match="`mode` must be one of"):
        adapt(model, "some")
    with pytest.raises(ValueError, match="between 1 and 4"):
        adapt(model, "last", last=5)
    inputs = keras.Input((8, 8, 3))
    headless = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match="does not end in a `Dense` layer"):
        adapt(headless, "head")


def test_parameter_groups():
    model = transformer()
    found = parameter_groups(
        model, head_multiplier=10.0, layer_decay=0.5, head_weight_decay=0.1
    )
    multipliers = [group["multiplier"] for group in found]
    assert multipliers == [10.0, 0.5, 0.25, 0.125, 0.0625]
    assert [group["weight_decay"] for group in found] == [0.1, *[None] * 4]
    paths = [path for group in found for path in group["variables"]]
    assert sorted(paths) == sorted(trained_paths(model))
    with pytest.raises(ValueError, match="layer_decay"):
        parameter_groups(model, layer_decay=0.0)
    with pytest.raises(ValueError, match="head_multiplier"):
        parameter_groups(model, head_multiplier=0.0)


def test_trainable_parameters_are_counted():
    model = conv_net(batchnorm=False)
    assert ke.models.trainable_parameters(model) == (
        "611 of 611 parameters are trained (100 %)"
    )
    adapt(model, "head")
    assert ke.models.trainable_parameters(model) == (
        "387 of 611 parameters are trained (63.3 %)"
    )
