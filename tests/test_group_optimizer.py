"""Rates and weight decay by group, against separate optimizers."""

import keras
import numpy as np
import pytest
from networks import conv_net, drive, make_data, make_trainer

import keras_epsched as ke
from keras_epsched.training import GroupOptimizer


def variables(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 2), "b": (2,), "c": (2, 4), "d": (4,)}
    return [
        keras.Variable(rng.normal(size=shape), dtype="float32", name=name)
        for name, shape in shapes.items()
    ]


def groups(found, second=None):
    a, b, c, d = (each.path for each in found)
    return [
        {"variables": [a, b], "multiplier": 1.0, "weight_decay": None},
        {
            "variables": [c, d],
            "multiplier": 10.0,
            "weight_decay": None,
            **(second or {}),
        },
    ]


def gradients(step):
    rng = np.random.default_rng(100 + step)
    return [rng.normal(size=each.shape) for each in variables()]


def descend(optimizer, found, steps=4):
    for step in range(steps):
        grads = [
            keras.ops.convert_to_tensor(g, "float32") for g in gradients(step)
        ]
        optimizer.apply(grads, found)
    return [np.asarray(each) for each in found]


OPTIMIZERS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "adam": keras.optimizers.Adam,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "adafactor": keras.optimizers.Adafactor,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_group_is_as_if_alone(name):
    make, found = OPTIMIZERS[name], variables()
    together = descend(GroupOptimizer(make(0.01), groups(found)), found)
    for part, rate in ((slice(0, 2), 0.01), (slice(2, 4), 0.1)):
        alone, optimizer = variables(), make(rate)
        for step in range(4):
            grads = [
                keras.ops.convert_to_tensor(g, "float32")
                for g in gradients(step)
            ]
            optimizer.apply(grads[part], alone[part])
        for one, other in zip(together[part], alone[part], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_weight_decay_leaves_biases_alone():
    found = variables()
    before = [np.asarray(each) for each in found]
    optimizer = GroupOptimizer(
        keras.optimizers.SGD(0.1, weight_decay=0.5),
        groups(found, {"weight_decay": 0.2}),
    )
    optimizer.apply([0.0 * each for each in found], found)
    factors = (1 - 0.1 * 0.5, 1.0, 1 - 0.1 * 10 * 0.2, 1.0)
    for old, new, factor in zip(before, found, factors, strict=True):
        np.testing.assert_allclose(new, factor * old, rtol=1e-6)


def test_schedules_clipping_and_accumulation_are_shared():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0])
    found = variables()
    before = [np.asarray(each) for each in found]
    optimizer = GroupOptimizer(
        keras.optimizers.SGD(
            schedule, global_clipnorm=1.0, gradient_accumulation_steps=2
        ),
        groups(found),
    )
    ones = [keras.ops.ones_like(each) for each in found]
    optimizer.apply(ones, found)
    for old, new in zip(before, found, strict=True):
        np.testing.assert_array_equal(old, new)
    optimizer = GroupOptimizer(
        keras.optimizers.SGD(0.1, global_clipnorm=1.0), groups(found)
    )
    optimizer.apply(ones, found)
    # 20 entries of 1 have the norm sqrt(20).
    size = 0.1 / np.sqrt(20)
    for old, new, factor in zip(before, found, (1, 1, 10, 10), strict=True):
        np.testing.assert_allclose(old - new, factor * size, rtol=1e-4)
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == 0.5


def test_moving_averages():
    found = variables()
    optimizer = GroupOptimizer(
        keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), groups(found)
    )
    for _ in range(2):
        optimizer.apply([keras.ops.ones_like(each) for each in found], found)
    for average, each in zip(
        optimizer._model_variables_moving_average, found, strict=True
    ):
        assert not np.array_equal(average, each)
    optimizer.finalize_variable_values(found)
    for average, each in zip(
        optimizer._model_variables_moving_average, found, strict=True
    ):
        np.testing.assert_array_equal(average, each)


def test_fit_save_and_go_on(tmp_path):
    model = conv_net()
    optimizer = GroupOptimizer(
        keras.optimizers.AdamW(1e-3),
        ke.models.parameter_groups(model, head_multiplier=5.0, layer_decay=0.5),
    )
    trainer = make_trainer(model, {"optimizer": optimizer})
    data = make_data()
    trainer.fit(*data, epochs=2, callbacks=drive(), verbose=0, shuffle=False)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert isinstance(loaded.optimizer, GroupOptimizer)
    assert int(loaded.optimizer.iterations) == int(optimizer.iterations) == 2
    for each in (trainer, loaded):
        each.fit(*data, verbose=0, callbacks=drive(), shuffle=False)
    for one, other in zip(
        trainer.get_weights(), loaded.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_groups_must_fit():
    found = variables()
    twice = groups(found)
    twice[1]["variables"] = twice[0]["variables"]
    with pytest.raises(ValueError, match="is in two groups"):
        GroupOptimizer(keras.optimizers.SGD(), twice)
    with pytest.raises(ValueError, match="2 trained variables are in no group"):
        GroupOptimizer(keras.optimizers.SGD(), groups(found)[:1]).build(found)
    excluding = keras.optimizers.AdamW()
    excluding.exclude_from_weight_decay(var_names=["pos"])
    with pytest.raises(ValueError, match="would be lost"):
        GroupOptimizer(excluding, groups(found))
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match="pass the optimizer itself"):
        GroupOptimizer(scaled, groups(found))
    with pytest.raises(ValueError, match="must be a `keras.optimizers"):
        GroupOptimizer("sgd", groups(found))
