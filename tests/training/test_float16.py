"""Half precision must not silence the attack, on trained, confident models."""

import numpy as np
import pytest
from keras import ops
from networks import logits_of, not_on

import keras_epsched as ke
from keras_epsched import attacks, backend
from keras_epsched.attacks.problem import Problem


def _zero_share(source, images, dtype, **kwargs):
    """Share of exactly zero gradients, attacking the model's own answers."""
    model = ke.models.classifier(source, dtype=dtype, **kwargs)
    logits = logits_of(model, images)
    assert logits.dtype == np.float32
    labels = logits.argmax(-1)

    def gradient(images):
        problem = Problem(
            attacks.PGD(),
            lambda pixels: model(pixels, training=False),
            images,
            labels,
            8 / 255,
            (0, 255),
        )
        return problem.gradient(images).gradient

    values = ops.convert_to_numpy(
        backend.compile(gradient, False, model.variables)(images)
    )
    assert np.all(np.isfinite(values))
    confidence = ops.convert_to_numpy(ops.softmax(logits)).max(-1)
    return float(np.mean(values == 0)), confidence


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_bundled_preset_keeps_its_gradients(dtype, letters_fonts):
    data = ke.datasets.load("letters", image_size=(32, 32), batch_size=64)
    images = next(iter(data.test))[0].numpy()
    full, confidence = _zero_share("resnet_letters", images, "float32")
    half, _ = _zero_share("resnet_letters", images, dtype)
    assert np.median(confidence) > 0.99
    assert half <= full + 0.01


# By default the bundled preset is enough.
@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(
            "mixed_float16",
            marks=not_on("jax", "XLA has no float16 dot product on a CPU"),
        ),
        "mixed_bfloat16",
    ],
)
def test_real_backbone_keeps_its_gradients(dtype, shared_data):
    data = ke.datasets.load(
        str(shared_data / "datasets" / "flowers12_128"),
        image_size=(224, 224),
        batch_size=16,
    )
    images = next(iter(data.test))[0].numpy()
    source = str(shared_data / "weights" / "vit_tiny_16_224_tinyimagenet")
    full, _ = _zero_share(source, images, "float32")
    half, _ = _zero_share(source, images, dtype)
    assert half <= full + 0.01
