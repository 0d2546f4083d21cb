"""What is compiled once for a classifier, and when it is compiled again."""

import functools
import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops
from networks import (
    CLASSES,
    SHAPE,
    TRACES,
    conv_net,
    logits_of,
    make_data,
    trained_net,
)

import keras_epsched as ke
from keras_epsched import backend
from keras_epsched.attacks import APGD, FGSM, PGD, AutoAttack, Square
from keras_epsched.evaluation import attack_runner, forget_compiled, inspector
from keras_epsched.evaluation.attack_runner import AttackRunner
from keras_epsched.identity import identify

GRID = np.linspace(0, 16 / 255, 4)
DATA = make_data(30, seed=4)


def evaluate(model, attack=None, **kwargs):
    arguments = {
        "dataset": DATA,
        "epsilons": GRID,
        "batch_size": 8,
        "self_check": False,
        "verbose": 0,
        **kwargs,
    }
    return ke.evaluate(model, attack=attack or PGD(2), **arguments)


def same(first, second):
    return first.examples == second.examples and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("correct", "broken_by", "predictions")
    )


@functools.cache
def trained_weights():
    return trained_net().get_weights()


@pytest.fixture(scope="module", autouse=True)
def trained_before():
    """Training compiles something, too, which no test here counts."""
    trained_weights()


def net():
    """A network that is new, and withstands a little."""
    model = conv_net(batchnorm=False)
    model.set_weights(trained_weights())
    return model


OTHERS = {
    "nothing": {},
    "an equal attack": {"attack": PGD(steps=2)},
    "seed": {"seed": -5},
    "grid": {"epsilons": [3 / 255, 30 / 255], "target_epsilon": 3 / 255},
    "dataset": {"dataset": make_data(13, seed=9)},
    "protocol": {"protocol": "independent"},
    "bisection": {"bisect": True},
    "shard": {"shard": (1, 2), "image_ids": np.arange(30) + 100},
}


def test_another_call_compiles_nothing(counter):
    model = net()
    evaluate(model)
    # The attack, and the predictions.
    assert counter.made == 2
    assert counter.traced == 2 * TRACES
    counter.clear()
    for kwargs in OTHERS.values():
        evaluate(model, **kwargs)
    assert counter.nothing


@pytest.mark.parametrize(
    "changed",
    [
        "seed",
        "grid",
        *(
            pytest.param(changed, marks=pytest.mark.ci)
            for changed in OTHERS
            if changed not in ("seed", "grid")
        ),
    ],
)
def test_a_later_call_finds_what_a_first_one_finds(changed):
    model = net()
    evaluate(model)
    later = evaluate(model, **OTHERS[changed])
    assert same(later, evaluate(net(), **OTHERS[changed]))


@pytest.mark.ci
def test_self_checks_of_another_call_compile_nothing(counter, monkeypatch):
    monkeypatch.setattr(inspector, "_BUDGET", 50.0)
    model = net()
    first = evaluate(model, self_check=True)
    # The sample is attacked too, by APGD.
    assert counter.made > 2
    counter.clear()
    assert evaluate(model, self_check=True).checks == first.checks
    assert counter.nothing
    # They share what the attack itself has compiled.
    evaluate(model, APGD(10))
    assert counter.nothing


def test_new_weights_give_new_results_from_what_was_compiled(counter):
    model = net()
    before = evaluate(model)
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.normal(0, 0.1, w.shape) for w in model.get_weights()]
    )
    counter.clear()
    after = evaluate(model)
    assert counter.nothing
    assert not same(before, after)
    forget_compiled(model)
    assert same(after, evaluate(model))
    assert counter.made == 2


def test_keras_own_loops_between_calls_change_nothing(counter):
    model = net()
    evaluate(model)
    counter.clear()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    model.fit(*DATA, verbose=0)
    model.evaluate(*DATA, verbose=0)
    model.predict(DATA[0], verbose=0)
    report = evaluate(model)
    assert counter.nothing
    clean = logits_of(model, DATA[0]).argmax(-1)
    np.testing.assert_array_equal(report.predictions, clean)


def enable_lora(model):
    model.layers[-1].enable_lora(2)


def change_dtype(model):
    model.layers[2].dtype_policy = "mixed_bfloat16"


def change_activation(model):
    model.layers[-1].activation = keras.activations.tanh


def change_scale(model):
    model.layers[1].scale = 1 / 64


@pytest.mark.parametrize(
    "change",
    [
        enable_lora,
        change_scale,
        pytest.param(change_dtype, marks=pytest.mark.ci),
        pytest.param(change_activation, marks=pytest.mark.ci),
    ],
)
def test_another_network_is_compiled_again(counter, change):
    model = net()
    evaluate(model)
    change(model)
    counter.clear()
    after = evaluate(model)
    assert counter.made == 2
    forget_compiled(model)
    assert same(after, evaluate(model))


class Scaled(keras.Model):
    """A subclass whose call reads attributes."""

    def __init__(self):
        super().__init__()
        self.net = net()
        self.factor = self._hidden = 1.0
        self.built = True

    def call(self, images):
        return self.factor * self._hidden * self.net(images)


def test_public_attributes_are_seen_and_hidden_ones_forgotten():
    model = Scaled()
    right = evaluate(model).accuracy[0]
    # The smallest logit becomes the largest.
    model.factor = -1.0
    turned = evaluate(model).accuracy[0]
    assert turned != right
    model._hidden = -1.0
    if TRACES:
        assert evaluate(model).accuracy[0] == turned
    forget_compiled(model)
    assert evaluate(model).accuracy[0] == right


