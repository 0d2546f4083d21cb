"""The launchers, run as a user would, with the shortest settings."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import keras_epsched as ke

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SHORT = ("--epochs=2", "--train_steps=1", "--seed=3", "--test_examples=100")
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


# Each command in turn, in one process: to import it takes seconds.
_REFUSED = """
import contextlib, importlib, io, json, sys
sys.path.insert(0, sys.argv[1])
from absl import flags
module = importlib.import_module(sys.argv[2])
FLAGS = flags.FLAGS
for arguments in json.loads(sys.argv[3]):
    for name in FLAGS:
        FLAGS[name].unparse()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            FLAGS(["launcher", *arguments])
            module.main([])
        said = "nothing"
    except (ValueError, flags.Error) as error:
        said = str(error)
    print(json.dumps(said))
"""


def assert_refused(launcher, flag, refused):
    """Each of these flags is refused, with a word of the reason."""
    commands = [[flag, *flags.split()] for flags in refused]
    done = subprocess.run(
        [sys.executable, "-c", _REFUSED, str(_ROOT / "launch"), launcher]
        + [json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    for (flags, reason), message in zip(refused.items(), said, strict=True):
        assert reason in message, (flags, message)


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
    assert "protocol: nested envelope" in nested and "bisection" in nested
    assert paper.startswith("APGD-10 on cross-entropy\n")
    assert "protocol: the protocol of the paper" in paper
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


def test_saved_models_are_evaluated_side_by_side(comparison, tmp_path):
    folder, _ = comparison
    arms = ("standard", "scheduled")
    models = [folder / "seed3" / arm / "model.keras" for arm in arms]
    output = tmp_path / "evaluation"
    flags = [f"--model={model}" for model in models]
    flags += [f"--output={output}", "--epsilons=0.1,0.2,0.3,0.4"]
    flags += [*_SHORT, *_WEAK, "--nobisect"]
    text = _run("evaluate.py", "--epsilon=0.2", *flags)
    assert "second - first" in text
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
    _run("evaluate.py", "--epsilon=0.2", "--resume", *flags)
    assert ke.Report.load(output / "standard").created == created
    assert (output / "scheduled" / "report.json").exists()


def test_bad_flags_of_an_evaluation_are_told():
    refused = {
        "--resume": "--output",
        "--epsilons=0.1,0.2 --epsilon=0.15": "target_epsilon",
        "--protocol=independent --bisect": "bisect",
        "--protocol=paper --attack=square": "APGD with 10 steps",
        "--attack=autoattack --eval_steps=5": "a budget of its own",
        "--norm=l2 --epsilons=0.5,1": "26 classes",
    }
    assert_refused("evaluate", "--model=resnet_letters", refused)


@pytest.mark.ci
def test_a_model_that_does_not_fit_the_data_is_refused(comparison, tmp_path):
    folder, _ = comparison
    model = folder / "seed3" / "standard" / "model.keras"
    output = tmp_path / "run"
    for flags, message in (
        (("--model=resnet_letters",), "26 classes.*has 10"),
        ((f"--model={model}", "--image_size=48"), "--image_size=32"),
    ):
        text = _run("evaluate.py", f"--output={output}", *flags, code=1)
        assert re.search(message, text)
        assert not output.exists()


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
        "probe_target_accuracy: under APGD-10 on the probability margin, at "
        "epsilon 8/255"
    ) in text
    _run("finetune.py", f"--output={output}", *_SHORT, code=1)


def test_bad_flags_are_told_before_training(tmp_path):
    output = f"--output={tmp_path / 'run'}"
    text = _run("compare.py", output, "--epsilon=8", *_SHORT, code=1)
    # In one sentence, which says what to do.
    assert "error: " in text and "8/255" in text
    assert "Traceback" not in text
    text = _run("compare.py", output, "epsilon=8/255", code=1)
    assert "expected flags alone" in text
    refused = {
        "--epsilon=eight": "fraction",
        "--epsilon=0": "above 0",
        "--dataset=cifar10": "meant for digits",
        "--dataset=no_such_dataset --epsilon=4/255": "no_such_dataset",
        "--backbone=no_such_preset": "no_such_preset",
        "--norm=l2": "num",
        "--recipe=no_such_recipe": "epsilon_scheduling_2026",
        "--adaptation=lora": "freeze the whole backbone",
        "--learning_rates=1e-3,fast": "expected positive numbers",
        "--schedules=fixed,slow": "expected one of standard",
        "--schedules=fixed,fixed": "different schedules",
        "--schedules=auto --update_freq=batch": "once an epoch",
        "--objective=mixed --beta=2": "--beta",
        "--objective=twins --freeze_batchnorm": "are frozen",
        "--objective=autolora --adaptation=head": "besides the head",
        "--probe=adversarial": "--probe_epochs",
        "--awp=0.01 --ema=0.9": "not available",
        "--monitors=transfer,all": "catastrophic_overfitting",
        "--eval_steps=20": "a budget of its own",
        "--protocols=paper --eval_attack=apgd --eval_steps=20": "10 steps",
        "--protocols=nested,all": "nested, independent, paper",
        "--protocols=nested --protocols=paper": "already defined",
        "--monitors=robust_overfitting --monitor_action=stop --ema=0.9": "ema",
        "--accumulate=1000": "no step",
    }
    assert_refused("compare", output, refused)
    assert not (tmp_path / "run").exists()


def _run_main(body, *flags):
    """Runs a function of flags as the launchers do."""
    script = f"""
import sys
sys.path.insert(0, sys.argv.pop(1))
import common, refusals
def main(_):
{textwrap.indent(body, "    ")}
refusals.run(main)
"""
    return subprocess.run(
        [sys.executable, "-c", script, str(_ROOT / "launch"), *flags],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_device_out_of_memory_is_told_with_what_to_do():
    for error, told in (
        ("RuntimeError('RESOURCE_EXHAUSTED: 3 GiB')", True),
        ("type('OutOfMemoryError', (RuntimeError,), {})('cuda')", True),
        ("RuntimeError('other')", False),
    ):
        done = _run_main(f"raise {error}")
        assert done.returncode == 1 and "Traceback" in done.stderr
        assert ("--batch_size" in done.stderr.splitlines()[-1]) == told
    # As a study of which cells have failed.
    assert _run_main("return 3").returncode == 3


def test_defaults_and_the_learning_rate_with_accumulation():
    done = _run_main(
        """
import keras
print("attack", common.make_final_attack().title)
trainer = common.make_trainer(common.make_classifier(10, 0), 0)
optimizer = common.make_optimizer(0.1, 40, trainer)
variables = trainer.trainable_variables
optimizer.build(variables)
for _ in range(40):
    print("rate", float(optimizer.learning_rate))
    optimizer.apply([keras.ops.zeros_like(each) for each in variables])
""",
        "--accumulate=4",
    )
    rates = [float(rate) for rate in re.findall(r"rate (.*)", done.stdout)]
    assert len(rates) == 40, done.stderr
    # What the launchers evaluate with, if they are told nothing.
    title = ke.attacks.MarginEnsemble().title
    assert f"attack {title}\n" in done.stdout
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    assert rates[20] == pytest.approx(0.05, rel=0.1) and rates[-1] < 0.001


@pytest.mark.slow
def test_pretrain_makes_a_preset_that_loads(tmp_path):
    output = tmp_path / "preset"
    _run("pretrain.py", f"--output={output}", "--epochs=1")
    assert ke.models.classifier(str(output), 10).output_shape == (None, 10)
