"""Schedules against their formulas, at the hinges and in every number type."""

import math
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_epsched import backend, schedules

TARGET = 4 / 255
RAMPS = {
    "two_hinge": schedules.TwoHinge(TARGET),
    "two_hinge_full": schedules.TwoHinge(TARGET, 0.0, 1.0),
    "two_hinge_rounding": schedules.TwoHinge(TARGET, 0.1, 0.7),
    "warmup": schedules.LinearWarmup(TARGET),
    "warmup_full": schedules.LinearWarmup(TARGET, ramp_end=1.0),
    "cosine": schedules.CosineRamp(TARGET),
    "smooth": schedules.SmoothRamp(TARGET),
    "smooth_other": schedules.SmoothRamp(TARGET, 0.1, 0.7, 3.0, 0.5),
    "piecewise": schedules.PiecewiseLinear(
        [(0.1, 0.0), (0.4, 1 / 255), (0.8, TARGET)]
    ),
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    OTHERS = {
        "constant": schedules.Constant(TARGET),
        "step": schedules.Step(TARGET),
        "random": schedules.RandomUniform(TARGET, num_draws=50, seed=3),
        "point": schedules.PiecewiseLinear([(0.5, TARGET)]),
        "peak": schedules.Peak(TARGET, 1.0),
    }
ALL = RAMPS | OTHERS


def parametrize(cases):
    return pytest.mark.parametrize("schedule", cases.values(), ids=cases.keys())


@parametrize(RAMPS)
def test_ramps_are_continuous_and_rise(schedule):
    values = schedule(np.linspace(0, 1, 10001))
    steps = np.diff(values)
    assert np.all(steps >= -1e-12)
    # A slope of at most 11 times the mean one; a jump would be 10000 times.
    assert steps.max() <= 11 * TARGET / 10000
    assert values[0] == 0 and values[-1] == TARGET


@parametrize({k: v for k, v in ALL.items() if k != "random"})
def test_the_end_is_exactly_the_target(schedule):
    assert schedule(1.0) == TARGET
    assert isinstance(schedule(1.0), float)
    tensor = schedule(ops.convert_to_tensor(1.0))
    assert ops.convert_to_numpy(tensor) == np.float32(TARGET)


@parametrize(ALL)
def test_tensors_arrays_and_numbers_agree(schedule):
    # Off the jumps, where float32 may fall on the other side.
    progress = (np.arange(400) + 0.5) / 400
    numbers = [schedule(float(each)) for each in progress]
    assert all(0 <= each <= TARGET for each in numbers)
    np.testing.assert_allclose(schedule(progress), numbers, rtol=1e-12)
    tensor = ops.convert_to_tensor(progress, "float32")
    for function in (schedule, backend.compile(schedule)):
        values = function(tensor)
        assert keras.backend.standardize_dtype(values.dtype) == "float32"
        assert values.shape == (400,)
        np.testing.assert_allclose(values, numbers, atol=1e-6)
    scalar = backend.compile(schedule)(ops.convert_to_tensor(0.3))
    assert scalar.shape == ()
    np.testing.assert_allclose(scalar, schedule(0.3), atol=1e-6)


def test_two_hinge_is_the_schedule_of_the_paper():
    schedule = schedules.TwoHinge(TARGET)
    for epoch in range(50):
        paper = TARGET * min(max((epoch - 12) / (37 - 12), 0.0), 1.0)
        assert schedule(epoch / 50) == pytest.approx(paper, abs=1e-15)
    assert schedule(12 / 50) == 0.0
    assert schedule(13 / 50) == pytest.approx(TARGET / 25, rel=1e-9)
    assert schedule(36 / 50) < TARGET
    assert schedule(37 / 50) == TARGET


def test_values_at_hinges_and_middles():
    assert schedules.LinearWarmup(TARGET, 0.4)(0.2) == TARGET / 2
    cosine = schedules.CosineRamp(TARGET, 0.2, 0.6)
    assert cosine(0.2) == 0.0 and cosine(0.6) == TARGET
    assert cosine(0.4) == pytest.approx(TARGET / 2)
    quarter = TARGET * 0.5 * (1 - np.sqrt(0.5))
    assert cosine(0.3) == pytest.approx(quarter)
    points = schedules.PiecewiseLinear([(0.2, 0.01), (0.4, 0.03), (0.8, 0.02)])
    for at, value in [(0, 0.01), (0.2, 0.01), (0.3, 0.02), (0.4, 0.03)]:
        assert points(at) == pytest.approx(value)
    assert points(0.6) == pytest.approx(0.025)
    assert points(0.8) == points(1.0) == 0.02
    assert points.target_epsilon == 0.02
    with pytest.warns(UserWarning, match="jumps"):
        step = schedules.Step(TARGET, 0.25)
    assert step(0.2499) == 0.0 and step(0.25) == TARGET


def test_a_peak_is_above_the_target_and_ends_at_it():
    schedule = schedules.Peak(TARGET)
    assert schedule.target_epsilon == TARGET
    assert schedule(0.0) == schedule(0.1) == 0.0
    assert schedule(0.35) == pytest.approx(0.625 * TARGET)
    for at in (0.6, 0.7, 0.8):
        assert schedule(at) == pytest.approx(1.25 * TARGET)
    assert schedule(0.85) == pytest.approx(1.125 * TARGET)
    assert schedule(0.9) == schedule(1.0) == TARGET
    moved = schedules.Peak(TARGET, ramp_end=0.9)
    assert moved(0.95) == pytest.approx(1.25 * TARGET) and moved(1) == TARGET
    other = schedules.Peak(TARGET, 2.0, 0.0, 0.2, 0.3, 0.4)
    assert other(0.25) == 2 * TARGET and other(0.4) == TARGET
    again = schedules.Peak(**other.get_config())
    assert again == other and again(0.35) == other(0.35)


def test_smooth_ramp_is_polynomial_then_its_tangent():
    schedule = schedules.SmoothRamp(1.0, 0.0, 1.0, 4.0, 0.25)
    scale = schedule(0.125) / 0.125**4
    for at in (0.05, 0.2, 0.25):
        assert schedule(at) == pytest.approx(scale * at**4)
    slope = scale * 4 * 0.25**3
    for at in (0.3, 0.6, 0.99):
        line = schedule(0.25) + slope * (at - 0.25)
        assert schedule(at) == pytest.approx(line)


def test_a_full_warmup_stops_one_increment_short():
    schedule = schedules.LinearWarmup(TARGET, ramp_end=1.0)
    assert schedule(49 / 50) == pytest.approx(TARGET * 49 / 50)


def test_jumps_warn_and_ramps_do_not():
    with pytest.warns(UserWarning, match="24% of the training"):
        schedules.Step(TARGET)
    with pytest.warns(UserWarning, match="jumps from 0"):
        jump = schedules.TwoHinge(TARGET, 0.3, 0.3)
    assert jump(0.3) == TARGET and jump(0.2999) == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedules.TwoHinge(TARGET)
        schedules.TwoHinge(TARGET, 0.0, 0.0)
        schedules.Step(TARGET, 0.0)
        schedules.Step(0.0, 0.5)


def test_random_uniform_is_a_function_of_seed_and_progress():
    make = schedules.RandomUniform
    first = make(TARGET, 50, seed=1)
    forward = [first(epoch / 50) for epoch in range(50)]
    backward = [first(epoch / 50) for epoch in reversed(range(50))]
    assert forward == backward[::-1]
    assert forward == [make(TARGET, 50, seed=1)(e / 50) for e in range(50)]
    assert forward != [make(TARGET, 50, seed=2)(e / 50) for e in range(50)]
    assert 0.3 < np.mean(forward) / TARGET < 0.7
    assert min(forward) >= 0 and max(forward) <= TARGET
    assert first(1.0) == forward[-1]


def test_random_uniform_gives_each_epoch_its_own_draw():
    for epochs in range(1, 201):
        schedule = schedules.RandomUniform(TARGET, epochs, seed=epochs)
        progress = [epoch / epochs for epoch in range(epochs)]
        values = [schedule(each) for each in progress]
        assert len(set(values)) == epochs
        inside = [schedule((e + 0.9) / epochs) for e in range(epochs)]
        assert inside == values
        tensors = schedule(ops.convert_to_tensor(progress, "float32"))
        np.testing.assert_allclose(tensors, values, atol=1e-6)


@pytest.mark.filterwarnings("ignore:epsilon jumps")
@parametrize(ALL)
def test_serialisation_round_trip(schedule):
    config = keras.saving.serialize_keras_object(schedule)
    copy = schedules.get(config)
    assert copy == schedule and hash(copy) == hash(schedule)
    assert repr(copy) == repr(schedule)
    progress = np.linspace(0, 1, 77)
    np.testing.assert_array_equal(copy(progress), schedule(progress))


def test_equality_looks_at_class_and_values():
    assert schedules.TwoHinge(TARGET) == schedules.TwoHinge(TARGET)
    assert schedules.TwoHinge(TARGET) != schedules.TwoHinge(2 * TARGET)
    assert schedules.TwoHinge(TARGET) != schedules.CosineRamp(TARGET)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.TwoHinge(TARGET, 12, 37), "fraction"),
        (lambda: schedules.TwoHinge(TARGET, -0.1), "fraction"),
        (lambda: schedules.TwoHinge(TARGET, "0.1"), "fraction"),
        (lambda: schedules.TwoHinge(TARGET, 0.8, 0.2), "must not be after"),
        (lambda: schedules.LinearWarmup(TARGET, 1.01), "fraction"),
        (lambda: schedules.TwoHinge(-TARGET), "at least 0"),
        (lambda: schedules.Constant(float("nan")), "finite"),
        (lambda: schedules.SmoothRamp(TARGET, exponent=1.0), "exponent"),
        (lambda: schedules.SmoothRamp(TARGET, polynomial_part=1), "exponent"),
        (lambda: schedules.PiecewiseLinear([]), "at least one"),
        (lambda: schedules.Peak(TARGET, 0.9), "multiple of the target"),
        (lambda: schedules.Peak(TARGET, "2"), "multiple of the target"),
        (lambda: schedules.Peak(TARGET, math.nan), "multiple of the target"),
        (lambda: schedules.Peak(TARGET, ramp_end=0.05), "`ramp_end`.*increase"),
        (lambda: schedules.Peak(TARGET, fall_end=0.8), "`fall_end` must"),
        (lambda: schedules.Peak(TARGET, fall_end=1.1), "`fall_end` must be a"),
        (lambda: schedules.PiecewiseLinear([(0.1,)]), "pair"),
        (
            lambda: schedules.PiecewiseLinear([(0.5, 0.0), (0.5, 0.1)]),
            "increase strictly",
        ),
        (
            lambda: schedules.PiecewiseLinear([(0.5, 0.0), (0.2, 0.1)]),
            "increase strictly",
        ),
        (lambda: schedules.RandomUniform(TARGET, 0), "num_draws"),
        (lambda: schedules.RandomUniform(TARGET, 2.5), "num_draws"),
        (lambda: schedules.Constant(TARGET)(1.01), r"\[0, 1\]"),
        (lambda: schedules.Constant(TARGET)(-0.01), r"\[0, 1\]"),
        (lambda: schedules.Constant(TARGET)(float("nan")), r"\[0, 1\]"),
        (lambda: schedules.TwoHinge(TARGET)(np.array([0.5, 2])), r"\[0, 1\]"),
        (lambda: schedules.get("two_hinge"), "EpsilonSchedule"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_names_that_launchers_and_studies_use():
    hinges = {"ramp_start": 0.1, "ramp_end": 0.7}
    made = {
        "standard": schedules.Constant(0.0),
        "fixed": schedules.Constant(TARGET),
        "scheduled": schedules.TwoHinge(TARGET, 0.1, 0.7),
        "cosine": schedules.CosineRamp(TARGET, 0.1, 0.7),
        "smooth": schedules.SmoothRamp(TARGET, 0.1, 0.7),
        "warmup": schedules.LinearWarmup(TARGET, 0.7),
        "peak": schedules.Peak(TARGET),
    }
    with pytest.warns(UserWarning, match="jumps"):
        made["step"] = schedules.Step(TARGET, 0.1)
    assert set(made) == set(schedules.NAMES)
    for name, expected in made.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert schedules.named(name, TARGET, **hinges) == expected
    random = schedules.named("random", TARGET, num_draws=7, seed=3)
    assert random == schedules.RandomUniform(TARGET, num_draws=7, seed=3)


def test_the_names_with_hinges_are_those_that_hinges_change():
    moved = {
        name
        for name, make in schedules.NAMES.items()
        if name != "step" and make(TARGET, 0.1, 0.7) != make(TARGET, 0.2, 0.8)
    }
    assert moved | {"step"} == {*schedules.WITH_HINGES}


def test_the_default_name_is_the_schedule_of_the_paper():
    named = schedules.named("scheduled", TARGET)
    assert named == schedules.TwoHinge(TARGET, 12 / 50, 37 / 50)


def test_hinges_and_points_are_names():
    own = schedules.named("1/4:0.75", TARGET, 0.1, 0.2)
    assert own == schedules.TwoHinge(TARGET, 0.25, 0.75)
    points = schedules.named("0.1:0;0.4:1/255;4/5:4/255", TARGET)
    assert points == schedules.PiecewiseLinear(
        [(0.1, 0.0), (0.4, 1 / 255), (0.8, TARGET)]
    )


@pytest.mark.parametrize(
    ("text", "hinges"),
    [
        ("12/50:37/50", (0.24, 0.74)),
        ("0:1", (0.0, 1.0)),
        ("1/4:0.75", (0.25, 0.75)),
        ("0.5:0.5", (0.5, 0.5)),
    ],
)
def test_hinges_are_read(text, hinges):
    assert schedules.parse_hinges(text) == hinges


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "two hinges, for example 12/50:37/50. Received: ''"),
        ("0.5", "two hinges"),
        ("0.1:0.2:0.3", "two hinges"),
        ("a:b", "two hinges"),
        ("1/0:1", "two hinges"),
        ("nan:1", "two hinges"),
        (
            "0.8:0.2",
            "the first not larger than the second. Received: '0.8:0.2'",
        ),
        ("-0.1:0.5", "fractions of the training"),
        ("12:37", "fractions of the training"),
    ],
)
def test_wrong_hinges_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        schedules.parse_hinges(text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_hinge", "standard, fixed, .*random.*Received: 'two_hinge'"),
        ("0.8:0.2", "the first not larger than the second"),
        ("0.1:0;a:4/255", "pairs of progress and epsilon"),
        ("0.1:0;0.8", "pairs"),
        ("0.8:0;0.1:4/255", "increase strictly"),
        ("0.1:0;0.8:8/255", "at the target epsilon 0.015686"),
    ],
)
def test_wrong_names_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        schedules.named(name, TARGET)
