"""Every family of backbones: built small, trained, evaluated, saved."""

import sys

import families
import keras
import numpy as np
import pytest
from families import SIZE
from networks import not_on

import keras_epsched as ke
from keras_epsched import models
from keras_epsched.models import applications, resolution

SCALE = [1 / (255 * std) for std in (0.27, 0.26, 0.28)]
OFFSET = [-1.8, -1.75, -1.5]
CONVERTERS = {
    "clip": "CLIP",
    "dinov2": "DINOV2",
    "resnet": "ResNet",
    "siglip": "SigLIP",
    "vit": "ViT",
}
TRANSFORMERS = ("vit", "deit", "clip", "siglip", "metaclip2")


def pixels(count=2, size=SIZE):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (count, size, size, 3)).astype("float32")


def logits(model, x):
    return keras.ops.convert_to_numpy(model(x))


def headed(net, features):
    """Logits of the new head on features."""
    kernel, bias = net.get_layer("logits").get_weights()
    return keras.ops.convert_to_numpy(features) @ kernel + bias


def all_but(fast):
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow)
        for name in families.BACKBONES
    ]


# === KerasHub ===


def pooled_by_hand(family, backbone, x):
    """Features as the papers of these models have them."""
    if family in ("clip", "metaclip2"):
        tokens = backbone.vision_encoder({"images": x})[:, 0]
        if family == "metaclip2":
            tokens = backbone.vision_post_layer_norm(tokens)
        return tokens
    if family == "siglip":
        return backbone.vision_encoder({"images": x})
    if family.startswith("dinov"):
        key = "images" if family == "dinov2" else "pixel_values"
        return backbone({key: x})[:, 0]
    features = backbone(x)
    if family in ("vit", "deit"):
        return features[:, 0]
    if family == "swin":
        return keras.ops.mean(features, axis=1)
    if family == "hgnetv2":
        features = features["stage2"]
    return keras.ops.mean(features, axis=(1, 2))


def train_and_evaluate(net, x, y):
    """One robust step and one evaluation."""
    trainer = ke.AdversarialTrainer(
        net, attack=ke.attacks.PGD(steps=1), epsilon=8 / 255
    )
    trainer.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = logits(net, x)
    assert np.isfinite(trainer.train_on_batch(x, y))
    assert np.abs(logits(net, x) - before).max() > 1e-4
    report = ke.evaluate(
        net,
        (x, y),
        [0.0, 8 / 255],
        ke.attacks.FGSM(),
        self_check=False,
        jit_compile=False,
    )
    assert report.num_images == len(x)


def served(net, folder, x):
    """Logits of the exported network."""
    net.export(folder, verbose=False)
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serve")
    return keras.ops.convert_to_numpy(layer(x))


@pytest.mark.parametrize("family", all_but(("clip",)))
def test_family_is_trained_evaluated_and_saved(family, tmp_path):
    backbone = families.build(family)
    net = models.classifier(
        backbone, 3, scale=SCALE, offset=OFFSET, image_size=(SIZE, SIZE), seed=0
    )
    x, y = pixels(4), np.array([0, 1, 2, 0])
    features = pooled_by_hand(family, backbone, x * SCALE + OFFSET)
    np.testing.assert_allclose(logits(net, x), headed(net, features), atol=1e-4)
    train_and_evaluate(net, x, y)
    # What was trained comes back, position embeddings too.
    net.save(tmp_path / "net.keras")
    loaded = models.load(tmp_path / "net.keras")
    np.testing.assert_array_equal(logits(loaded, x), logits(net, x))
    # Its last block is told from the rest.
    *_, last, head = models.blocks(loaded).values()
    models.adapt(loaded, "last", last=1)
    assert len(loaded.trainable_variables) == len(last) + len(head)
    assert len(head) == 2 < len(net.trainable_variables) - len(last)


