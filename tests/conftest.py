"""Fixtures shared by all tests."""

import os
import pathlib
import shutil
import tempfile

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The same examples in each run; a first one may have to compile.
hypothesis.settings.register_profile(
    "suite",
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("suite")

_REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config):
    """Prepares datasets in a folder of this session's own."""
    config.datasets_folder = tempfile.mkdtemp(prefix="keras_epsched_")
    os.environ["TFDS_DATA_DIR"] = config.datasets_folder


def pytest_unconfigure(config):
    """Removes that folder."""
    shutil.rmtree(config.datasets_folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Folder of real photos and weights; the test skips where it is absent."""
    folder = pathlib.Path(
        os.environ.get("KERAS_EPSCHED_TEST_DATA")
        or _REPOSITORY.parent / "shared" / "data"
    )
    if not folder.is_dir():
        pytest.skip(
            f"real data not found in {folder}: set KERAS_EPSCHED_TEST_DATA"
        )
    return folder


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Every test starts from the default policy and the same seed."""
    import keras

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def counter(monkeypatch):
    """Counts what is compiled from here on."""
    from networks import CompileCounter

    from keras_epsched import backend

    counter = CompileCounter(backend.compile)
    monkeypatch.setattr(backend, "compile", counter)
    return counter


@pytest.fixture
def letters_fonts() -> None:
    """Skips a test that draws letters where matplotlib lacks a font."""
    import matplotlib

    fonts = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    if not (fonts / "cmti10.ttf").is_file():
        pytest.skip(f"matplotlib {matplotlib.__version__} lacks cmti10")
