"""The documentation is true: its code runs, its commands parse, it builds."""

import functools
import inspect
import json
import pathlib
import re
import shlex
import subprocess
import sys
import types
import unittest.mock
import warnings

import keras
import numpy as np
import pytest
from networks import make_data, make_trainer  # noqa: E402

import keras_epsched as ke

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PAGES = [
    *(
        page
        for page in sorted((_ROOT / "docs").rglob("*.md"))
        # Notebooks, which test_notebooks.py runs.
        if page.parent.name != "tutorials"
    ),
    _ROOT / "README.md",
    _ROOT / "CONTRIBUTING.md",
]
_SLOW_PAGES = ("choose.md", "getting-started.md")
# What is long, made short; nothing else is changed.
_SHORTER = {
    r"epochs=\d+": "epochs=1, verbose=0",
    r"\.AutoAttack\(\"standard\"\)": ".PGD(2)",
    r"\bAPGD\(steps=\d+\)": "APGD(steps=2)",
    r"\bsteps=(10|7)\b": "steps=2",
    r"queries=1000": "queries=5",
    r"(digits.*), batch_size=64": r"\1, batch_size=64, test_examples=50",
    r"slice\(1300, None\)": "slice(1300, 1350)",
    # Where it was quiet before.
    r"verbose=0(.*), verbose=0": r"verbose=0\1",
}


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shorter(block):
    # What takes a config is not run, see `names`.
    if re.search(r"\b(runs|studies)\.[A-Z]", block):
        return block
    for long, short in _SHORTER.items():
        block = re.sub(long, short, block)
    return block


def examples(count=24, seed=0):
    images, labels = make_data(count, seed)
    return [
        (image.astype("uint8"), int(label))
        for image, label in zip(images, labels, strict=True)
    ]


def batches(seed, shuffle=False):
    return ke.datasets.ImageBatches(
        examples(seed=seed), (8, 8), 8, shuffle=shuffle
    )


