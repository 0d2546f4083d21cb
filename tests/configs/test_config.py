"""Configs: their values, roles, texts and checks."""

import dataclasses
import pathlib
import pickle

import pytest

from keras_epsched.configs.config import as_comparison
from keras_epsched.configs.values import Card, Group, Role, entries
from keras_epsched.runs import (
    Comparison,
    Config,
    ConfigError,
    Evaluation,
    build,
    checks,
)


def test_values_may_be_texts():
    config = Config(
        epsilon="4/255",
        epochs="3",
        augment="flip, color",
        freeze_batchnorm="true",
        bisect="False",
        dataset=pathlib.Path("folder"),
        backbone_config={"alpha": 0.75},
    )
    assert config.epsilon == 4 / 255 and config.epochs == 3
    assert config.augment == ("flip", "color")
    assert config.freeze_batchnorm is True and config.bisect is False
    assert config.dataset == "folder"
    assert config.backbone_config == '{"alpha": 0.75}'
    assert Config(augment="").augment == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1. Received: epochs=0"),
        ({"epochs": 1.5}, "a whole number"),
        ({"epochs": True}, "a whole number"),
        ({"epsilon": "eight"}, "a number or a fraction"),
        ({"epsilon": "4/0"}, "a number or a fraction"),
        ({"epsilon": True}, "a number"),
        ({"ema": float("nan")}, "at least 0"),
        ({"norm": "l3"}, "one of linf, l2, l1"),
        ({"download": "maybe"}, "true or false"),
        ({"augment": 3}, "a list"),
        ({"augment": [1]}, "a text"),
        ({"augment": '"flip'}, "augment"),
        ({"dataset": None}, "a text"),
        ({"schedule": "slow"}, "expected one of standard"),
        ({"schedule": "30/50:12/50"}, "the first not larger"),
        ({"schedule": "0.1:0;x"}, "Expected pairs"),
        ({"monitors": "transfer,all"}, "catastrophic_overfitting"),
        ({"protocols": "nested,nested"}, "different ones of nested"),
        ({"epoch": 3}, "Config has no value 'epoch'. Did you mean epochs?"),
    ],
)
def test_what_is_no_value_is_told(values, message):
    with pytest.raises(ConfigError, match=".*".join(message.split("|"))) as e:
        Config(**values)
    assert next(iter(values)) in str(e.value)


