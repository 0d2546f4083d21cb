"""A learning rate that stays at its peak, at steps with a known value."""

import keras
import pytest

from keras_epsched.training import HeldCosineDecay


def rates(schedule, *steps):
    return [float(schedule(step)) for step in steps]


def test_it_rises_stays_and_falls():
    schedule = HeldCosineDecay(2.0, 100, 10, decay_start=60)
    found = rates(schedule, 0, 5, 10, 60, 80, 100, 120)
    assert found == pytest.approx([0.0, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0], abs=1e-6)


def test_without_a_warmup_it_begins_at_the_peak():
    assert rates(
        HeldCosineDecay(2.0, 10, decay_start=0), 0, 5
    ) == pytest.approx([2.0, 1.0])


def test_it_may_never_fall():
    assert rates(HeldCosineDecay(2.0, 10, decay_start=10), 0, 9) == [2.0, 2.0]


def test_it_is_stored_with_its_optimizer():
    schedule = HeldCosineDecay(2.0, 100, 10, decay_start=60)
    config = keras.optimizers.serialize(keras.optimizers.SGD(schedule))
    loaded = keras.optimizers.deserialize(config)
    step = 70
    assert float(loaded._learning_rate(step)) == float(schedule(step))


@pytest.mark.parametrize("values", [(100, 10, 5), (100, 0, 101), (100, -1, 50)])
def test_steps_that_are_not_in_order(values):
    steps, warmup, start = values
    with pytest.raises(ValueError, match="Received: warmup_steps="):
        HeldCosineDecay(1.0, steps, warmup, decay_start=start)
