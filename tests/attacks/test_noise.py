"""The random numbers: distribution, independence and reproducibility."""

import keras
import numpy as np
import pytest
from scipy import stats

from keras_epsched import backend
from keras_epsched.attacks import noise

DRAWS = {
    "uniform": (noise.uniform, "uniform"),
    "normal": (noise.normal, "norm"),
    "laplace": (noise.laplace, "laplace"),
}


def draw(function, key, shape, jit_compile=False):
    compiled = backend.compile(
        lambda key: function(key, shape), jit_compile=jit_compile
    )
    return keras.ops.convert_to_numpy(compiled(noise.make_key(key)))


@pytest.mark.parametrize("name", DRAWS)
def test_distribution(name):
    function, reference = DRAWS[name]
    values = draw(function, np.arange(400), (19, 7, 3)).astype("float64")
    assert values.size > 1e5
    # Over all draws, within one image, and for one pixel across images.
    one = draw(function, np.arange(1), (101, 1000)).astype("float64")
    across = draw(function, np.arange(100_001), (1,)).astype("float64")
    for sample in (values.ravel(), one.ravel(), across.ravel()):
        assert stats.kstest(sample, reference).pvalue > 1e-3


def test_a_pixel_is_uniform_across_images_whatever_the_pixel():
    values = draw(noise.uniform, np.arange(3000), (6, 6, 1)).reshape(3000, 36)
    pvalues = [stats.kstest(column, "uniform").pvalue for column in values.T]
    assert min(pvalues) > 1e-5
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-4


def test_neighbours_are_uncorrelated():
    values = draw(noise.uniform, np.arange(400), (300,)).astype("float64")
    # 5 standard deviations of the correlation of 120 000 pairs.
    limit = 5 / np.sqrt(values[1:].size)

    def correlation(a, b):
        return abs(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    assert correlation(values[:-1], values[1:]) < limit  # keys
    assert correlation(values[:, :-1], values[:, 1:]) < limit  # pixels
    assert correlation(values[:-1, :-1], values[1:, 1:]) < limit
    assert len(np.unique(values)) > 0.98 * values.size


def test_parts_of_a_key_matter():
    ids = np.arange(200)
    keys = [
        noise.make_key(0, ids),
        noise.make_key(1, ids),
        noise.make_key(ids, 0),
        noise.make_key(0, ids, 0),
        noise.make_key(ids),
    ]
    keys = np.concatenate([keras.ops.convert_to_numpy(key) for key in keys])
    # The pairs (0, 0) and (1, 0) occur twice.
    assert len(np.unique(keys)) == keys.size - 2
    assert keys.min() >= 0 and keys.max() < 2**32


def test_large_and_negative_parts_are_taken():
    parts = [2**31 - 1, 2**31, 2**40 + 5, -1, -7]
    keys = [int(noise.make_key(np.asarray(part, "int64"), 3)) for part in parts]
    assert len(set(keys)) == len(parts)


@pytest.mark.parametrize("name", DRAWS)
def test_draws_do_not_depend_on_the_batch(name):
    function = DRAWS[name][0]
    ids = np.asarray([5, 11, 2, 900, 11])
    together = draw(function, ids, (5, 4, 3))
    for row, number in enumerate(ids):
        alone = draw(function, np.asarray([number]), (5, 4, 3))
        # TensorFlow's logarithm differs by an ulp at the end of an array.
        tolerance = 0.0 if name == "uniform" else 1e-6
        np.testing.assert_allclose(
            alone[0], together[row], rtol=tolerance, atol=tolerance
        )
    np.testing.assert_allclose(together[1], together[4], rtol=1e-6)
    assert not np.allclose(together[0], together[1])


def test_uniform_stays_inside_the_open_interval():
    values = draw(noise.uniform, np.arange(2000), (1000,))
    assert values.dtype == np.float32
    assert values.min() > 0.0 and values.max() < 1.0
    # The ends are reached, as far as two million draws can.
    assert values.min() < 1e-5 and values.max() > 1 - 1e-5


def test_normal_and_laplace_are_finite():
    for function in (noise.normal, noise.laplace):
        assert np.isfinite(draw(function, np.arange(2000), (500,))).all()


def test_xla_draws_the_same_numbers():
    ids = np.arange(50)
    plain = draw(noise.uniform, ids, (9, 9, 3))
    np.testing.assert_array_equal(
        plain, draw(noise.uniform, ids, (9, 9, 3), jit_compile=True)
    )
    for function in (noise.normal, noise.laplace):
        np.testing.assert_allclose(
            draw(function, ids, (9, 9, 3)),
            draw(function, ids, (9, 9, 3), jit_compile=True),
            rtol=1e-4,
            atol=1e-5,
        )