def test_a_config_is_plain_frozen_and_pickles():
    config = Config(epsilon=0.1, augment=["flip"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epsilon = 0.2
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config and copy.given == config.given
    assert hash(copy) == hash(config)
    assert eval(repr(config)) == config
    assert config != config.replace(epochs=3)
    for value in config.as_dict().values():
        assert isinstance(value, (str, int, float, bool, list, type(None)))


def test_a_replacement_decides_the_rest_again():
    config = Config(recipe="fast_fgsm", batch_size=8)
    other = config.replace(recipe="trades_10")
    assert other.objective == "trades" and other.batch_size == 8
    assert other.given == {"recipe", "batch_size"}


def test_every_value_has_a_role_and_a_help():
    for kind in (Config, Comparison, Evaluation):
        for name, entry in entries(kind).items():
            assert isinstance(entry.about.role, Role), name
            assert isinstance(entry.about.group, Group), name
            assert entry.about.help.endswith((".", ".)")), name
            # A default is a value.
            assert entry.parse(entry.default) == entry.default, name
    always = {
        name
        for name, entry in entries(Config).items()
        if entry.about.on_card is Card.ALWAYS
    }
    assert {"dataset", "epsilon", "schedule", "learning_rate"} <= always
    place = {
        name
        for name, entry in entries(Config).items()
        if entry.about.role is Role.PLACE
    }
    assert place == {"output", "resume", "download", "backup_minutes"}


def test_one_or_several():
    assert Comparison(learning_rates=1e-3).learning_rates == (1e-3,)
    assert Comparison(schedules="fixed").schedules == ("fixed",)
    with pytest.raises(ConfigError, match="launch/compare.py"):
        Config(schedule="fixed,scheduled")
    # A launcher's flag has one name, whatever the number.
    flags = {name: each.flag for name, each in entries(Comparison).items()}
    assert flags["learning_rates"] == "learning_rate"
    assert flags["schedules"] == "schedule" and flags["epochs"] == "epochs"


def test_a_fine_tuning_becomes_a_comparison():
    config = Config(epsilon=0.2, epochs=3, learning_rate=1e-3)
    compared = as_comparison(config)
    assert compared.epsilon == 0.2 and compared.epochs == 3
    assert compared.learning_rates == (1e-3,)
    schedules = ("standard", "fixed", "scheduled", "peak")
    assert compared.schedules == schedules
    assert as_comparison(compared) is compared
    # The rate of the default setting stays that of the comparison.
    assert as_comparison(Config()) == Comparison()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilon": 8}, "8/255"),
        ({"epsilon": 0}, "above 0"),
        ({"dataset": "cifar10"}, "meant for digits"),
        ({"norm": "l2"}, "num"),
        ({"schedule": "auto", "update_freq": "batch"}, "once an epoch"),
        ({"schedule": "peak", "epsilon": 0.9}, "rises to 1.125, above"),
        (
            {"schedule": "peak", "epsilon": "4/255", "ramp_end": 0.5},
            "`ramp_end` does not move schedule=peak.*0.6:5/255;0.8:5/255",
        ),
        ({"objective": "mixed", "beta": 2}, "`beta`"),
        ({"probe": "adversarial"}, "`probe_epochs`"),
        ({"awp": 0.01, "ema": 0.9}, "not available"),
        ({"eval_steps": 20}, "a budget of its own"),
        ({"protocols": ("paper",), "bisect": True}, "the protocol nested"),
        (
            {
                "protocols": ("paper",),
                "eval_attack": "apgd",
                "eval_steps": 20,
            },
            "10 steps",
        ),
        (
            {"protocols": ("paper",), "eval_attack": "margin_ensemble"},
            "10 steps",
        ),
        (
            {
                "monitors": ("robust_overfitting",),
                "monitor_action": "stop",
                "ema": 0.9,
            },
            "ema",
        ),
        ({"schedule": "0.1:0;0.9:0.2"}, "at the target epsilon 0.3"),
    ],
)
def test_values_that_do_not_go_together_are_told(values, message):
    config = Config(**values)
    with pytest.raises(ValueError, match=message):
        checks.check(config)


def test_the_default_target_is_for_digits():
    checks.check(Config(dataset="letters"))
    # Who says so means it.
    checks.check(Config(dataset="cifar10", epsilon=0.3))
    checks.check(Config(dataset="cifar10", recipe="trades_10"))


@pytest.mark.parametrize(
    "schedule",
    [
        *("standard", "fixed", "scheduled", "random", "auto", "paced"),
        *("cosine", "smooth", "warmup", "step", "peak", "1/3:2/3"),
        "0.1:0;0.4:0.1;0.8:0.3",
    ],
)
@pytest.mark.filterwarnings("ignore:epsilon jumps")
def test_all_schedules_have_a_name(schedule):
    checks.check(Config(schedule=schedule))


@pytest.mark.parametrize("name", ["fgsm", "nfgsm", "pgd", "apgd"])
def test_the_attack_of_a_training_has_its_loss(name):
    config = Config(train_attack=name, train_steps=3, norm="l2")
    attack = build.make_training_attack(config)
    assert (attack.loss, attack.norm) == ("ce", "l2")
    config = config.replace(train_attack_loss="probability_margin")
    other = build.make_training_attack(config)
    assert type(other) is type(attack) and other.loss == "probability_margin"
    one_step = name in ("fgsm", "nfgsm")
    assert attack.steps == other.steps == (1 if one_step else 3)
