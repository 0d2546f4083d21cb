"""Files that are cut, changed or hostile: a clear error, and nothing is run."""

import json
import pathlib
import pickle
import shutil
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_epsched as ke
from keras_epsched.studies import grid

_ERRORS = (ValueError, OSError, ImportError)


def network():
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What the package writes, in a folder with spaces and an umlaut."""
    folder = tmp_path_factory.mktemp("Ordner mit Ümlaut 訓練")
    keras.utils.set_random_seed(0)
    net = network()
    net.save(folder / "net.keras")
    trainer = ke.AdversarialTrainer(net)
    trainer.save(folder / "trainer.keras")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 4, 4, 3)).astype("uint8")
    labels = rng.integers(0, 2, 20)
    ke.evaluate(
        net,
        (images, labels),
        [0.0, 0.1],
        ke.attacks.FGSM(),
        folder=folder / "report",
        self_check=False,
        verbose=0,
    )
    shutil.copytree(
        pathlib.Path(ke.__file__).parent / "presets" / "resnet_letters",
        folder / "preset",
    )
    trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    data = ke.datasets.ImageBatches(
        list(zip(images, labels, strict=True)), (4, 4), 10
    )
    backup = ke.callbacks.ExactBackup(folder / "backups")
    constant = ke.callbacks.EpsilonScheduler(ke.schedules.Constant(0.0))
    trainer.fit(
        data, epochs=1, shuffle=False, callbacks=[constant, backup], verbose=0
    )
    return folder


def preset(folder):
    return ke.models.classifier(str(folder), 3, image_size=(32, 32))


# What to damage, and what reads it.
READERS = {
    "net.keras": lambda folder: ke.models.load(folder / "net.keras"),
    "trainer.keras": lambda folder: ke.models.load(folder / "trainer.keras"),
    "report/report.json": lambda folder: ke.Report.load(folder / "report"),
    "report/per_image.parquet": lambda folder: ke.Report.load(
        folder / "report"
    ),
    "report/examples.npz": lambda folder: ke.Report.load(folder / "report"),
    "preset/config.json": lambda folder: preset(folder / "preset"),
    "preset/image_converter.json": lambda folder: preset(folder / "preset"),
    "preset/task.json": lambda folder: ke.models.classifier(
        str(folder / "preset")
    ),
    "preset/model.weights.h5": lambda folder: preset(folder / "preset"),
    "backups": lambda folder: ke.callbacks.ExactBackup(
        folder / "backups"
    ).latest(),
}


def test_whole_files_are_read(places):
    for read in READERS.values():
        assert read(places) is not None


def assert_same(found, other):
    """What a damaged file gave is what the whole one gives."""
    if isinstance(found, keras.Model):
        found = dict(enumerate(found.get_weights()))
        other = dict(enumerate(other.get_weights()))
    if isinstance(found, ke.Report):
        assert found == other
        return
    arrays = found.pop("arrays", found), other.pop("arrays", other)
    assert set(arrays[0]) == set(arrays[1])
    for name in arrays[0]:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])


CHANGES = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.none()),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(max_size=9)),
    st.tuples(st.just("zeros"), st.floats(0, 1), st.integers(1, 99)),
    st.tuples(st.just("other"), st.none(), st.binary(max_size=99)),
)


def changed(content, change):
    kind, share, value = change
    at = 0 if share is None else int(share * (len(content) - 1))
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]
    if kind == "insert":
        return content[:at] + value + content[at:]
    if kind == "zeros":
        return content[:at] + bytes(value) + content[at + value :]
    return value


# One of each kind of file that is fast to read.
ALWAYS = (
    "net.keras",
    "report/report.json",
    "report/per_image.parquet",
    "preset/config.json",
    "backups",
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALWAYS else pytest.mark.ci)
        for name in READERS
    ],
)
@given(change=CHANGES)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_harmless_or_told(places, name, change):
    path = places / name
    if path.is_dir():
        (path,) = path.iterdir()
    content = path.read_bytes()
    try:
        path.write_bytes(changed(content, change))
        try:
            found = READERS[name](places)
        except _ERRORS as error:
            assert len(str(error)) > 20, repr(error)
        else:
            # JSON and HDF5 have no checksums.
            if path.suffix not in (".json", ".h5"):
                path.write_bytes(content)
                assert_same(found, READERS[name](places))
    finally:
        path.write_bytes(content)


# === Hostile files ===


class Opens:
    """Whoever unpickles it leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


