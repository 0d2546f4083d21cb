"""Recipes: what a config takes that it was not given."""

import json

import pytest

from keras_epsched.configs import recipes
from keras_epsched.configs.values import entries
from keras_epsched.datasets import pipeline
from keras_epsched.runs import Comparison, Config, ConfigError, checks


def test_a_recipe_sets_what_was_not_given():
    config = Config(recipe="epsilon_scheduling_2026", batch_size=8)
    assert config.epochs == 50
    # The hinges of the paper: epochs 12 and 37 of 50.
    assert config.ramp_start * 50 == pytest.approx(12)
    assert config.augment == ("flip", "color", "rotation")
    assert config.batch_size == 8
    assert config.given == {"recipe", "batch_size"}
    text = str(recipes.for_config("epsilon_scheduling_2026", Config))
    assert "2509.23325" in text
    assert "not stated" in text and "as in the source" in text


def test_every_choice_has_a_reason():
    for recipe in recipes.RECIPES.values():
        assert set(recipe.choices) <= set(recipe.flags)
        assert all(recipe.choices.values())
    with pytest.raises(ValueError, match="no value"):
        recipes.Recipe("source", {"epochs": 1}, {"warmup": "why"})


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize(
    ("kind", "may_lack"),
    # A comparison has schedules of its own, and a list of rates.
    [(Config, set()), (Comparison, {"schedule", "learning_rate"})],
)
def test_recipes_fit_the_configs(name, kind, may_lack):
    config = kind(recipe=name)
    checks.check(config)
    pipeline.checked_augmentations(config.augment)
    recipe = recipes.get(name)
    assert set(recipe.flags) - set(entries(kind)) <= may_lack
    for key in recipe.flags.keys() & entries(kind).keys():
        value = recipe.flags[key]
        value = tuple(value) if isinstance(value, list) else value
        assert getattr(config, key) == value, key


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_lets_the_rate_fall_from_any_warmup_on(name):
    checks.check(Config(recipe=name, warmup=0.5))


def test_the_rate_of_a_recipe_is_the_one_that_is_compared():
    config = Comparison(recipe="epsilon_scheduling_2026")
    assert config.learning_rates == (1.22e-4,)
    text = str(recipes.for_config("epsilon_scheduling_2026", Comparison))
    assert "searched for each task" in text
    config = Comparison(
        recipe="epsilon_scheduling_2026", learning_rates="1e-3,1e-2"
    )
    assert config.learning_rates == (1e-3, 1e-2)
    # One without a rate leaves the comparison its own.
    assert Comparison(recipe="fast_fgsm").learning_rates == (3e-3,)


def test_recipes_from_files(tmp_path):
    path = tmp_path / "best.json"
    path.write_text(json.dumps({"source": "a search", "flags": {"epochs": 3}}))
    assert Config(recipe=str(path)).epochs == 3
    path.write_text(json.dumps({"flags": {"epochs": "many"}, "source": "x"}))
    with pytest.raises(ConfigError, match="best.json: `epochs` must be"):
        Config(recipe=str(path))
    for text in ("[1]", "no json", '{"flag": 1}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is no recipe"):
            Config(recipe=str(path))
    with pytest.raises(ConfigError, match="neither a recipe"):
        Config(recipe="no_such_recipe")
