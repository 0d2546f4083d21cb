"""The library where TensorFlow, tfds and KerasHub are not installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

# Hides packages as if they were not installed. Others ask whether they are:
# an error of the import system would be one for them.
_HIDDEN = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *arguments):
        hidden = {"tensorflow", "tensorflow_datasets", "keras_hub"}
        if name.split(".")[0] in hidden:
            return None
        return self.finder.find_spec(name, *arguments)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import pathlib

import keras
import numpy as np
import pytest

import keras_epsched as ke

folder = pathlib.Path(sys.argv[1])
"""
pytestmark = pytest.mark.ci
_CODE = {
    "data": """
        data = ke.datasets.load("digits", image_size=(16, 16), data_dir=folder)
        assert isinstance(data.train, keras.utils.PyDataset)
        assert repr(data).startswith("ImageData(name='digits/1.0.0', train=10")
        assert data.class_counts["test"].tolist() == [50] * 10
        assert [len(labels) for _, labels in data.train] == [64] * 16
        images, labels = next(iter(data.test))
        assert images.shape == (64, 16, 16, 3) and images.dtype == "float32"
        assert not data.train.split_info.overlaps(data.test.split_info)
        with pytest.raises(ImportError, match="pip install tensorflow"):
            ke.datasets.load("cifar10", image_size=(32, 32))
    """,
    "models": """
        assert ke.models.classifier("resnet_letters").output_shape == (None, 26)
        net = ke.models.classifier("resnet_letters", 10, image_size=(16, 16))
        net.save(folder / "net.keras")
        again = ke.models.load(folder / "net.keras")
        pixels = np.full((2, 16, 16, 3), 99.0, "float32")
        logits = [
            keras.ops.convert_to_numpy(each(pixels)) for each in (net, again)
        ]
        np.testing.assert_allclose(*logits, atol=1e-5)
        mobile = ke.models.classifier(
            "keras.applications.MobileNet",
            5,
            image_size=(32, 32),
            weights=None,
            backbone_config={"alpha": 0.25},
        )
        assert mobile.output_shape == (None, 5)
        with pytest.raises(ImportError, match="pip install keras-hub"):
            ke.models.classifier("vit_base_patch16_224_imagenet", 5)
    """,
    "training and evaluation": """
        keras.utils.set_random_seed(0)
        data = ke.datasets.load(
            "digits", image_size=(16, 16), data_dir=folder, batch_size=128
        )
        net = ke.models.classifier("resnet_letters", 10, image_size=(16, 16))
        model = ke.AdversarialTrainer(net, attack=ke.attacks.PGD(steps=2))
        model.compile(
            optimizer=keras.optimizers.AdamW(3e-3),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        schedule = ke.schedules.TwoHinge(
            target_epsilon=0.1, ramp_start=0.5, ramp_end=0.9
        )
        history = model.fit(
            data.train,
            validation_data=data.validation,
            epochs=2,
            verbose=0,
            callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
        ).history
        assert history["val_accuracy"][-1] > 0.5, history
        assert data.train.epoch == 2
        report = ke.evaluate(
            net,
            data.test,
            epsilons=[0.02, 0.1],
            attack=ke.attacks.PGD(steps=3),
            folder=folder / "report",
            verbose=0,
        )
        assert len(report.labels) == 500
        clean, small, large = report.accuracy
        assert 0.5 < clean and clean >= small >= large
        assert report.dataset["base"] == "test", report.dataset
        report.plot(folder / "curve.png")
        report.save(folder / "saved")
        again = ke.Report.load(folder / "saved")
        np.testing.assert_array_equal(again.correct, report.correct)
        assert "expected robustness" in str(report).lower()
    """,
}


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("topic", _CODE)
def test_without_tensorflow(backend, topic, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install {backend}")
    root = pathlib.Path(__file__).resolve().parents[1]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _HIDDEN + textwrap.dedent(_CODE[topic]),
            str(tmp_path),
        ],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join(paths),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
