"""Recipes: defaults of flags, which the command line overrides."""

import json
import pathlib
import subprocess
import sys

import pytest
from absl import flags

_LAUNCH = pathlib.Path(__file__).resolve().parents[1] / "launch"


@pytest.fixture
def recipes(monkeypatch):
    monkeypatch.syspath_prepend(str(_LAUNCH))
    import recipes

    yield recipes
    del sys.modules["recipes"]


def parsed(*arguments):
    values = flags.FlagValues()
    flags.DEFINE_integer("epochs", 20, "", flag_values=values)
    flags.DEFINE_float("ramp_start", 0.25, "", flag_values=values)
    flags.DEFINE_list("augment", [], "", flag_values=values)
    flags.DEFINE_integer("batch_size", 32, "", flag_values=values)
    values(["program", *arguments])
    return values


def test_a_recipe_sets_defaults_only(recipes):
    values = parsed("--batch_size=8")
    recipe = recipes.apply("epsilon_scheduling_2026", values)
    assert values.epochs == 50
    # The hinges of the paper: epochs 12 and 37 of 50.
    assert values.ramp_start * 50 == pytest.approx(12)
    assert values.augment == ["flip", "color", "rotation"]
    assert values.batch_size == 8
    # Those that this launcher does not have are left out.
    known = {"epochs", "ramp_start", "augment", "batch_size"}
    assert set(recipe.flags) == known
    text = str(recipe)
    assert "2509.23325" in text
    assert "not stated" in text and "as in the source" in text


def test_every_choice_has_a_reason(recipes):
    for recipe in recipes.RECIPES.values():
        assert set(recipe.choices) <= set(recipe.flags)
        assert all(recipe.choices.values())
    with pytest.raises(ValueError, match="no value"):
        recipes.Recipe("source", {"epochs": 1}, {"warmup": "why"})


# Prints, for each recipe, the flags that the launcher lacks; or fails.
_FIT = """
import json, sys
from absl import flags
from absl.testing import flagsaver
import common, recipes
import {launcher}
from keras_epsched.datasets import pipeline

flags.FLAGS(["program"])
unknown = {{}}
for name, recipe in recipes.RECIPES.items():
    with flagsaver.flagsaver():
        applied = recipes.apply(name, flags.FLAGS)
        common.check_flags()
        pipeline.checked_augmentations(flags.FLAGS.augment)
        for key, value in applied.flags.items():
            assert flags.FLAGS[key].value == value, (name, key, value)
        unknown[name] = sorted(set(recipe.flags) - set(applied.flags))
print(json.dumps(unknown))
"""


@pytest.mark.ci
@pytest.mark.parametrize(
    ("launcher", "may_lack"),
    # compare.py has schedules of its own, and a list of rates.
    [("finetune", set()), ("compare", {"schedule", "learning_rate"})],
)
def test_recipes_fit_the_flags_of_launchers(recipes, launcher, may_lack):
    done = subprocess.run(
        [sys.executable, "-c", _FIT.format(launcher=launcher)],
        cwd=_LAUNCH,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = json.loads(done.stdout.splitlines()[-1])
    assert set(unknown) == set(recipes.RECIPES)
    assert {key for keys in unknown.values() for key in keys} <= may_lack


def test_the_rate_of_a_recipe_is_the_one_that_is_compared(recipes, tmp_path):
    def compared(*arguments):
        values = flags.FlagValues()
        flags.DEFINE_list("learning_rates", ["3e-3"], "", flag_values=values)
        values(["program", *arguments])
        return values

    values = compared()
    recipe = recipes.apply("epsilon_scheduling_2026", values)
    assert [float(rate) for rate in values.learning_rates] == [1.22e-4]
    assert "searched for each task" in str(recipe)
    values = compared("--learning_rates=1e-3,1e-2")
    recipes.apply("epsilon_scheduling_2026", values)
    assert values.learning_rates == ["1e-3", "1e-2"]
    # One without a rate leaves the launcher its own.
    values = compared()
    recipes.apply("fast_fgsm", values)
    assert values.learning_rates == ["3e-3"]


def test_recipes_from_files(recipes, tmp_path):
    path = tmp_path / "best.json"
    path.write_text(json.dumps({"source": "a search", "flags": {"epochs": 3}}))
    values = parsed()
    recipes.apply(str(path), values)
    assert values.epochs == 3
    path.write_text(json.dumps({"flags": {"epochs": "many"}, "source": "x"}))
    with pytest.raises(ValueError, match="--epochs cannot be 'many'"):
        recipes.apply(str(path), parsed())
    for text in ("[1]", "no json", '{"flag": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no recipe"):
            recipes.get(str(path))
    with pytest.raises(ValueError, match="neither a recipe"):
        recipes.get("no_such_recipe")
