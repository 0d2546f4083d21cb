"""Trained on one backend, evaluated on another."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_epsched as ke

pytestmark = pytest.mark.ci
_TESTS = pathlib.Path(__file__).resolve().parents[1]

_EVALUATE = """
import sys
sys.path.insert(0, {tests!r})
import keras
import numpy as np
from networks import make_data
import keras_epsched as ke
model = keras.models.load_model({model!r})
report = ke.evaluate(
    model,
    make_data(400, seed=9),
    np.linspace(0, 40 / 255, 9),
    ke.attacks.APGD(steps=5),
    batch_size=100,
    verbose=0,
)
report.save({folder!r})
"""


def evaluated(model, backend, folder):
    """The report of a process of its own."""
    script = _EVALUATE.format(
        tests=str(_TESTS), model=str(model), folder=str(folder)
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return ke.Report.load(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model and its report, by the backend of this session."""
    from networks import trained_net

    folder = tmp_path_factory.mktemp("trained")
    path = folder / "model.keras"
    trained_net(192, epochs=6, epsilon=8 / 255).save(path)
    return path, evaluated(path, keras.backend.backend(), folder / "own")


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_another_backend_tells_the_same(backend, trained, tmp_path):
    if backend == keras.backend.backend():
        pytest.skip("the backend of this session")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path, own = trained
    other = evaluated(path, backend, tmp_path / "other")
    assert np.any((own.accuracy > 0.2) & (own.accuracy < 0.8))
    equal = (own.correct == other.correct).all(axis=1).mean()
    assert equal >= 0.99, equal
    assert np.abs(own.accuracy - other.accuracy).max() <= 0.01
