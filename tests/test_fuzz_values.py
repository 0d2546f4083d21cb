"""Any value in, a sensible result or a clear error out."""

import math
import pickle

import keras
import linear
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

import keras_epsched as ke
from keras_epsched import epsilons, schedules

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=5),
    st.lists(st.floats(0, 1), max_size=3),
    st.just(np.float32(0.1)),
    st.just(object()),
)
SHARES = st.floats(0, 1)
EPSILONS = st.floats(0, 1)


def clear(function, *arguments, **kwargs):
    """The result, or `None` after an error that tells what is wrong."""
    try:
        return function(*arguments, **kwargs)
    except (ValueError, TypeError) as error:
        assert len(str(error)) > 20, repr(error)
        return None


# === Numbers ===


@given(ANYTHING, st.sampled_from(("linf", "l2", "l1")))
def test_epsilons(value, norm):
    found = clear(epsilons.check_epsilon, value, norm)
    if found is not None:
        assert type(found) is float and 0 <= found < math.inf
        assert norm != "linf" or found <= 1


@given(ANYTHING, ANYTHING, ANYTHING)
def test_grids(epsilon, number, norm):
    grid = clear(ke.epsilon_grid, epsilon, number, norm)
    if grid is not None:
        assert grid[0] == 0 and np.all(np.diff(grid) > 0)


@given(
    st.sampled_from(
        (
            "Constant",
            "TwoHinge",
            "LinearWarmup",
            "CosineRamp",
            "SmoothRamp",
            "Step",
            "RandomUniform",
            "PiecewiseLinear",
            "Peak",
        )
    ),
    st.lists(ANYTHING, max_size=4),
)
@pytest.mark.filterwarnings("ignore:epsilon jumps")
def test_schedules_of_anything(name, arguments):
    schedule = clear(getattr(schedules, name), *arguments)
    if schedule is None:
        return
    values = schedule(np.linspace(0.0, 1.0, 11))
    assert np.isfinite(values).all() and np.min(values) >= 0
    again = schedules.get(keras.saving.serialize_keras_object(schedule))
    assert again == schedule


@given(
    st.sampled_from(("TwoHinge", "CosineRamp", "SmoothRamp")),
    EPSILONS,
    st.tuples(SHARES, SHARES).map(sorted),
    SHARES,
)
@pytest.mark.filterwarnings("ignore:epsilon jumps")
def test_ramps_stay_between_0_and_their_target(name, target, hinges, progress):
    schedule = getattr(schedules, name)(target, *hinges)
    values = [float(schedule(p)) for p in (0.0, progress, 1.0)]
    assert all(0 <= value <= target * (1 + 1e-6) for value in values)
    if progress < hinges[0]:
        assert values[1] == 0
    assert values[0] <= values[1] + 1e-7 and values[1] <= values[2] + 1e-7
    again = schedules.get(keras.saving.serialize_keras_object(schedule))
    assert again == schedule


# === Attacks ===


@settings(max_examples=40)
@given(
    st.sampled_from(("linf", "l2", "l1")),
    hnp.array_shapes(min_dims=4, max_dims=4, max_side=5),
    st.sampled_from(("uint8", "float16", "float32", "float64", "int64")),
    st.floats(0, 1),
    st.sampled_from(("PGD", "FGSM", "APGD")),
    st.integers(0, 10),
)
def test_attacks_stay_within_their_ball(
    norm, shape, dtype, epsilon, name, seed
):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, shape).astype(dtype)
    features = int(np.prod(shape[1:]))
    weights = ops.convert_to_tensor(
        rng.normal(size=(features, 3)).astype("float32")
    )

    def logits_fn(pixels):
        return ops.reshape(pixels, (-1, features)) @ weights / 255

    attack = {
        "PGD": lambda: ke.attacks.PGD(2, norm),
        "FGSM": lambda: ke.attacks.FGSM(norm),
        "APGD": lambda: ke.attacks.APGD(2, norm),
    }[name]()
    pixels = ops.convert_to_tensor(images.astype("float32"))
    result = attack.search(
        logits_fn,
        pixels,
        ops.convert_to_tensor(rng.integers(0, 3, shape[0]).astype("int32")),
        epsilon,
        ke.attacks.noise.make_key(0, ops.arange(shape[0])),
        (0, 255),
    )
    moved = ops.convert_to_numpy(result.adversarial)
    assert moved.shape == shape and np.isfinite(moved).all()
    linear.assert_within(moved, images, epsilon, norm, (0, 255))


