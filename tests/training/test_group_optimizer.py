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


@pytest.mark.parametrize("accumulated", [None, 2, 3])
@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_schedules_and_accumulation_over_many_steps(kind, accumulated):
    def make(rate):
        halving = keras.optimizers.schedules.ExponentialDecay(rate, 1, 0.5)
        return getattr(keras.optimizers, kind)(
            halving, weight_decay=0.3, gradient_accumulation_steps=accumulated
        )

    found, alone = variables(), variables()
    together = GroupOptimizer(make(0.01), groups(found))
    parts = (slice(0, 2), make(0.01)), (slice(2, 4), make(0.1))
    for _, optimizer in parts:
        optimizer.exclude_from_weight_decay(var_names=["b", "d"])
    for step in range(7):
        grads = [
            keras.ops.convert_to_tensor(g, "float32") for g in gradients(step)
        ]
        before = [np.asarray(each) for each in found]
        together.apply(grads, found)
        for part, optimizer in parts:
            optimizer.apply(grads[part], alone[part])
        for old, one, other in zip(before, found, alone, strict=True):
            # What a step does, not where many of them lead.
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
            stands = accumulated and (step + 1) % accumulated
            assert np.array_equal(old, one) == bool(stands)


def test_clipping_is_over_all_groups():
    found = variables()
    before = [np.asarray(each) for each in found]
    ones = [keras.ops.ones(each.shape) for each in found]
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
        optimizer.apply([keras.ops.ones(each.shape) for each in found], found)
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


def test_paths_that_change_in_a_file(tmp_path):
    # As of layers inside a layer that Keras names anew when it loads.
    model = conv_net(batchnorm=False)
    made = GroupOptimizer(
        keras.optimizers.AdamW(1e-3), ke.models.parameter_groups(model)
    )
    made.build(model.trainable_variables)
    loaded = GroupOptimizer.from_config(made.get_config())
    others = [
        keras.Variable(each, name=each.name)
        for each in model.trainable_variables
    ]
    assert others[0].path != model.trainable_variables[0].path
    loaded.build(others)
    assert [*loaded._group_of.values()] == [1, 1, 0, 0]
    # And again, from the file of what was loaded.
    again = GroupOptimizer.from_config(loaded.get_config())
    again.build(model.trainable_variables)
    assert [*again._group_of.values()] == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="are in no group"):
        GroupOptimizer.from_config(made.get_config()).build(others[::-1])


def test_biases_of_attention_do_not_decay():
    layer = keras.layers.MultiHeadAttention(2, 4)
    layer.build((None, 3, 8), (None, 3, 8))
    found = layer.trainable_variables
    assert max(len(v.shape) for v in found if v.name == "bias") == 2
    before = [np.asarray(each) + 1.0 for each in found]
    for each, value in zip(found, before, strict=True):
        each.assign(value)
    group = {
        "variables": [each.path for each in found],
        "multiplier": 1.0,
        "weight_decay": None,
    }
    optimizer = GroupOptimizer(
        keras.optimizers.SGD(0.1, weight_decay=0.5), [group]
    )
    optimizer.apply([0.0 * each for each in found], found)
    for old, new in zip(before, found, strict=True):
        factor = 1.0 if new.name == "bias" else 1 - 0.1 * 0.5
        np.testing.assert_allclose(new, factor * old, rtol=1e-6)


def test_one_multiple_is_the_optimizer_itself():
    weights = []
    for grouped in (False, True):
        # A bias in front of BatchNorm would follow rounding errors.
        model = conv_net(batchnorm=False)
        optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
        if grouped:
            optimizer = GroupOptimizer(
                optimizer, ke.models.parameter_groups(model)
            )
        else:
            optimizer.exclude_from_weight_decay(
                var_names=["bias", "gamma", "beta"]
            )
        trainer = make_trainer(model, {"optimizer": optimizer})
        trainer.fit(*make_data(), epochs=2, callbacks=drive(), verbose=0)
        weights.append(trainer.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_half_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = conv_net()
    optimizer = GroupOptimizer(
        keras.optimizers.AdamW(1e-3), ke.models.parameter_groups(model)
    )
    trainer = make_trainer(model, {"optimizer": optimizer})
    trainer.fit(*make_data(), callbacks=drive(), verbose=0)
    assert trainer.optimizer.inner_optimizer is optimizer
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert int(loaded.optimizer.inner_optimizer.iterations) == 1


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
