"""The launchers, run as a user would, with the shortest settings."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import pytest

import keras_epsched as ke
from keras_epsched import runs
from keras_epsched.configs.values import Group, entries
from keras_epsched.runs import build, checks

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
    # One table, and what made its two groups of columns.
    table = (folder / "table.txt").read_text()
    assert table in text
    assert "nested: APGD-2 on cross-entropy looks for the smallest" in table
    assert "paper: APGD-10 on cross-entropy attacks afresh" in table
    assert "loose upper bound" in " ".join(table.split())
    assert re.search(r"\nSelf-checks: \d+ of \d+ found a problem", text)
    for name in ("curve.png", "curve.svg", "story.png", "story.svg"):
        assert (folder / name).stat().st_size > 1000
    config = json.loads((folder / "config.json").read_text())
    assert config["flags"]["epsilon"] == pytest.approx(0.3)
    assert config["splits"]["train"]["dataset"] == "digits/1.0.0"
    assert config["evaluation"] == {
        "nested": "APGD-2 on cross-entropy",
        "paper": "APGD-10 on cross-entropy",
    }
    for arm in ("standard", "fixed", "scheduled", "peak"):
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
    # In one line, in the words of the shell.
    advice = re.sub(r"`(\w+(=[\d.]+)?)`", r"--\1", story["advice"])
    assert f"- fixed: {story['verdict']}: {advice}" in " ".join(text.split())
    results = json.loads((folder / "results.json").read_text())
    assert results["fixed"]["verdict"] == [story["verdict"]]


def test_compare_prints_what_a_user_needs(comparison):
    folder, text = comparison
    lines = text.splitlines()
    # Eight epochs, eight evaluations, the beginning and the end.
    assert len(lines) < 75
    # Paths and commands are not broken.
    assert max(len(each) for each in lines if str(folder) not in each) <= 112
    assert lines[0].startswith("values: ") and "epochs=2" in lines[0]
    assert "weight_decay" not in text
    for arm in ("1", "2", "3", "4"):
        assert f": arm {arm} of 4" in text
    assert len(re.findall(r"\n +[12]/2 ", text)) == 8
    # Neither logs of TensorFlow nor a path of a line of code.
    assert not re.search(r"^[IWE]\d{4} |Warning:|absl::", text, re.MULTILINE)
    assert f"Look at {folder}/curve.png" in text
    command = re.search(r"Next: python launch/evaluate.py (.*)", text)[1]
    assert "--image_size=16" in command and "--test_examples=100" in command
    models = re.search(r"--model=(\S+)", command)[1]
    assert pathlib.Path(models).exists()
    assert json.dumps({"run_folder": str(folder)}) in lines


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
    assert "\nscheduled: clean accuracy" in capsys.readouterr().out
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
    words = " ".join(page.split())
    assert "scheduled minus expected robustness of standard" in words
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
    assert "Linear probe\n" in text
    config = json.loads((output / "config.json").read_text())["flags"]
    assert (config["train_attack"], config["schedule"]) == ("fgsm", "fixed")
    assert config["epochs"] == 2  # a flag of _SHORT, above the recipe
    assert "expected robustness" in text
    history = json.loads((output / "history.json").read_text())
    said = " ".join(text.replace("--", "").split())
    advice = history["advice"].replace("`", "")
    assert f"Verdict: {history['verdict']}: {advice}" in said.replace("`", "")
    assert history["jit_compile"] is False  # convolutions, on a CPU
    assert len(history["probe_target_accuracy"]) == 2
    assert "transfer_gap" not in history
    assert list((output / "logs" / "adversarial").glob("events*"))
    assert (output / "model.keras").exists()
    report = ke.Report.load(output)
    assert report.protocol == "nested" and report.bisect
    assert report.attack["config"]["steps"] == 2
    assert ke.Report.load(output / "paper").attack["config"]["steps"] == 10
    assert (
        "robust val.: accuracy of 256 validation images under APGD-10 on the "
        "probability margin, at epsilon 8/255"
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
        ({"objective": "autolora", "adaptation": "head"}, "outside the head"),
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
    # In advice, as the monitors give it; what is no flag stays.
    hinges = {name: name for name in ("ramp_start", "ramp_end")}
    monkeypatch.setattr(run_flags, "_flags", hinges)
    advice = "set `ramp_start=0.05` or a later `ramp_end`, not `other=0.05`."
    assert run_flags.named(advice) == (
        "set --ramp_start=0.05 or a later --ramp_end, not `other=0.05`."
    )
    hinges |= {"attack_mode": "attack_mode", "download": "download"}
    advice = 'set `attack_mode="training"`, or `download=True`.'
    assert run_flags.named(advice) == (
        "set --attack_mode=training, or --download."
    )
    assert run_flags.as_flag("augment", ("flip",)) == "--augment=flip"


def test_the_next_command_repeats_what_was_given(monkeypatch):
    monkeypatch.syspath_prepend(str(_ROOT / "launch"))
    import run_flags

    config = runs.Config(
        dataset="cub 200",
        epsilon=4 / 255,
        epochs=3,
        schedule="fixed",
        output="x",
        download=True,
    )
    assert run_flags.as_command("evaluate.py", config, "--model=m") == (
        "python launch/evaluate.py '--dataset=cub 200' --epsilon=4/255 "
        "--model=m"
    )
    assert run_flags.as_command("compare.py", config, groups=(*Group,)) == (
        "python launch/compare.py '--dataset=cub 200' --epsilon=4/255 "
        "--epochs=3"
    )


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


def test_the_end_of_a_launcher(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(_ROOT / "launch"))
    import app

    # As a study of which cells have failed.
    assert app.in_flags(lambda: 3) == 3
    assert app.checked(lambda: 3)(["compare.py"]) == 3
    assert app._is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: 3 GiB"))
    assert not app._is_out_of_memory(RuntimeError("other"))
    monkeypatch.setattr(app, "_warned", ["a b", "seen", "a b"])
    app.finish("The result. seen", "runs/x", "python launch/y.py")
    assert capsys.readouterr().out.splitlines() == [
        "",
        "The result. seen",
        "",
        "Warnings of this run",
        "- a b",
        "",
        "Next: python launch/y.py",
        '{"run_folder": "runs/x"}',
    ]


def test_errors_of_the_system_are_sentences(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(_ROOT / "launch"))
    import app

    error = PermissionError(13, "Permission denied", "/proc/x")
    error.is_refusal = True
    app._show(PermissionError, error, None)
    text = capsys.readouterr().err
    assert text == "\nerror: /proc/x cannot be used: Permission denied\n"


# All launchers in one process: to import what they use takes seconds.
_LAUNCHERS = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from absl import flags
shared, found = set(flags.FLAGS), {}
for name in ("compare", "evaluate", "finetune", "pretrain", "report", "study"):
    module = importlib.import_module(name)
    import app, usage
    errors = {}
    for typed in sys.argv[2:]:
        try:
            flags.FLAGS(["x", *typed.split()])
        except flags.Error as error:
            errors[typed] = app.flag_error(error)
    own = usage.own_flags()
    found[name] = [usage.text(module.__doc__), own, errors]
    flags.FLAGS.remove_flag_values(set(flags.FLAGS) - shared)
    usage._groups.clear()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def launchers():
    """The help, the flags and some errors of each launcher."""
    typed = ("--epsilom=1", "--noresum", "--norm=l3", "--schedules=fixed")
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHERS, str(_ROOT / "launch"), *typed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_help_shows_the_flags_of_the_launcher_in_groups(launchers):
    for name, (text, own, _) in launchers.items():
        assert "Examples:\n" in text and f"python launch/{name}.py" in text
        for flag in own:
            assert re.search(rf"^  --(\[no\])?{flag}\b", text, re.MULTILINE)
        # None of absl's and of other packages.
        assert "logtostderr" not in text and "--pdb" not in text
        flags = text.partition("Flags, each with its default:")[2]
        assert max(map(len, flags.splitlines())) <= 80
    assert set(launchers["finetune"][1]) == {
        *entries(runs.Config),
        *("estimate", "memory_gb", "card"),
    }
    text = launchers["compare"][0]
    headings = [group.value for group in Group]
    places = [text.index(f"\n\n{heading}\n") for heading in headings]
    assert places == sorted(places)
    # An evaluation has no training.
    assert "--model=" in launchers["evaluate"][0]
    assert not {"epochs", "train_attack"} & set(launchers["evaluate"][1])


def test_a_flag_has_the_same_name_in_finetune_and_compare(launchers):
    finetune, compare = (set(launchers[n][1]) for n in ("finetune", "compare"))
    assert finetune < compare and compare - finetune == {"seeds"}


def test_wrong_flags_are_told_in_a_sentence(launchers):
    errors = launchers["compare"][2]
    assert errors["--epsilom=1"] == (
        "there is no flag --epsilom. Did you mean --epsilon? See --help."
    )
    assert "Did you mean --resume?" in errors["--noresum"]
    assert "Did you mean --schedule?" in errors["--schedules=fixed"]
    assert errors["--norm=l3"] == (
        "--norm must be one of linf, l2, l1. Received: --norm='l3'"
    )


def learning_rates(config, peak):
    """Learning rates of the 40 steps of a training."""
    trainer = build.make_trainer(
        config, build.make_classifier(config, 10, 0), 0
    )
    optimizer = build.make_optimizer(config, peak, 40, trainer)
    variables = trainer.trainable_variables
    optimizer.build(variables)
    rates = []
    for _ in range(40):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.zeros(each.shape) for each in variables])
    return rates


def test_defaults_and_the_learning_rate_with_accumulation():
    config = runs.Config(accumulate=4, decay_start=0.05)
    # What evaluates, if nothing is said.
    title = ke.attacks.MarginEnsemble().title
    assert build.make_final_attack(config).title == title
    rates = learning_rates(config, 0.1)
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    assert rates[20] == pytest.approx(0.05, rel=0.1) and rates[-1] < 0.001


def test_the_learning_rate_falls_when_epsilon_has_risen():
    config = runs.Config()
    scheduler = build.make_scheduler(config, "scheduled")
    assert config.decay_start == scheduler.schedule.ramp_end
    rates = learning_rates(config, 0.1)
    assert rates[4:29] == pytest.approx([0.1] * 25) and rates[-1] < 0.01


def test_a_run_from_before_the_default_changed_keeps_its_learning_rate():
    earlier, given = (
        learning_rates(runs.Config(warmup=0.1, decay_start=share), 0.1)
        for share in (None, 0.1)
    )
    assert earlier == pytest.approx(given, abs=1e-7)


def test_a_learning_rate_that_falls_only_in_the_second_half():
    config = runs.Config(decay_start=0.5, warmup=0.1)
    rates = learning_rates(config, 0.1)
    assert rates[2] == pytest.approx(0.05)
    assert rates[4:21] == pytest.approx([0.1] * 17)
    assert rates[30] == pytest.approx(0.05) and rates[-1] < 0.001
    with pytest.raises(runs.ConfigError, match="must not be below `warmup`"):
        checks.check(config.replace(decay_start=0.05))


@pytest.mark.slow
def test_pretrain_makes_a_preset_that_loads(tmp_path):
    output = tmp_path / "preset"
    _run("pretrain.py", f"--output={output}", "--epochs=1")
    assert ke.models.classifier(str(output), 10).output_shape == (None, 10)