def hostile_config(layer):
    """The configuration of a network with one more layer."""
    config = json.loads(network().to_json())
    config["config"]["layers"].insert(1, layer)
    return config


def rewritten(path, target, config):
    """A copy of a `.keras` file with another configuration."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps(config).encode()
            new.writestr(name, content)


@pytest.mark.parametrize(
    "module, name, config",
    [
        ("pathlib", "Path.touch", {}),
        ("os", "system", {"command": "touch {trace}"}),
        ("builtins", "exec", {"source": "open({trace!r}, 'w')"}),
        ("subprocess", "Popen", {"args": ["touch", "{trace}"]}),
        ("keras_epsched.nothing", "Layer", {}),
        (
            "keras.layers",
            "Lambda",
            {
                "function": {
                    "class_name": "__lambda__",
                    "config": {"code": "4wEAAA==", "defaults": None},
                }
            },
        ),
    ],
)
def test_code_in_a_keras_file_is_not_run(
    places, tmp_path, module, name, config
):
    trace = tmp_path / "trace"
    text = json.dumps(config).replace("{trace}", str(trace))
    text = text.replace("{trace!r}", repr(str(trace)))
    layer = {
        "module": module,
        "class_name": name,
        "config": json.loads(text),
        "registered_name": None,
    }
    path = tmp_path / "hostile.keras"
    rewritten(places / "net.keras", path, hostile_config(layer))
    with pytest.raises((*_ERRORS, TypeError)) as error:
        ke.models.load(path)
    assert len(str(error.value)) > 20
    assert not trace.exists()


def test_a_real_lambda_is_refused(tmp_path):
    net = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Lambda(lambda x: x / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    net.save(tmp_path / "net.keras")
    with pytest.raises(ValueError, match="(?i)lambda.*deserializ"):
        ke.models.load(tmp_path / "net.keras")


def test_pickles_are_not_opened(places, tmp_path):
    trace = tmp_path / "trace"
    payload = np.array([Opens(trace)], dtype=object)
    folder = tmp_path / "copy"
    shutil.copytree(places, folder)
    np.savez(folder / "report" / "examples.npz", images=payload)
    (backup,) = (folder / "backups").iterdir()
    np.savez(backup, meta=payload)
    for name in ("net.keras", "report/per_image.parquet"):
        (folder / name).write_bytes(pickle.dumps(Opens(trace)))
    (folder / "preset" / "model.weights.h5").write_bytes(
        pickle.dumps(Opens(trace))
    )
    for name in (
        "net.keras",
        "report/per_image.parquet",
        "preset/model.weights.h5",
        "backups",
    ):
        with pytest.raises(_ERRORS):
            READERS[name](folder)
    shutil.copy(places / "report" / "per_image.parquet", folder / "report")
    with pytest.raises(_ERRORS):
        ke.Report.load(folder / "report")
    assert not trace.exists()
    # The payload works where pickles are opened.
    pickle.loads(pickle.dumps(Opens(trace)))
    assert trace.exists()


def test_no_module_unpickles():
    """Of the package and the launchers."""
    root = pathlib.Path(__file__).parents[1]
    for folder in (root / "keras_epsched", root / "launch"):
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for word in ("import pickle", "allow_pickle=True", "joblib"):
                assert word not in text, path
            assert "safe_mode=False" not in text, path
            assert "enable_unsafe_deserialization" not in text, path


# === Grids of studies ===


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_grids_of_anything(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "grid.toml"
    if isinstance(text, str):
        text = f"[grid]\nseed = [1]\n{text}".encode("utf-8", "surrogateescape")
    path.write_bytes(text)
    try:
        cells = grid.read(path, {})
        assert cells and all(cell.texts for cell in cells)
    except ValueError as error:
        assert str(path) in str(error)
