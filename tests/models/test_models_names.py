"""`models`: names of backbones, and the table of the documentation."""

import gc
import importlib.metadata
import pathlib
import re

import keras
import keras_hub
import pytest

from keras_epsched import models
from keras_epsched.models import applications, names, table

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/how-to/models.md"


def test_names_of_the_paper_stand_for_what_keras_has():
    for name in (
        "ViT-B/16",
        "vit",
        "timm/vit_base_patch16_224.augreg_in1k",
        "vit_base_patch16_224.augreg_in1k",
    ):
        assert names.resolved(name) == "vit_base_patch16_224_imagenet"
    assert names.resolved("CNX") == "keras.applications.ConvNeXtBase"
    assert names.resolved("./vit") == "./vit"
    known = {*names.image_presets()}
    known.update(applications.PREFIX + name for name in applications.names())
    for backbone in names.PAPER_BACKBONES:
        if "swin" in str(backbone.source) and not hasattr(
            keras_hub.models, "SwinTransformerBackbone"
        ):
            continue  # an older KerasHub
        assert backbone.source is None or backbone.source in known
    for name in ("ClipCNX", "laion/CLIP-convnext_base_w-laion2B-s13B-b82K"):
        with pytest.raises(ValueError, match="clip_vit_base_patch16.*ConvNeXt"):
            models.classifier(name, 3)


@pytest.mark.parametrize(
    "name, near",
    [
        ("clip_vit_base_patch_16", "clip_vit_base_patch16"),
        ("keras.applications.ResNet5", "ResNet50"),
        ("siglip_base_patch16", "siglip_base_patch16_224"),
        ("resnet_leters", "resnet_letters"),
    ],
)
def test_near_names_are_offered(name, near):
    with pytest.raises(ValueError, match=f"Near matches: .*{near}"):
        models.classifier(name, 3)


def test_without_network_the_way_out_is_said(monkeypatch):
    import keras_hub

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    for owner in (keras_hub.models.ImageClassifier, keras_hub.models.Backbone):
        monkeypatch.setattr(owner, "from_preset", fail)
    with pytest.raises(ConnectionError, match="bring the folder here"):
        models.classifier("clip_vit_base_patch16", 3)

    def fail_to_fetch(*args, **kwargs):
        raise Exception("URL fetch failure on https://host/mobilenet.h5: None")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail_to_fetch)
    with pytest.raises(ConnectionError, match="mobilenet.h5.*~/.keras/models"):
        models.classifier("MobileNet", 3)


def test_the_documentation_has_the_table_of_the_paper_and_counts_names():
    text = PAGE.read_text(encoding="utf-8")
    version = r"(\d+\.\d+\.\d+)"
    made_of = re.search(rf"Keras {version} and\s+KerasHub\s+{version}", text)
    installed = tuple(map(importlib.metadata.version, ("keras", "keras-hub")))
    if made_of.groups() != installed:
        pytest.skip("the page lists another version's names")
    assert table.markdown(table.paper_rows()) in text
    assert f"There are {len(table.rows())} names" in text


def parameters(name):
    """Parameters without the head, and the image size, of a built model."""
    constructor = getattr(keras.applications, name)
    whole = constructor(weights=None)
    size = whole.input_shape[1]
    if name.startswith("ConvNeXt"):
        # Its last normalisation belongs to the features.
        return whole.count_params() - whole.layers[-1].count_params(), size
    return constructor(include_top=False, weights=None).count_params(), size


@pytest.mark.parametrize(
    "name",
    [
        name
        if name == "MobileNetV2"
        else pytest.param(name, marks=pytest.mark.slow)
        for name in applications.names()
    ],
)
def test_parameters_of_the_table_are_those_of_the_model(name):
    assert table._APPLICATIONS[name] == parameters(name)
    keras.backend.clear_session()
    gc.collect()