@pytest.mark.parametrize(
    "family",
    [
        "clip",
        "resnet",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("dinov2", "siglip", "vit")
        ),
    ],
)
def test_preset_normalises_as_its_converter(family, tmp_path):
    import keras_hub

    backbone = families.build(family)
    converter = getattr(
        keras_hub.layers, f"{CONVERTERS[family]}ImageConverter"
    )(image_size=(SIZE, SIZE), scale=SCALE, offset=OFFSET)
    backbone.save_to_preset(tmp_path)
    converter.save_to_preset(tmp_path)
    net = models.classifier(tmp_path, 3, seed=0)
    assert net.input_shape == (None, SIZE, SIZE, 3)
    x = pixels()
    features = pooled_by_hand(family, backbone, converter(x))
    kernel, bias = (weight.numpy() for weight in net.weights[-2:])
    np.testing.assert_allclose(
        logits(net, x),
        keras.ops.convert_to_numpy(features) @ kernel + bias,
        atol=1e-4,
    )
    random = models.classifier(tmp_path, 3, seed=0, weights=None)
    assert np.abs(logits(random, x) - logits(net, x)).max() > 1e-3
    if family == "clip":
        with pytest.raises(ValueError, match="no classification head"):
            models.classifier(tmp_path)
        half = models.classifier(tmp_path, 3, dtype="mixed_bfloat16")
        dtypes = {layer.compute_dtype for layer in half._flatten_layers()}
        assert "bfloat16" in dtypes and half.output.dtype == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("family", families.BACKBONES)
def test_exported_family_serves_the_same_logits(family, tmp_path):
    net = models.classifier(
        families.build(family), 3, scale=SCALE, offset=OFFSET
    )
    x = pixels()
    np.testing.assert_allclose(
        served(net, tmp_path / "served", x), logits(net, x), atol=1e-5
    )


# === Image sizes ===


def test_interpolation():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(1, 2 + 12, 5)).astype("float32")
    same = resolution.interpolated(table, (3, 4), (3, 4))
    np.testing.assert_array_equal(same, table)
    other = np.asarray(resolution.interpolated(table, (3, 4), (6, 8)))
    assert other.shape == (1, 2 + 48, 5)
    np.testing.assert_array_equal(other[:, :2], table[:, :2])
    # Bicubic: a constant stays, a ramp stays a ramp away from the border.
    ramp = np.arange(8.0)[None, :, None] + np.zeros((8, 1, 1))
    ramp = ramp.reshape(64, 1).astype("float32")
    fine = np.asarray(resolution.interpolated(ramp, (8, 8), (16, 16)))
    steps = np.diff(fine.reshape(16, 16)[8])[4:-4]
    np.testing.assert_allclose(steps, 0.5, atol=0.05)
    with pytest.raises(ValueError, match="3 x 3 patches"):
        resolution.interpolated(table, (3, 3), (6, 6))