def test_statistics_of_a_normalisation_are_seen():
    # Computed from its variables when they change, not when it is called.
    normalisation = keras.layers.Normalization(axis=None)
    normalisation.adapt(np.array([-1.0, 1.0]))
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, net()(normalisation(inputs)))
    before = evaluate(model)
    normalisation.adapt(np.array([-3.0, 1.0]))
    after = evaluate(model)
    assert not same(before, after)
    forget_compiled(model)
    assert same(after, evaluate(model))


@pytest.mark.parametrize(
    "kwargs",
    [
        pytest.param({"attack": PGD(3)}, marks=pytest.mark.ci),
        {"value_range": (-1, 255)},
        {"dataset": (DATA[0][:, :6], DATA[1])},
        pytest.param(
            {"jit_compile": True},
            marks=[
                pytest.mark.ci,
                pytest.mark.skipif(
                    keras.backend.backend() != "tensorflow",
                    reason="JAX has one compiler, that of torch takes minutes",
                ),
            ],
        ),
    ],
    ids=["attack", "range", "size", "compiler"],
)
def test_another_computation_is_compiled(counter, kwargs):
    # Of images of any size, with its boundary in the midst of them.
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    x = keras.layers.BatchNormalization(momentum=0.0)(x)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
    model(DATA[0], training=True)
    evaluate(model)
    counter.clear()
    later = evaluate(model, **kwargs)
    assert counter.made
    counter.clear()
    evaluate(model)
    assert counter.nothing
    forget_compiled(model)
    assert same(later, evaluate(model, **kwargs))


def test_other_batches_are_compiled_where_shapes_are_fixed(counter):
    model = net()
    evaluate(model)
    counter.clear()
    evaluate(model, batch_size=5)
    fixed = backend.resolve_jit_compile("auto")
    assert bool(counter.made) == fixed


def losses():
    """Two functions of one name, as of a cell that was run twice."""

    def loss(labels, logits):
        return ke.attacks.losses.margin(labels, logits)

    first = loss

    def loss(labels, logits):
        return -ke.attacks.losses.margin(labels, logits)

    return first, loss


def test_functions_of_one_name_are_two():
    good, bad = (FGSM(loss=loss) for loss in losses())
    model = net()
    weak, strong = (evaluate(model, attack) for attack in (bad, good))
    assert strong.accuracy[-1] < weak.accuracy[-1]
    assert same(strong, evaluate(net(), good))


def test_an_attack_that_is_changed_is_another():
    model, attack = net(), PGD(1, step_ratio=0.5)
    evaluate(model, attack)
    attack.steps = 5
    assert same(
        evaluate(model, attack), evaluate(net(), PGD(5, step_ratio=0.5))
    )
    again = evaluate(model, PGD(1, step_ratio=0.5))
    assert same(again, evaluate(net(), PGD(1, step_ratio=0.5)))


def test_a_classifier_that_goes_takes_all_with_it():
    model = net()
    evaluate(model, self_check=True)
    assert model in attack_runner._kept
    kept = len(attack_runner._kept)
    gone = [weakref.ref(each) for each in (model, *model.variables)]
    assert len(gone) > 3
    del model
    gc.collect()
    assert len(attack_runner._kept) < kept
    assert [each() for each in gone] == [None] * len(gone)


@pytest.mark.ci
def test_what_was_compiled_last_is_kept(counter, monkeypatch):
    monkeypatch.setattr(attack_runner, "_MOST_KEPT", 3)
    model = net()
    for steps in range(1, 5):
        evaluate(model, PGD(steps))
    counter.clear()
    evaluate(model, PGD(4))
    evaluate(model, PGD(3))
    assert counter.nothing
    evaluate(model, PGD(1))
    assert counter.made == 1


def test_a_runner_by_itself():
    model = net()
    runner = AttackRunner(model, batch_size=8)
    np.testing.assert_allclose(
        runner.predict(DATA[0]), logits_of(model, DATA[0]), rtol=1e-4, atol=1e-5
    )
    images, labels = (each[:5] for each in DATA)
    epsilons = np.full(5, 4 / 255)
    draws = 3, np.arange(5)
    found = runner.search(PGD(3), images, labels, epsilons, draws)
    expected = PGD(3).search(
        lambda x: model(x, training=False),
        ops.convert_to_tensor(images),
        ops.convert_to_tensor(labels),
        ops.convert_to_tensor(epsilons, "float32"),
        ke.attacks.noise.make_key(*draws),
    )
    np.testing.assert_allclose(
        found.adversarial, ops.convert_to_numpy(expected.adversarial), atol=1e-3
    )
    # The random start follows from the draws.
    other = runner.search(PGD(3), images, labels, epsilons, (4, np.arange(5)))
    assert np.abs(other.adversarial - found.adversarial).max() > 0.1


def test_equal_is_what_holds_the_same():
    attacks = [
        PGD(2),
        PGD(3),
        PGD(2, "l2"),
        APGD(2),
        Square(8),
        AutoAttack("standard"),
        AutoAttack("plus"),
    ]
    for first in attacks:
        twin = type(first).from_config(first.get_config())
        assert identify(first) == identify(twin)
        assert hash(identify(first)) == hash(identify(twin))
    assert len({identify(each) for each in attacks}) == len(attacks)
    assert identify([1, {"a": 2.0}]) == identify((1, {"a": 2.0}))
    assert identify(1) != identify(True) != identify(1.0)
    first, second = np.zeros(3), np.zeros(3)
    assert identify(first) == identify(first) != identify(second)
    # One that is gone equals nothing, whoever has its address now.
    reference = identify(first)
    del first
    assert reference != identify(np.zeros(3)) and reference != reference
    assert identify(np.float32(2)) == identify(np.float32(2))
