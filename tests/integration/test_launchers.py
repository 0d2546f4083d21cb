"""The launchers, run as a user would, with the shortest settings."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import absl.app
import keras
import pytest

import keras_epsched as ke
from keras_epsched import runs
from keras_epsched.runs import build

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SHORT = ("--epochs=2", "--train_steps=1", "--seed=3", "--test_examples=100")
_SHORT = (*_SHORT, "--image_size=16")
_WEAK = ("--eval_attack=apgd", "--eval_steps=2")
_COARSE = "--num_epsilons=5"


def _run(script, *flags, code=0):
    done = subprocess.run(
        [sys.executable, str(_ROOT / "launch" / script), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "compare"
    text = _run("compare.py", f"--output={folder}", _COARSE, *_SHORT, *_WEAK)
    return folder, text


def test_compare_leaves_a_whole_run_folder(comparison):
    folder, text = comparison
    # What made each of the two tables.
    tables = (folder / "table.txt").read_text()
    assert tables in text
    nested, paper = tables.split("attack: ")[1:]
    assert nested.startswith("APGD-2 on cross-entropy\n")
    assert "protocol: nested (an image" in nested and "bisection" in nested
    assert paper.startswith("APGD-10 on cross-entropy\n")
    assert "the protocol of the paper" in paper
    assert "known to be loose" in paper
    assert re.search(r"\nSelf-checks: \d+ of \d+ fired", text)
    for name in ("curve.png", "curve.svg", "story.png", "story.svg"):
        assert (folder / name).stat().st_size > 1000
    config = json.loads((folder / "config.json").read_text())
    assert config["flags"]["epsilon"] == pytest.approx(0.3)
    assert config["splits"]["train"]["dataset"] == "digits/1.0.0"
    assert config["evaluation"] == {
        "nested": "APGD-2 on cross-entropy",
        "paper": "APGD-10 on cross-entropy",
    }
    for arm in ("standard", "fixed", "scheduled"):
        place = folder / "seed3" / arm
        header = (place / "history.csv").read_text().splitlines()[0]
        assert "epsilon" in header.split(",")
        report = ke.Report.load(place / "nested")
        assert report.num_images == 100 and report.bisect
        report = ke.Report.load(place / "paper")
        assert report.attack["config"]["steps"] == 10
        assert report.protocol == "independent"
        assert (place / "model.keras").exists()
        assert not (place / "backups").exists()
        assert list((place / "logs").rglob("events*"))
    story = json.loads((folder / "seed3/fixed/history.json").read_text())
    assert story["epsilon"] == pytest.approx([0.3, 0.3])
    # Judged against the standard arm, in the table as well.
    assert "transfer_gap" in story
    assert story["verdict"] in ("healthy", "suboptimal", "failure")
    assert f"fixed, seed 3: {story['advice']}" in text
    results = json.loads((folder / "results.json").read_text())
    assert results["fixed"]["verdict"] == [story["verdict"]]


def evaluation(models, **values):
    """An evaluation as short as the comparison."""
    short = {"test_examples": 100, "seed": 3, "image_size": 16}
    short |= {"eval_attack": "apgd", "eval_steps": 2}
    return runs.Evaluation(model=tuple(map(str, models)), **{**short, **values})


def test_saved_models_are_evaluated_side_by_side(comparison, tmp_path, capsys):
    folder, _ = comparison
    arms = ("standard", "scheduled")
    models = [folder / "seed3" / arm / "model.keras" for arm in arms]
    output = tmp_path / "evaluation"
    config = evaluation(
        models,
        output=str(output),
        epsilon=0.2,
        epsilons="0.1,0.2,0.3,0.4",
        bisect=False,
    )
    result = runs.evaluate(config)
    assert "second - first" in result.text()
    assert str(result.reports["standard"]) in capsys.readouterr().out
    before = ke.Report.load(models[0].parent / "nested")
    for arm in arms:
        report = ke.Report.load(output / arm)
        assert report.model_name == arm and report.num_images == 100
        assert not report.bisect
        assert report.target_epsilon == pytest.approx(0.2)
        assert report.epsilons[-1] == pytest.approx(0.4)
        assert report.checks
    again = ke.Report.load(output / "standard")
    assert again.clean_accuracy == before.clean_accuracy
    page = (output / "report.html").read_text()
    assert "standard" in page and "scheduled" in page
    assert "scheduled minus that of standard" in page
    assert again.attack_title in page
    # One of them is lost: the other is not evaluated again.
    created = ke.Report.load(output / "standard").created
    shutil.rmtree(output / "scheduled")
    runs.evaluate(config.replace(resume=True), verbose=0)
    assert ke.Report.load(output / "standard").created == created
    assert (output / "scheduled" / "report.json").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resume": True}, "`output`"),
        ({"epsilons": "0.1,0.2", "epsilon": 0.15}, "target_epsilon"),
        ({"protocol": "independent", "bisect": True}, "bisect"),
        (
            {"protocol": "paper", "eval_attack": "square", "eval_steps": None},
            "APGD with 10 steps",
        ),
        ({"eval_attack": "autoattack"}, "a budget of its own"),
        ({"norm": "l2", "epsilons": "0.5,1"}, "26 classes"),
    ],
)
def test_bad_values_of_an_evaluation_are_told(values, message):
    with pytest.raises(ValueError, match=message):
        runs.evaluate(evaluation(["resnet_letters"], **values), verbose=0)


def test_a_model_that_does_not_fit_the_data_is_refused(comparison, tmp_path):
    folder, _ = comparison
    model = folder / "seed3" / "standard" / "model.keras"
    output = tmp_path / "run"
    for models, values, message in (
        (["resnet_letters"], {}, "26 classes.*has 10"),
        ([model], {"image_size": 48}, "image_size=16"),
        ([], {}, "`model` must name"),
    ):
        config = evaluation(models, output=str(output), **values)
        with pytest.raises(ValueError, match=message):
            runs.evaluate(config, verbose=0)
        assert not output.exists()


@pytest.mark.ci
def test_finetune_writes_a_report(tmp_path):
    output = tmp_path / "run"
    flags = ("--recipe=fast_fgsm", "--adaptation=last", "--probe_epochs=1")
    flags += ("--head_multiplier=5", "--layer_decay=0.8", _COARSE, *_SHORT)
    flags += ("--monitors=transfer,robust_overfitting,images",)
    flags += ("--dtype=mixed_float16", "--accumulate=2")
    flags += (*_WEAK, "--protocols=nested,paper")
    text = _run("finetune.py", f"--output={output}", *flags)
    assert "Fast is better than free" in text
    assert "parameters are trained" in text
    assert "computes on device:CPU:0, by tensorflow" in text
    config = json.loads((output / "config.json").read_text())["flags"]
    assert (config["train_attack"], config["schedule"]) == ("fgsm", "fixed")
    assert config["epochs"] == 2  # a flag of _SHORT, above the recipe
    assert "expected robustness" in text
    history = json.loads((output / "history.json").read_text())
    assert f"{history['verdict']} transfer: {history['advice']}" in text
    assert len(history["probe_target_accuracy"]) == 2
    assert "transfer_gap" not in history
    assert list((output / "logs" / "adversarial").glob("events*"))
    assert (output / "model.keras").exists()
    report = ke.Report.load(output)
    assert report.protocol == "nested" and report.bisect
    assert report.attack["config"]["steps"] == 2
    assert ke.Report.load(output / "paper").attack["config"]["steps"] == 10
    assert (
        "probe_target_accuracy: accuracy under APGD-10 on the probability "
        "margin, at epsilon 8/255"
    ) in text
    _run("finetune.py", f"--output={output}", *_SHORT, code=1)


# Two processes, the first of which compiles a training.
@pytest.mark.ci
def test_an_estimate_is_printed_in_place_of_the_run(tmp_path):
    output = tmp_path / "run"
    flags = (f"--output={output}", "--estimate", "--memory_gb=1")
    text = _run("finetune.py", *flags, *_SHORT, *_WEAK)
    assert "training, scheduled" in text and "into 1 GB fit" in text
    assert not output.exists()
    text = _run("compare.py", "--card=T4", code=1)
    assert "error: --card needs --estimate" in text


@pytest.mark.ci
def test_bad_flags_are_told_before_training(tmp_path):
    flags = (f"--output={tmp_path / 'run'}", "--probe=adversarial", *_SHORT)
    text = _run("finetune.py", *flags, code=1)
    # In one sentence, which says what to do in the words of the shell.
    assert "error: --probe=adversarial needs --probe_epochs" in text
    assert "Traceback" not in text
    text = _run("finetune.py", *flags, "--epsilon=eight", "epochs", code=1)
    assert "--epsilon must be a number or a fraction" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "no_such_dataset", "epsilon": "4/255"}, "no_such_dataset"),
        ({"backbone": "no_such_preset"}, "no_such_preset"),
        ({"adaptation": "lora"}, "freeze the whole backbone"),
        ({"objective": "twins", "freeze_batchnorm": True}, "are frozen"),
        ({"objective": "autolora", "adaptation": "head"}, "besides the head"),
        ({"accumulate": 1000}, "no step"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(
    values, message, tmp_path
):
    config = runs.Comparison(output=str(tmp_path / "run"), **values)
    with pytest.raises(ValueError, match=message) as error:
        runs.compare(config, verbose=0)
    # A launcher prints the message alone.
    assert error.value.is_refusal
    assert not (tmp_path / "run").exists()


def test_errors_name_what_is_typed(monkeypatch):
    monkeypatch.syspath_prepend(str(_ROOT / "launch"))
    import run_flags

    text = run_flags.as_flags(
        "`epochs` with epsilon=8, APGD(steps=1, norm='l2') and `fit`",
        runs.Config,
    )
    assert text == (
        "--epochs with --epsilon=8, APGD(steps=1, norm='l2') and `fit`"
    )
    assert run_flags.as_flag("augment", ("flip",)) == "--augment=flip"


_MAIN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import app
def main():
    raise type("OutOfMemoryError", (RuntimeError,), {})("x")
app.run(main)
"""