def embeddings(backbone):
    """The position embeddings in use."""
    found = [
        weight
        for weight in backbone.weights
        if "position_embedding" in weight.path and "float" in weight.dtype
    ]
    # DINOv2 keeps those of the pretraining beside them.
    return max(found, key=lambda weight: "interpolated" in weight.path)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            "vit",
            marks=not_on("jax", "positions hardly matter to the one it draws"),
        ),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in TRANSFORMERS[1:]
        ),
    ],
)
def test_position_embeddings_follow_the_image(family):
    backbone = families.build(family)
    inner = getattr(backbone, "vision_encoder", backbone)
    weight = embeddings(inner)
    # A strong and smooth table, as pretrained ones are.
    grid = np.linspace(-1, 1, 4)
    rows, columns = (axis.ravel()[:, None] for axis in np.meshgrid(grid, grid))
    table = keras.ops.convert_to_numpy(weight).copy()
    flat = table.reshape(-1, table.shape[-1])
    rng = np.random.default_rng(1)
    mean, down, right = rng.normal(size=(3, flat.shape[-1]))
    flat[-16:] = 2 * mean + 0.5 * rows * down + 0.5 * columns * right
    weight.assign(flat.reshape(table.shape))
    settings = dict(scale=SCALE, offset=OFFSET, seed=0)
    # Of one colour: twice as large, the image looks the same to a patch.
    large = np.tile(pixels()[:, :1, :1], (1, 2 * SIZE, 2 * SIZE, 1))
    x = large[:, :SIZE, :SIZE]
    own = models.classifier(backbone, 3, **settings)
    # Built anew at its own size, it is the same bit for bit.
    rebuilt = type(inner).from_config(inner.get_config())
    resolution._transfer(inner, rebuilt, (SIZE, SIZE), (SIZE, SIZE))
    for old, new in zip(inner.weights, rebuilt.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    twice = models.classifier(
        backbone, 3, image_size=(2 * SIZE, 2 * SIZE), **settings
    )
    change = np.abs(logits(twice, large) - logits(own, x)).max()
    # Random embeddings in their place: another network.
    enlarged = embeddings(twice)
    mixed = (
        keras.ops.convert_to_numpy(enlarged).reshape(-1, flat.shape[-1]).copy()
    )
    mixed[-64:] = rng.normal(size=(64, flat.shape[-1]))
    enlarged.assign(mixed.reshape(enlarged.shape))
    random = np.abs(logits(twice, large) - logits(own, x)).max()
    assert change < 0.1 * random


@pytest.mark.slow
def test_pretrained_vit_sees_the_same_at_another_size(shared_data):
    import tensorflow_datasets as tfds

    path = shared_data / "weights" / "vit_tiny_16_224_tinyimagenet"
    photos = shared_data / "datasets" / "flowers12_128" / "1.0.0"
    if not (path.is_dir() and photos.is_dir()):
        pytest.skip(f"no ViT weights in {path}, or no photos in {photos}")
    builder = tfds.builder_from_directory(photos)
    split = builder.as_dataset(split="train").take(8)
    x = np.stack([example["image"].numpy() for example in split])

    def unit(net):
        images = keras.ops.image.resize(x, net.input_shape[1:3])
        y = logits(net, np.clip(images, 0, 255))
        return y / np.linalg.norm(y, axis=1, keepdims=True)

    own = unit(models.classifier(path))
    net = models.classifier(path, image_size=(256, 256))
    smooth = np.mean(np.sum(own * unit(net), axis=1))
    weight = embeddings(net)
    table = keras.ops.convert_to_numpy(weight).copy()
    table[1:] = np.random.default_rng(0).permutation(table[1:])
    weight.assign(table)
    shuffled = np.mean(np.sum(own * unit(net), axis=1))
    # 0.95 and 0.59 on 24 photos.
    assert smooth > 0.85 > 0.75 > shuffled


def test_dinov2_at_another_size_is_what_kerashub_makes_of_it(tmp_path):
    backbone = families.build("dinov2")
    net = models.classifier(
        backbone, 3, scale=SCALE, offset=OFFSET, image_size=(64, 64)
    )
    backbone.save_weights(tmp_path / "x.weights.h5")
    resized = families.build("dinov2", (64, 64))
    resized.load_weights(tmp_path / "x.weights.h5")
    x = pixels(2, 64)
    features = pooled_by_hand("dinov2", resized, x * SCALE + OFFSET)
    np.testing.assert_allclose(logits(net, x), headed(net, features), atol=1e-5)


def test_trained_embeddings_of_dinov2_survive_saving(tmp_path):
    net = models.classifier(
        families.build("dinov2"), 3, scale=SCALE, offset=OFFSET
    )
    x = pixels()
    weight = embeddings(net)
    # KerasHub drops changes that are negative in sum.
    weight.assign(weight - 0.1 * np.random.default_rng(0).random(weight.shape))
    net.save(tmp_path / "net.keras")
    loaded = models.load(tmp_path / "net.keras")
    np.testing.assert_array_equal(logits(loaded, x), logits(net, x))


def test_sizes_that_do_not_fit_are_refused():
    settings = dict(scale=SCALE, offset=OFFSET)
    vit, swin = families.build("vit"), families.build("swin")
    for backbone, size, message in (
        (vit, (33, 32), r"patches of 8 x 8.*height.*multiple of 8.*\(33, 32\)"),
        (swin, (40, 32), r"windows of 4 x 4.*multiple of 16.*\(40, 32\)"),
        (families.build("clip"), (32, 64), "only square images"),
    ):
        with pytest.raises(ValueError, match=message):
            models.classifier(backbone, 3, image_size=size, **settings)
    oblong = models.classifier(vit, 3, image_size=(32, 64), **settings)
    assert oblong.input_shape == (None, 32, 64, 3)


def test_finished_vit_keeps_its_head_at_another_size(tmp_path):
    import keras_hub

    task = keras_hub.models.ViTImageClassifier(
        families.build("vit"), num_classes=4
    )
    settings = dict(scale=SCALE, offset=OFFSET)
    net = models.classifier(task, image_size=(64, 64), **settings)
    np.testing.assert_array_equal(
        net.weights[-2].numpy(), task.output_dense.kernel.numpy()
    )
    assert logits(net, pixels(1, 64)).shape == (1, 4)


# === keras.applications ===


@pytest.mark.parametrize("name", applications.names())
def test_normalisation_is_that_of_preprocess_input(name):
    constructor = getattr(keras.applications, name)
    preprocess = sys.modules[constructor.__module__].preprocess_input
    scale, offset, reverse = applications.normalisation(name)
    x = pixels()
    ours = x * np.float32(scale) + np.float32(offset)
    ours = ours[..., ::-1] if reverse else ours
    np.testing.assert_allclose(ours, preprocess(x.copy()), atol=1e-4)


SMALL = {
    "MobileNet": {"alpha": 0.25},
    "ResNet50": {},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {},
    "DenseNet121": {},
    "ConvNeXtTiny": {},
    "EfficientNetV2B0": {},
    "EfficientNetB0": {},
    "VGG16": {},
    "ResNet50V2": {},
    "NASNetMobile": {},
    "Xception": {},
    "InceptionV3": {},
    "InceptionResNetV2": {},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.ci if name == "VGG16" else pytest.mark.slow,
        )
        for name in SMALL
    ],
)
def test_application_sees_what_it_was_trained_on(name, tmp_path):
    size = 75 if "ception" in name else SIZE
    net = models.classifier(
        f"keras.applications.{name}",
        3,
        image_size=(size, size),
        weights=None,
        backbone_config=SMALL[name],
        seed=0,
    )
    x = pixels(2, size)
    constructor = getattr(keras.applications, name)
    preprocess = sys.modules[constructor.__module__].preprocess_input
    body = next(layer for layer in net.layers if isinstance(layer, keras.Model))
    seen = preprocess(x.copy())
    if name.startswith("EfficientNetB"):
        scale, offset = applications._rest_of_efficientnet()
        seen = x * np.float32(scale) + np.float32(offset)
    features = keras.ops.convert_to_numpy(body(seen))
    if features.ndim == 4:
        features = features.mean(axis=(1, 2))
    np.testing.assert_allclose(
        logits(net, x), headed(net, features), rtol=1e-4, atol=1e-4
    )
    train_and_evaluate(net, x, np.array([0, 1]))
    y = logits(net, x)
    net.save(tmp_path / "net.keras")
    loaded = models.load(tmp_path / "net.keras")
    np.testing.assert_array_equal(logits(loaded, x), y)
    if name != "VGG16":  # Half a gigabyte would take its time.
        np.testing.assert_allclose(
            served(net, tmp_path / "served", x), y, rtol=1e-4, atol=1e-4
        )


