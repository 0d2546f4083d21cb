"""`models`: local checkpoints, their normalisation and their faults."""

import importlib.util
import json
import shutil

import families
import keras
import numpy as np
import pytest

from keras_epsched import models
from keras_epsched.models import checkpoints

MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
CLASSES, DIM, LAYERS, SIZE, PATCH = 5, 8, 1, 16, 8

# KerasHub 0.26 imports it without declaring it.
reads_hugging_face = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None,
    reason="needs sentencepiece",
)


def pixels(size=SIZE):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, size, size, 3)).astype("float32")


def logits(model, x):
    return keras.ops.convert_to_numpy(model(x))


# === Hugging Face and timm ===


def tensors(kind):
    """Random weights by their names in a Hugging Face ViT or DeiT."""
    rng = np.random.default_rng(1)
    tokens = {"vit": 1, "deit": 2}[kind]
    positions = (SIZE // PATCH) ** 2 + tokens
    embed, block = f"{kind}.embeddings", f"{kind}.encoder.layer.0"
    attention = f"{block}.attention"
    head = {"vit": "classifier", "deit": "cls_classifier"}[kind]
    shapes = {
        f"{embed}.cls_token": (1, 1, DIM),
        f"{embed}.position_embeddings": (1, positions, DIM),
        f"{embed}.patch_embeddings.projection.weight": (DIM, 3, PATCH, PATCH),
        f"{embed}.patch_embeddings.projection.bias": (DIM,),
        f"{block}.intermediate.dense.weight": (2 * DIM, DIM),
        f"{block}.intermediate.dense.bias": (2 * DIM,),
        f"{block}.output.dense.weight": (DIM, 2 * DIM),
        f"{block}.output.dense.bias": (DIM,),
        f"{head}.weight": (CLASSES, DIM),
        f"{head}.bias": (CLASSES,),
    }
    if kind == "deit":
        shapes[f"{embed}.distillation_token"] = (1, 1, DIM)
    for part in ("query", "key", "value"):
        shapes[f"{attention}.attention.{part}.weight"] = (DIM, DIM)
        shapes[f"{attention}.attention.{part}.bias"] = (DIM,)
    shapes[f"{attention}.output.dense.weight"] = (DIM, DIM)
    shapes[f"{attention}.output.dense.bias"] = (DIM,)
    norms = [f"{block}.layernorm_{at}" for at in ("before", "after")]
    for norm in (*norms, f"{kind}.layernorm"):
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (DIM,)
    return {
        name: rng.normal(0, 0.3, shape).astype("float32")
        for name, shape in shapes.items()
    }


def write_folder(folder, kind="vit", **preprocessor):
    """A Hugging Face folder as `save_pretrained` writes it."""
    numpy = pytest.importorskip("safetensors.numpy")
    folder.mkdir()
    weights = tensors(kind)
    numpy.save_file(weights, folder / "model.safetensors")
    architecture = {"vit": "ViT", "deit": "DeiT"}[kind]
    config = {
        "model_type": kind,
        "architectures": [f"{architecture}ForImageClassification"],
        "image_size": SIZE,
        "patch_size": PATCH,
        "hidden_size": DIM,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 2 * DIM,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "id2label": {str(label): str(label) for label in range(CLASSES)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    if preprocessor:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(preprocessor))
    return weights


def vit_by_hand(weights, x):
    """The forward pass of `tensors("vit")`, as its paper has it."""

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    embed, block = "vit.embeddings", "vit.encoder.layer.0"
    side = SIZE // PATCH
    patches = x.reshape(-1, side, PATCH, side, PATCH, 3)
    kernel = weights[f"{embed}.patch_embeddings.projection.weight"]
    patches = np.einsum("brpcqk,dkpq->brcd", patches, kernel)
    patches = patches.reshape(len(x), -1, DIM)
    patches += weights[f"{embed}.patch_embeddings.projection.bias"]
    token = np.tile(weights[f"{embed}.cls_token"], (len(x), 1, 1))
    z = np.concatenate([token, patches], axis=1)
    z = z + weights[f"{embed}.position_embeddings"]
    y = norm(z, f"{block}.layernorm_before")
    query, key, value = (
        dense(y, f"{block}.attention.attention.{part}").reshape(
            *y.shape[:2], 2, DIM // 2
        )
        for part in ("query", "key", "value")
    )
    scores = np.einsum("bihd,bjhd->bhij", query, key) / np.sqrt(DIM // 2)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    y = np.einsum("bhij,bjhd->bihd", scores, value).reshape(y.shape)
    z = z + dense(y, f"{block}.attention.output.dense")
    y = norm(z, f"{block}.layernorm_after")
    y = np.asarray(
        keras.activations.gelu(dense(y, f"{block}.intermediate.dense"))
    )
    z = z + dense(y, f"{block}.output.dense")
    return dense(norm(z, "vit.layernorm")[:, 0], "classifier")


@reads_hugging_face
def test_hugging_face_vit_reads_its_preprocessor_config(tmp_path):
    weights = write_folder(
        tmp_path / "vit", rescale_factor=1 / 255, image_mean=MEAN, image_std=STD
    )
    net = models.classifier(tmp_path / "vit")
    assert net.input_shape == (None, SIZE, SIZE, 3)
    x = pixels()
    expected = vit_by_hand(weights, (x / 255 - MEAN) / STD)
    np.testing.assert_allclose(logits(net, x), expected, atol=1e-4)
    larger = models.classifier(tmp_path / "vit", image_size=(24, 32))
    assert logits(larger, np.zeros((1, 24, 32, 3))).shape == (1, CLASSES)
    assert models.classifier(tmp_path / "vit", 7).output_shape == (None, 7)


@reads_hugging_face
def test_hugging_face_folder_without_statistics_asks(tmp_path):
    write_folder(tmp_path / "deit", "deit")
    with pytest.raises(ValueError, match="`scale` and `offset`"):
        models.classifier(tmp_path / "deit")
    net = models.classifier(tmp_path / "deit", scale=1 / 255, offset=0.0)
    assert net.output_shape == (None, CLASSES)


@pytest.mark.parametrize(
    "config, scale, offset",
    [
        (dict(image_mean=MEAN, image_std=STD), 1 / 255 / 0.27, -0.48 / 0.27),
        (dict(rescale_factor=0.1, do_normalize=False), 0.1, 0.0),
        (
            dict(do_rescale=False, image_mean=MEAN, image_std=STD),
            1 / 0.27,
            -0.48 / 0.27,
        ),
    ],
)
def test_preprocessor_config(config, scale, offset, tmp_path):
    assert checkpoints.normalisation(tmp_path) is None
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config))
    scales, offsets = checkpoints.normalisation(tmp_path)
    np.testing.assert_allclose([scales[0], offsets[0]], [scale, offset])


@reads_hugging_face
def test_faults_of_a_hugging_face_folder(tmp_path):
    folder = tmp_path / "vit"
    write_folder(folder, image_mean=MEAN, image_std=STD)
    config = (folder / "config.json").read_text()
    changed = json.loads(config)
    changed["id2label"] = {"0": "cat", "1": "dog"}
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="number of classes.*num_classes"):
        models.classifier(folder)
    assert models.classifier(folder, 3).output_shape == (None, 3)
    (folder / "config.json").write_text(config[:50])
    with pytest.raises(ValueError, match=r"config.json' is corrupt"):
        models.classifier(folder, 3)
    (folder / "config.json").write_text(config)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for part in (whole[:-7], whole[:100], b"", b"\xff" * 64):
        weights.write_bytes(part)
        with pytest.raises(ValueError, match="safetensors' is corrupt"):
            models.classifier(folder, 3)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="PyTorch"):
        models.classifier(folder, 3)