# === Data of an evaluation ===


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )


PIXELS = st.one_of(
    st.floats(0, 255, width=32),
    st.floats(0, 255, width=32),
    st.sampled_from((np.nan, np.inf, -1.0, 256.0, 1e30)),
)


@settings(max_examples=25)
@given(
    st.data(),
    st.sampled_from(
        ("uint8", "float16", "float32", "float64", "object", "bool")
    ),
    st.integers(0, 5),
    st.lists(st.integers(0, 3), min_size=2, max_size=4),
)
def test_evaluations_of_any_arrays(classifier, data, dtype, number, sides):
    kind = "float32" if dtype == "object" else dtype
    elements = PIXELS if kind == "float32" else None
    images = data.draw(
        hnp.arrays(kind, (number, *sides), elements=elements)
    ).astype(dtype)
    labels = data.draw(
        hnp.arrays(
            st.sampled_from(("int64", "uint8", "float32")).map(np.dtype),
            data.draw(st.sampled_from(((number,), (number, 1), (number + 1,)))),
            elements=st.integers(0, 4),
        )
    )
    report = clear(
        ke.evaluate,
        classifier,
        (images, labels),
        [0.0, 0.1],
        ke.attacks.FGSM(),
        self_check=False,
        verbose=0,
    )
    if report is None:
        return
    assert report.num_images == number > 0
    # Nothing else can have been meant.
    assert images.ndim == 4 and images.shape[-1] == 3
    assert np.isfinite(images.astype("float64")).all()
    assert labels.max() < 3 and len(labels) == number
    assert 0 <= report.accuracy[1] <= report.accuracy[0] <= 1


@settings(max_examples=20)
@given(ANYTHING, ANYTHING)
def test_evaluations_of_anything(classifier, dataset, grid):
    assert (
        clear(
            ke.evaluate,
            classifier,
            dataset,
            grid,
            ke.attacks.FGSM(),
            verbose=0,
        )
        is None
    )


# === Examples of a training ===


class Opens:
    """Whoever unpickles it runs code."""

    def __reduce__(self):
        return (pytest.fail, ("code in the data was run",))


EXAMPLES = st.lists(
    st.one_of(
        st.tuples(
            hnp.arrays(
                st.sampled_from(("uint8", "float32", "bool")).map(np.dtype),
                hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
            ),
            ANYTHING,
        ),
        st.dictionaries(st.sampled_from(("image", "label", "x")), ANYTHING),
        st.just(pickle.dumps(Opens())),
        ANYTHING,
    ),
    max_size=3,
)


@settings(max_examples=60)
@given(EXAMPLES, ANYTHING, ANYTHING, st.booleans())
def test_batches_of_any_examples(examples, size, batch, shuffle):
    for image_size in (size, (4, 4)):
        batches = clear(
            ke.datasets.ImageBatches,
            examples,
            image_size,
            batch,
            shuffle=shuffle,
        )
        if batches is None:
            batches = clear(ke.datasets.ImageBatches, examples, image_size, 1)
        if batches is None:
            continue
        for index in range(len(batches)):
            found = clear(batches.__getitem__, index)
            if found is not None:
                images, labels = found
                assert images.shape[1:] == (*batches.image_size, 3)
                assert images.dtype == "float32" and len(labels) == len(images)
                assert 0 <= images.min() and images.max() <= 255