def test_rest_of_efficientnet_completes_its_normalisation():
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    scale, offset = applications._rest_of_efficientnet()
    x = pixels()
    layer = (x * scale + offset) / 255
    np.testing.assert_allclose(
        (layer - mean) / np.sqrt(std), (x / 255 - mean) / std, atol=1e-5
    )


def test_finished_application_and_float16():
    net = models.classifier(
        "MobileNet",
        image_size=(SIZE, SIZE),
        weights=None,
        backbone_config={"alpha": 0.25, "classes": 7},
        dtype="mixed_float16",
    )
    assert net.output_shape == (None, 7)
    assert keras.config.dtype_policy().name == "float32"
    # Where a model normalises inside, pixels do not become float16 before.
    inner = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Rescaling(1.0)]
    )
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((4, 4, 3))
    layer = keras.layers.Rescaling(100.0, -20000.0)
    inner = keras.Model(inputs, keras.layers.Flatten()(layer(inputs)))
    applications._keep_pixels_in_float32(inner)
    x = np.full((1, 4, 4, 3), 200.01, "float32")
    np.testing.assert_allclose(inner(x), 1.0, rtol=0.02)


def test_wrong_arguments_of_an_application():
    with pytest.raises(ValueError, match="alpah"):
        models.classifier(
            "MobileNet", 3, weights=None, backbone_config={"alpah": 1}
        )
    with pytest.raises(ValueError, match="at least 71x71"):
        models.classifier("Xception", 3, weights=None, image_size=(32, 32))
    with pytest.raises(ValueError, match="backbone_config"):
        models.classifier("ViT", 3, backbone_config={"alpha": 1})
    with pytest.raises(ValueError, match="`scale` and `offset`"):
        models.classifier(
            "MobileNetV3Small",
            3,
            weights=None,
            image_size=(SIZE, SIZE),
            backbone_config={"include_preprocessing": False},
        )