def any_size():
    """A small network for images of any size."""
    inputs = x = keras.Input((None, None, 3))
    for block in (1, 2):
        x = keras.layers.Conv2D(16, 3, name=f"block_{block}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"block_{block}_bn")(x)
        x = keras.layers.ReLU(name=f"block_{block}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    # As many classes as digits.
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def stand_in():
    """For a network that would be downloaded; with what LoRA looks for."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    for block in range(2):
        x = keras.layers.Dense(8, name=f"block_{block}_query_dense")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def standing_in(function, known, made):
    """Checks the arguments; what would download something is `made`."""
    signature = inspect.signature(function)

    def call(*args, **kwargs):
        signature.bind(*args, **kwargs)
        if args[0] in known:
            return function(*args, **kwargs)
        return made()

    return call


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What a reader of the documentation has at hand, small."""
    import scipy.stats
    import tensorflow_datasets as tfds

    monkeypatch.chdir(tmp_path)
    data = types.SimpleNamespace(
        train=batches(0, shuffle=True),
        validation=batches(1),
        test=batches(2),
        num_classes=3,
        class_counts={"train": np.array([8, 8, 8])},
    )
    ours = (ke.models.bundled_presets(), ("digits", "letters"))
    monkeypatch.setattr(
        ke.models,
        "classifier",
        standing_in(ke.models.classifier, ours[0], stand_in),
    )
    monkeypatch.setattr(
        ke.datasets,
        "load",
        standing_in(ke.datasets.load, ours[1], lambda: data),
    )
    monkeypatch.setattr(
        keras.applications,
        "MobileNet",
        functools.partial(keras.applications.MobileNet, weights=None),
    )
    for name in ("initialize", "set_distribution"):
        monkeypatch.setattr(
            keras.distribution,
            name,
            unittest.mock.create_autospec(getattr(keras.distribution, name)),
        )
    monkeypatch.setattr(
        keras.distribution,
        "DataParallel",
        unittest.mock.create_autospec(keras.distribution.DataParallel),
    )
    # Each takes minutes. Their configs are made, and their calls checked.
    for room, name in (
        *((ke.runs, name) for name in ("finetune", "compare", "evaluate")),
        (ke.runs, "estimate"),
        *((ke.studies, name) for name in ("run", "search", "evaluate")),
        (ke.studies, "report"),
    ):
        monkeypatch.setattr(
            room, name, unittest.mock.create_autospec(getattr(room, name))
        )
    grid = [0.0, 4 / 255, 8 / 255]
    trainer, net = make_trainer(any_size()), any_size()
    plain = any_size()
    plain.compile("sgd", "sparse_categorical_crossentropy")
    report = ke.evaluate(
        net, data.test, grid, ke.attacks.PGD(2), folder="runs/fixed"
    )
    for name in ["scheduled", *(f"scheduled-seed{n}" for n in range(5))]:
        report.save(f"runs/{name}")
    # One epoch does not reach the target, so `RobustCheckpoint` saves nothing.
    any_size().save("robust.keras")
    monkeypatch.setattr(
        tfds,
        "data_source",
        lambda name: {"train": examples(72), "test": examples(seed=1)},
    )
    callbacks = ke.callbacks.EpsilonScheduler(ke.schedules.TwoHinge(8 / 255))
    return {
        "keras": keras,
        "keras_epsched": ke,
        "ke": ke,
        # Who follows the README does not have it.
        "jax": types.SimpleNamespace(
            process_index=lambda: 0,
            process_count=lambda: 1,
            local_device_count=lambda: 1,
        ),
        "scipy": scipy,
        "tfds": tfds,
        "data": data,
        "dataset": data.train,
        "examples": examples(),
        "classifier": any_size(),
        "net": net,
        "my_keras_model": net,
        "model": plain,
        "trainer": trainer,
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "schedule": ke.schedules.TwoHinge(8 / 255),
        "scheduler": callbacks,
        "backup": keras.callbacks.Callback(),
        "grid": grid,
        "index": 0,
        "standard": types.SimpleNamespace(history={"val_accuracy": [0.9]}),
        "report": report,
        "fixed": report,
        "scheduled": report,
        "seed_0": report,
        "seed_1": report,
        "seed_2": report,
        "Report": ke.Report,
        "ImageBatches": lambda *args, **kwargs: inspect.signature(
            ke.datasets.ImageBatches
        ).bind(*args, **kwargs),
        **{
            name: getattr(ke.evaluation, name)
            for name in (
                "compare",
                "pool",
                "write_html",
                "plot_curves",
                "plot_training_story",
            )
        },
    }


def run(block, names, where):
    with warnings.catch_warnings():
        # A few steps on a few images are no training.
        warnings.simplefilter("ignore")
        exec(compile(shorter(block), where, "exec"), names)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=pytest.mark.ci if p.name in _SLOW_PAGES else ())
        for p in _PAGES
        if blocks(p.read_text("utf-8"), "python")
    ],
    ids=lambda page: page.name,
)
def test_the_code_of_each_page_runs(page, names, monkeypatch):
    if page.name == "runs.md":
        names["model"] = names["trainer"]
    if page.name == "getting-started.md":
        import keras_hub

        monkeypatch.setattr(
            keras_hub.models.ImageClassifier, "from_preset", lambda _: None
        )
    for number, block in enumerate(blocks(page.read_text("utf-8"), "python")):
        run(block, names, f"{page.name}, block {number}")


def test_the_readme_is_short_and_shows_python_early():
    lines = (_ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) < 110
    assert lines.index("```python") < 60


# Public names that are defined in another room.
_ELSEWHERE = [
    ("callbacks", "BatchNormMonitor"),
    ("evaluation", "epsilon_grid"),
    ("datasets", "SplitInfo"),
    *(
        ("runs", name)
        for name in ("Comparison", "Config", "ConfigError", "Evaluation")
    ),
    *(("runs", name) for name in ("Recipe", "Settings")),
]