def test_without_safetensors_it_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path / "vit", image_mean=MEAN, image_std=STD)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        models.classifier(tmp_path / "vit", 3)


def test_timm_resnet_reads_its_statistics(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    import keras_hub

    config = {
        "architecture": "resnet18",
        "num_classes": CLASSES,
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "mean": MEAN,
            "std": STD,
            "interpolation": "bicubic",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (64, 3, 7, 7)}
    width = 64
    for stage, filters in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            before = width if block == 0 else filters
            shapes[f"{name}.conv1.weight"] = (filters, before, 3, 3)
            shapes[f"{name}.conv2.weight"] = (filters, filters, 3, 3)
            if before != filters:
                down = (filters, before, 1, 1)
                shapes[f"{name}.downsample.0.weight"] = down
        width = filters
    weights = {k: rng.normal(0, 0.03, v) for k, v in shapes.items()}
    for name, shape in shapes.items():
        norm = name.replace("conv", "bn").replace("sample.0", "sample.1")
        norm = norm.removesuffix("weight")
        for part in ("weight", "running_var"):
            weights[norm + part] = np.ones(shape[0])
        for part in ("bias", "running_mean"):
            weights[norm + part] = np.zeros(shape[0])
    weights["fc.weight"] = rng.normal(size=(CLASSES, 512))
    weights["fc.bias"] = rng.normal(size=CLASSES)
    weights = {k: v.astype("float32") for k, v in weights.items()}
    numpy.save_file(weights, tmp_path / "model.safetensors")
    net = models.classifier(tmp_path)
    assert net.output_shape == (None, CLASSES)
    x = pixels(32)
    task = keras_hub.models.ImageClassifier.from_preset(str(tmp_path))
    seen = ((x / 255 - MEAN) / STD).astype("float32")
    np.testing.assert_allclose(logits(net, x), logits(task, seen), atol=1e-4)


# === Files of weights ===


def vit_preset(folder):
    import keras_hub

    task = keras_hub.models.ViTImageClassifier(
        families.build("vit"), num_classes=4
    )
    families.save_task(task, folder)
    return task


def test_weights_of_a_backbone_and_of_a_classifier(tmp_path):
    task = vit_preset(tmp_path / "preset")
    settings = dict(scale=1 / 255, offset=0.0)
    x = pixels(32)
    net = models.classifier(tmp_path / "preset", 3, seed=1, **settings)
    net.save_weights(tmp_path / "whole.weights.h5")
    task.backbone.save_weights(tmp_path / "backbone.weights.h5")
    (tmp_path / "preset" / "model.weights.h5").unlink()
    for path in ("whole", "backbone"):
        again = models.classifier(
            tmp_path / "preset",
            3,
            seed=1,
            weights=tmp_path / f"{path}.weights.h5",
            **settings,
        )
        np.testing.assert_array_equal(logits(again, x), logits(net, x))
    with pytest.raises(ValueError, match="fit neither.*head of 9 classes"):
        models.classifier(
            tmp_path / "preset",
            9,
            weights=tmp_path / "whole.weights.h5",
            **settings,
        )


def test_weights_of_an_application(tmp_path):
    settings = dict(
        image_size=(32, 32), backbone_config={"alpha": 0.25}, seed=1
    )
    net = models.classifier("MobileNet", 3, weights=None, **settings)
    x = pixels(32)
    path = tmp_path / "whole.weights.h5"
    net.save_weights(path)
    base = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None
    )
    with pytest.raises(ValueError, match="holds a classifier of 3 classes"):
        models.classifier("MobileNet", 4, weights=path, **settings)
    again = models.classifier("MobileNet", 3, weights=path, **settings)
    np.testing.assert_array_equal(logits(again, x), logits(net, x))
    base.set_weights(net.get_weights()[:-2])
    base.save_weights(tmp_path / "base.weights.h5")
    again = models.classifier(
        "keras.applications.MobileNet",
        3,
        weights=tmp_path / "base.weights.h5",
        **settings,
    )
    np.testing.assert_allclose(logits(again, x), logits(net, x), atol=1e-6)


def test_corrupt_files_are_named(tmp_path):
    path = tmp_path / "x.weights.h5"
    with pytest.raises(ValueError, match="resolved to"):
        checkpoints.check_weights_file(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"x.weights.h5' is corrupt"):
        checkpoints.check_weights_file(path)
    vit_preset(tmp_path / "preset")
    broken = tmp_path / "preset" / "model.weights.h5"
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model.weights.h5' is corrupt"):
        models.classifier(tmp_path / "preset", 3, scale=1.0, offset=0.0)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(
        tmp_path / "net.keras"
    )
    whole = (tmp_path / "net.keras").read_bytes()
    shutil.copy(tmp_path / "net.keras", tmp_path / "bit.keras")
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 255])
    (tmp_path / "bit.keras").write_bytes(
        whole[:middle] + flipped + whole[middle + 1 :]
    )
    with pytest.raises(ValueError, match=r"bit.keras' is corrupt"):
        models.load(tmp_path / "bit.keras")
