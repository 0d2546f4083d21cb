"""`models`: presets, Keras models and files to pixel-space classifiers."""

import subprocess
import sys

import families
import keras
import numpy as np
import pytest
from keras import ops

from keras_epsched import models

SCALE = [0.0137, 0.0140, 0.0139]
OFFSET = [-1.58, -1.52, -1.33]


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


def logits(model, x):
    return np.asarray(model.predict(x, verbose=0))


def outputs(model, x, **kwargs):
    return ops.convert_to_numpy(model(x, **kwargs))


def assert_same_arithmetic(found, expected):
    """XLA contracts the normalisation where it is inside the model."""
    rounding = 1e-5 if keras.backend.backend() == "jax" else 0
    np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding)


def small_model(channels=3, activation=None, **last):
    inputs = keras.Input((8, 8, channels))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(
        inputs, keras.layers.Dense(5, activation=activation, **last)(x)
    )


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Folder of a tiny random ResNet preset with a head of 5 classes."""
    import keras_hub

    keras.utils.set_random_seed(1)
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(32, 32), scale=SCALE, offset=OFFSET
    )
    task = keras_hub.models.ResNetImageClassifier(
        backbone,
        num_classes=5,
        preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(
            converter
        ),
    )
    folder = tmp_path_factory.mktemp("presets")
    task.save_to_preset(folder / "tiny")
    backbone.save_to_preset(folder / "headless")
    task.preprocessor.save_to_preset(folder / "headless")
    softmax = keras_hub.models.ResNetImageClassifier(
        backbone, num_classes=5, activation="softmax"
    )
    softmax.output_dense.set_weights(task.output_dense.get_weights())
    families.save_task(softmax, folder / "softmax_no_converter")
    return folder / "tiny"


# === Presets ===


def hub_task(path, **kwargs):
    import keras_hub

    return keras_hub.models.ImageClassifier.from_preset(str(path), **kwargs)


def test_preset_equals_task_predict(preset):
    x = pixels(3, 32, 32, 3)
    net = models.classifier(preset)
    assert net.input_shape == (None, 32, 32, 3)
    assert_same_arithmetic(
        logits(net, x), hub_task(preset).predict(x, verbose=0)
    )


@pytest.mark.ci
def test_vit_equals_task_predict_and_survives_saving(shared_data, tmp_path):
    path = shared_data / "weights" / "vit_tiny_16_224_tinyimagenet"
    if not path.is_dir():
        pytest.skip(f"no ViT weights in {path}")
    x = pixels(2, 224, 224, 3)
    net = models.classifier(path)
    expected = hub_task(path).predict(x, verbose=0)
    assert_same_arithmetic(logits(net, x), expected)
    net.save(tmp_path / "vit.keras")
    loaded = models.load(tmp_path / "vit.keras")
    np.testing.assert_array_equal(logits(loaded, x), logits(net, x))
    with pytest.raises(ValueError, match="multiple of 16.*(100, 128)"):
        models.classifier(path, image_size=(100, 128))


def test_headless_resnet_with_a_new_head_equals_task_predict(shared_data):
    path = shared_data / "weights" / "resnet50v2_stage2_imagenet"
    if not path.is_dir():
        pytest.skip(f"no ResNet weights in {path}")
    x = pixels(2, 128, 128, 3)
    net = models.classifier(path, num_classes=7, seed=3)
    task = hub_task(path, num_classes=7)
    kernel, bias = net.weights[-2:]
    task.output_dense.set_weights([kernel.numpy(), bias.numpy()])
    assert_same_arithmetic(logits(net, x), task.predict(x, verbose=0))


def test_preset_at_another_size(preset):
    net = models.classifier(preset, image_size=(48, 40))
    assert net.input_shape == (None, 48, 40, 3)
    assert logits(net, pixels(1, 48, 40, 3)).shape == (1, 5)


def test_head_of_a_preset(preset):
    def kernel(seed):
        return models.classifier(preset, 7, seed=seed).weights[-2].numpy()

    assert kernel(1).shape == (64, 7)
    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert np.abs(kernel(1) - kernel(2)).max() > 0.01
    # The same number of classes is a new head as well.
    old = models.classifier(preset).weights
    new = models.classifier(preset, 5, seed=0).weights
    np.testing.assert_array_equal(old[0].numpy(), new[0].numpy())
    assert np.abs(old[-2].numpy() - new[-2].numpy()).max() > 0.01


def test_dropout_reaches_the_head_of_a_preset(preset):
    net = models.classifier(preset, 5, dropout=0.5)
    x = pixels(2, 32, 32, 3)
    assert np.abs(outputs(net, x, training=True) - outputs(net, x)).max() > 0


def test_dropout_that_a_hub_head_would_drop_is_an_error(tmp_path):
    import keras_hub

    backbone = keras_hub.models.MobileNetBackbone(
        stackwise_expansion=[[40]],
        stackwise_num_blocks=[1],
        stackwise_num_filters=[[16]],
        stackwise_kernel_size=[[3]],
        stackwise_num_strides=[[1]],
        stackwise_se_ratio=[[None]],
        stackwise_activation=[["relu6"]],
        stackwise_padding=[[1]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=False,
        squeeze_and_excite=None,
        last_layer_filter=32,
        image_shape=(None, None, 3),
    )
    backbone.save_to_preset(tmp_path / "mobilenet")
    common = dict(num_classes=3, scale=1 / 255, offset=0.0, image_size=(32, 32))
    models.classifier(tmp_path / "mobilenet", **common)
    with pytest.raises(ValueError, match="no dropout"):
        models.classifier(tmp_path / "mobilenet", dropout=0.1, **common)


def test_normalisation_of_a_preset_can_be_overridden(preset):
    x = pixels(2, 32, 32, 3)
    task = hub_task(preset)
    net = models.classifier(preset, scale=1 / 255, offset=0.5)
    np.testing.assert_allclose(
        logits(net, x), outputs(task, x / 255 + 0.5), rtol=1e-5, atol=1e-5
    )


def test_hub_task_object_brings_its_normalisation(preset):
    x = pixels(2, 32, 32, 3)
    task = hub_task(preset)
    net = models.classifier(task)
    assert_same_arithmetic(logits(net, x), task.predict(x, verbose=0))


def test_preset_without_converter_or_head(preset, tmp_path):
    other = preset.parent / "softmax_no_converter"
    with pytest.raises(ValueError, match="`scale` and `offset`"):
        models.classifier(other, image_size=(32, 32))
    with pytest.raises(ValueError, match="num_classes"):
        models.classifier(preset.parent / "headless")
    net = models.classifier(preset.parent / "headless", 4)
    assert net.output_shape == (None, 4)
    # KerasHub would leave the head random here and say nothing.
    for file in preset.iterdir():
        if file.name != "task.weights.h5":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="num_classes"):
        models.classifier(tmp_path)


def test_softmax_of_a_preset_is_taken_off(preset):
    x = pixels(2, 32, 32, 3)
    other = preset.parent / "softmax_no_converter"
    net = models.classifier(
        other, image_size=(32, 32), scale=SCALE, offset=OFFSET
    )
    np.testing.assert_array_equal(
        logits(net, x), logits(models.classifier(preset), x)
    )


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="resnet_18_imagenet"):
        models.classifier("resnet18_imagenet", 3)
    with pytest.raises(ValueError, match="vit_base_patch16_224_imagenet"):
        models.classifier("vit_base_patch16_224_imagnet", 3)
    with pytest.raises(ValueError, match="keras.applications.*MobileNetV2"):
        models.classifier("keras.applications.MobileNetv2", 3)
    with pytest.raises(ValueError, match="takes no images"):
        models.classifier("bert_base_en", 3)
    with pytest.raises(ValueError, match="no config.json"):
        models.classifier(tmp_path, 3)
    with pytest.raises(ValueError, match="source=3"):
        models.classifier(3, 3)


def test_failed_download_says_so(monkeypatch):
    import keras_hub

    cause = OSError("no route to host")

    def fail(*args, **kwargs):
        raise cause

    monkeypatch.setattr(keras_hub.models.ImageClassifier, "from_preset", fail)
    with pytest.raises(ConnectionError, match="not be downloaded") as caught:
        models.classifier("resnet_18_imagenet")
    assert caught.value.__cause__ is cause


def test_bundled_presets_are_found_by_name(preset, tmp_path, monkeypatch):
    from keras_epsched.models import presets

    for name in models.bundled_presets():
        assert models.classifier(name).output_shape[0] is None
    monkeypatch.setattr(presets, "_BUNDLED", preset.parent)
    assert "tiny" in models.bundled_presets()
    x = pixels(2, 32, 32, 3)
    np.testing.assert_array_equal(
        logits(models.classifier("tiny"), x),
        logits(models.classifier(preset), x),
    )


# === Keras models ===


def test_mobilenet_with_local_weights_and_saving(shared_data, tmp_path):
    path = shared_data / "weights" / "mobilenet_v1_075_224"
    path = path / "mobilenet_7_5_224_no_top.weights.h5"
    if not path.is_file():
        pytest.skip(f"no MobileNet weights in {path}")
    base = keras.applications.MobileNet(
        alpha=0.75, include_top=False, input_shape=(64, 64, 3), weights=path
    )
    net = models.classifier(
        base, num_classes=12, scale=1 / 127.5, offset=-1.0, seed=0
    )
    x = pixels(2, 64, 64, 3)
    kernel, bias = net.get_layer("logits").get_weights()
    features = outputs(base, x / 127.5 - 1).mean(axis=(1, 2))
    np.testing.assert_allclose(
        logits(net, x), features @ kernel + bias, rtol=1e-4, atol=1e-4
    )
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(logits(loaded, x), logits(net, x))


def test_finished_model_is_taken_as_it_is():
    model = small_model(channels=1)
    x = pixels(2, 8, 8, 1)
    net = models.classifier(model, value_range=(0, 1))
    np.testing.assert_array_equal(logits(net, x), logits(model, x))


def test_dense_is_cut_and_replaced():
    end = [keras.layers.Activation("softmax")]
    dense = keras.layers.Dense(5)
    body = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(4, 3),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dropout(0.9),
    ]
    sequential = keras.Sequential([*body, dense, *end])
    for source in (
        small_model(activation="softmax"),
        sequential,
        keras.Sequential([*body[:-1], keras.Sequential([dense])]),
        models.classifier(small_model(), scale=2.0, offset=1.0),
    ):
        net = models.classifier(source, 3, scale=1.0, offset=0.0)
        # The convolution and the new head: the old head is gone.
        shapes = [tuple(weight.shape) for weight in net.weights]
        assert shapes == [(3, 3, 3, 4), (4,), (4, 3), (3,)]
        x = pixels(2, 8, 8, 3)
        np.testing.assert_array_equal(
            outputs(net, x, training=True), outputs(net, x)
        )


def test_new_head_keeps_the_features_and_the_inner_normalisation():
    inner = models.classifier(small_model(), scale=0.01, offset=-1.0)
    net = models.classifier(inner, 3, scale=1.0, offset=0.0)
    x = pixels(2, 8, 8, 3)
    conv = [w.numpy() for w in inner.weights[:2]]
    layer = keras.layers.Conv2D(4, 3)
    layer.build((None, 8, 8, 3))
    layer.set_weights(conv)
    kernel, bias = net.get_layer("logits").get_weights()
    features = outputs(layer, x * 0.01 - 1).mean(axis=(1, 2))
    np.testing.assert_allclose(
        logits(net, x), features @ kernel + bias, rtol=1e-4, atol=1e-4
    )


def test_feature_models_get_a_head_and_dropout():
    inputs = keras.Input((None, None, 1))
    body = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    rank4 = keras.Model(inputs, body)
    rank2 = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(body))
    x = pixels(2, 12, 10, 1)
    for model in (rank4, rank2):
        net = models.classifier(
            model,
            3,
            scale=1 / 255,
            offset=0.0,
            dropout=0.5,
            image_size=(12, 10),
            name="mine",
        )
        assert net.name == "mine"
        assert net.input_shape == (None, 12, 10, 1)
        assert (
            np.abs(outputs(net, x, training=True) - outputs(net, x)).max() > 0
        )
    free = models.classifier(rank4, 3, scale=1 / 255, offset=0.0)
    assert free.input_shape == (None, None, None, 1)


class Features(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(4, 3)

    def call(self, inputs):
        return self.conv(inputs)


def test_subclassed_models():
    model = Features()
    arguments = dict(scale=1 / 255, offset=0.0)
    with pytest.raises(ValueError, match="not built"):
        models.classifier(model, 3, **arguments)
    x = pixels(2, 8, 8, 3)
    model(x)
    net = models.classifier(model, 3, **arguments)
    assert logits(net, x).shape == (2, 3)
    with pytest.raises(ValueError, match="num_classes"):
        models.classifier(model)


def test_seed_of_the_new_head():
    def kernel(seed):
        net = models.classifier(
            small_model(), 3, scale=1.0, offset=0.0, seed=seed
        )
        return net.get_layer("logits").kernel.numpy()

    np.testing.assert_array_equal(kernel(4), kernel(4))
    assert np.abs(kernel(4) - kernel(5)).max() > 0.01


def test_value_range_changes_units_not_numbers():
    model = small_model()
    x = pixels(2, 8, 8, 3)
    settings = dict(scale=SCALE, offset=OFFSET)
    expected = logits(models.classifier(model, **settings), x)
    np.testing.assert_allclose(
        expected,
        outputs(model, x * np.float32(SCALE) + np.float32(OFFSET)),
        rtol=1e-5,
    )
    for low, high in ((0, 1), (-1, 1)):
        net = models.classifier(model, value_range=(low, high), **settings)
        np.testing.assert_allclose(
            logits(net, low + x / 255 * (high - low)),
            expected,
            rtol=1e-3,
            atol=1e-5,
        )


def test_softmax_is_refused():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    by_op = keras.Model(inputs, keras.ops.softmax(x))
    by_layer = keras.Model(inputs, keras.layers.Softmax()(x))
    nested = keras.Sequential(
        [keras.Input((8, 8, 3)), small_model(activation="softmax")]
    )
    for model in (small_model(activation="softmax"), by_op, by_layer, nested):
        with pytest.raises(ValueError, match="softmax"):
            models.classifier(model)
    for model in (by_op, by_layer):
        with pytest.raises(ValueError, match="include_top=False"):
            models.classifier(model, 3, scale=1.0, offset=0.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_classes=3), "1/127.5"),
        (dict(scale=1.0), "together"),
        (dict(scale=0.0, offset=0.0), "must not be 0"),
        (dict(scale=[1.0, 2.0], offset=0.0), "3 channels"),
        (dict(scale=float("nan"), offset=0.0), "finite"),
        (dict(value_range=(1, 0)), "low < high"),
        (dict(num_classes=1, scale=1.0, offset=0.0), "at least 2"),
        (dict(image_size=(9, 9)), "only images of 8 x 8"),
        (dict(dropout=0.1), "part of a new head"),
        (dict(dtype="mixed_bfloat16"), "dtype policy"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.classifier(small_model(), **arguments)


def test_wrong_models():
    flat = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="one input of shape"):
        models.classifier(flat)
    inputs = [keras.Input((4, 4, 3)), keras.Input((4, 4, 3))]
    two = keras.Model(inputs, keras.layers.Add()(inputs))
    with pytest.raises(ValueError, match="one input of shape"):
        models.classifier(two)
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    integer = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match="gradient"):
        models.classifier(integer)
    inputs = keras.Input((4, 4, 3))
    sequence = keras.Model(inputs, keras.layers.Reshape((16, 3))(inputs))
    with pytest.raises(ValueError, match="Pool them"):
        models.classifier(sequence, 3, scale=1.0, offset=0.0)


# === Mixed precision ===


def normalised(net, x):
    layer = net.get_layer("normalization")
    return logits(keras.Model(net.input, layer.output), x)


@pytest.mark.parametrize(
    "policy",
    ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.ci)],
)
@pytest.mark.parametrize("kind", ["preset", "functional", "sequential"])
def test_pixels_and_logits_stay_float32(policy, kind, preset, tmp_path):
    keras.config.set_dtype_policy(policy)
    size = 8
    if kind == "preset":
        net, size = models.classifier(preset), 32
    elif kind == "functional":
        net = models.classifier(
            small_model(), 3, scale=SCALE, offset=OFFSET, seed=0
        )
    else:
        conv = keras.layers.Conv2D(4, 3)
        pool = keras.layers.GlobalAveragePooling2D()
        model = keras.Sequential([conv, pool, keras.layers.Dense(5)])
        model.build((None, 8, 8, 3))
        net = models.classifier(model, scale=SCALE, offset=OFFSET)
    assert net.output.dtype == "float32"
    # The body does compute in half precision.
    dtypes = {layer.compute_dtype for layer in net._flatten_layers()}
    assert policy.removeprefix("mixed_") in dtypes
    x = np.full((1, size, size, 3), 200.0, "float32")
    scale, offset = np.float32(SCALE), np.float32(OFFSET)
    for value in (x, x + np.float32(0.01)):
        np.testing.assert_allclose(
            normalised(net, value), value * scale + offset, rtol=1e-6
        )
    assert np.all(normalised(net, x + np.float32(0.01)) > normalised(net, x))
    # Saved under this policy, loaded under another one.
    net.save(tmp_path / "net.keras")
    images = pixels(2, size, size, 3)
    expected = logits(net, images)
    keras.config.set_dtype_policy("float32")
    loaded = models.load(tmp_path / "net.keras")
    assert loaded.output.dtype == "float32"
    np.testing.assert_array_equal(logits(loaded, images), expected)
    np.testing.assert_array_equal(
        normalised(loaded, x + np.float32(0.01)),
        normalised(net, x + np.float32(0.01)),
    )


def test_sequential_that_normalises_by_itself_sees_float32_pixels():
    keras.config.set_dtype_policy("mixed_float16")
    inside = keras.layers.Rescaling(100.0, -20000.0, dtype="float32")
    model = keras.Sequential([inside, keras.layers.Flatten(dtype="float32")])
    model.build((None, 1, 1, 2))
    net = models.classifier(model)
    x = np.full((1, 1, 1, 2), 200.01, "float32")
    np.testing.assert_allclose(logits(net, x), 1.0, rtol=0.01)


def test_dtype_argument_reaches_the_backbone_of_a_preset(preset):
    x = pixels(2, 32, 32, 3)
    net = models.classifier(preset, dtype="mixed_bfloat16")
    dtypes = {layer.compute_dtype for layer in net._flatten_layers()}
    assert "bfloat16" in dtypes
    assert net.output.dtype == "float32"
    full = logits(models.classifier(preset), x)
    difference = np.abs(logits(net, x) - full).max()
    assert 0 < difference < 0.1 * np.abs(full).max()


# === Files ===


def test_files_are_sources(tmp_path):
    model = small_model()
    model.save(tmp_path / "model.keras")
    x = pixels(2, 8, 8, 3)
    net = models.classifier(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(net, x), logits(model, x))
    headed = models.classifier(
        str(tmp_path / "model.keras"), 3, scale=1.0, offset=0.0
    )
    assert headed.output_shape == (None, 3)


def test_wrong_files(tmp_path):
    for function in (models.load, models.classifier):
        with pytest.raises(ValueError, match="existing"):
            function(tmp_path / "absent.keras")
        (tmp_path / "text.keras").write_text("no archive")
        with pytest.raises(ValueError, match="zip"):
            function(tmp_path / "text.keras")


@keras.saving.register_keras_serializable(package="test_models")
class Trainer(keras.Model):
    """Stands for the toolkit's trainer: a model around a classifier."""

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model

    def call(self, inputs):
        return self.model(inputs)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model}

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config.pop("model"))
        return cls(model, **config)


def test_load_returns_the_classifier_of_a_trainer(tmp_path):
    net = models.classifier(small_model(), scale=SCALE, offset=OFFSET)
    trainer = Trainer(net)
    x = pixels(2, 8, 8, 3)
    trainer(x)
    trainer.save(tmp_path / "trainer.keras")
    loaded = models.load(tmp_path / "trainer.keras")
    assert not isinstance(loaded, Trainer)
    np.testing.assert_array_equal(logits(loaded, x), logits(net, x))


@pytest.mark.ci
def test_load_imports_keras_hub_only_when_the_file_needs_it(preset, tmp_path):
    models.classifier(preset).save(tmp_path / "hub.keras")
    small_model().save(tmp_path / "plain.keras")
    code = (
        "import sys; from keras_epsched import models;"
        "models.load(sys.argv[1]); before = 'keras_hub' in sys.modules;"
        "models.load(sys.argv[2]); print(before, 'keras_hub' in sys.modules)"
    )
    files = [str(tmp_path / name) for name in ("plain.keras", "hub.keras")]
    result = subprocess.run(
        [sys.executable, "-c", code, *files],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "True"]