def public():
    """Names of the package, as the reference has them."""
    found = {}
    for package in (
        "attacks callbacks datasets evaluation models reports runs schedules "
        "studies training"
    ).split():
        for name, value in vars(getattr(ke, package)).items():
            if (
                not name.startswith("_")
                and (inspect.isclass(value) or inspect.isfunction(value))
                and value.__module__.startswith(f"keras_epsched.{package}")
                or (package, name) in _ELSEWHERE
            ):
                found[f"keras_epsched.{package}.{name}"] = value
    return found


def test_the_reference_has_all_that_is_public():
    pages = (_ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(page.read_text("utf-8") for page in pages)
    assert set(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) == set(public())


_EXAMPLES = {
    name: found
    for name, value in public().items()
    if (found := blocks(inspect.getdoc(value) or "", "python"))
}


@pytest.mark.ci
@pytest.mark.parametrize(
    "package", sorted({n.split(".")[1] for n in _EXAMPLES})
)
def test_the_examples_of_docstrings_run(package, names):
    for name, examples in _EXAMPLES.items():
        if name.split(".")[1] != package:
            continue
        for block in examples:
            # An ellipsis stands for what the reader trains on.
            block = block.replace(
                "fit(...", "fit(data.train, validation_data=data.validation"
            )
            if "class_counts" in block or name.endswith("ImageBatches"):
                block = block.replace("model.fit", "trainer.fit")
            try:
                run(block, dict(names), name)
            except Exception as error:
                raise AssertionError(f"the example of {name}") from error


# All launchers in one process: to import what they use takes seconds.
_PARSE = """
import importlib, json, sys
sys.path.insert(0, "launch")
from absl import flags, logging
shared = set(flags.FLAGS)
for launcher, commands in json.loads(sys.argv[1]).items():
    module = importlib.import_module(launcher)
    for arguments in commands:
        try:
            flags.FLAGS(["launcher", *arguments])
            if "recipe.json" in " ".join(arguments):
                # Which another command of the page writes.
                continue
            if hasattr(module, "CONFIG"):
                module.run_flags.config(module.CONFIG)
        except Exception as error:
            raise ValueError(f"{launcher} {arguments}") from error
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
    flags.FLAGS.remove_flag_values(set(flags.FLAGS) - shared)
"""


def commands():
    """The arguments of each launcher, as pages and --help state them."""
    texts = [
        block
        for page in [*_PAGES, _ROOT / "REPRODUCTION.md"]
        for block in blocks(page.read_text("utf-8"), "shell")
    ]
    for path in sorted((_ROOT / "launch").glob("*.py")):
        match = re.match(r'r?"""(.*?)"""', path.read_text("utf-8"), re.DOTALL)
        texts.append(match[1])
    found = {}
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            match = re.search(r"python launch/(\w+)\.py(.*)", line)
            if match:
                arguments = shlex.split(match[2], comments=True)
                found.setdefault(match[1], []).append(arguments)
    return found


def test_the_flags_of_each_command_are_there():
    found = commands()
    assert len(found) == 7
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, json.dumps(found)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ci
def test_the_pictures_are_what_the_code_draws(tmp_path):
    script = _ROOT / "docs" / "pictures" / "draw.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    (drawn,) = tmp_path.iterdir()
    stored = (script.parent / drawn.name).read_text("utf-8")
    made_by = re.search(r"Matplotlib v[\d.]+", stored)[0]
    if made_by not in drawn.read_text("utf-8"):
        pytest.skip(f"stored as {made_by} draws it")
    assert drawn.read_text("utf-8") == stored


def test_the_site_builds_without_warnings(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"]
        + ["--site-dir", str(tmp_path / "site")],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reproduction" / "index.html").exists()