@pytest.mark.ci
def test_a_device_out_of_memory_is_told_with_what_to_do():
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, str(_ROOT / "launch")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert "--batch_size" in done.stderr.splitlines()[-1]


def test_the_end_of_a_launcher(monkeypatch):
    monkeypatch.syspath_prepend(str(_ROOT / "launch"))
    import app

    # As a study of which cells have failed.
    assert app.in_flags(lambda: 3) == 3
    with pytest.raises(absl.app.UsageError, match="expected flags alone"):
        app.checked(lambda: 0)(["compare.py", "epsilon=8/255"])
    assert app._is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: 3 GiB"))
    assert not app._is_out_of_memory(RuntimeError("other"))


def test_defaults_and_the_learning_rate_with_accumulation():
    config = runs.Config(accumulate=4)
    # What evaluates, if nothing is said.
    title = ke.attacks.MarginEnsemble().title
    assert build.make_final_attack(config).title == title
    trainer = build.make_trainer(
        config, build.make_classifier(config, 10, 0), 0
    )
    optimizer = build.make_optimizer(config, 0.1, 40, trainer)
    variables = trainer.trainable_variables
    optimizer.build(variables)
    rates = []
    for _ in range(40):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.zeros(each.shape) for each in variables])
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    assert rates[20] == pytest.approx(0.05, rel=0.1) and rates[-1] < 0.001


@pytest.mark.slow
def test_pretrain_makes_a_preset_that_loads(tmp_path):
    output = tmp_path / "preset"
    _run("pretrain.py", f"--output={output}", "--epochs=1")
    assert ke.models.classifier(str(output), 10).output_shape == (None, 10)
