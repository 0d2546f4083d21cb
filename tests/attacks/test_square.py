"""Square: where it looks, and what it finds without gradients."""

import numpy as np
import pytest
from keras import ops
from linear import NORMS, Linear, assert_within, run

from keras_epsched.attacks import Square, noise
from keras_epsched.attacks.problem import Problem
from keras_epsched.attacks.square import (
    Bumps,
    _window,
    pyramid,
    window_sides,
)


def test_windows_shrink_as_published():
    sides = window_sides(10001, 32, 32, 0.8)
    area = {1: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025}
    area |= {2001: 0.0125, 4001: 0.00625, 6001: 0.003125, 8001: 0.0015625}
    for query, share in area.items():
        side = round(np.sqrt(share * 32 * 32))
        assert sides[query] == max(side, 1)
        assert sides[query - 1] >= sides[query]
    assert sides[0] == sides[10] and sides[8001] == sides[10000]
    rescaled = window_sides(1000, 32, 32, 0.8, rescale=True)
    np.testing.assert_array_equal(rescaled, sides[:10000:10])
    # No window is larger than the image, or empty.
    assert window_sides(10, 4, 64, 1.0)[0] == 4
    assert window_sides(10, 2, 2, 0.1)[0] == 1


def test_windows_reach_every_pixel_evenly():
    count = 4000
    keys = noise.make_key(1, np.arange(count))
    inside, _, _ = (np.asarray(each) for each in _window(keys, 5, 7, 3))
    assert inside.shape == (count, 5, 7, 1)
    assert (inside.sum((1, 2, 3)) == 9).all()
    # Each of the 3 x 5 places is as likely as another.
    corner = inside[:, 0, 0, 0].mean(), inside[:, -1, -1, 0].mean()
    np.testing.assert_allclose(corner, 1 / 15, atol=0.015)


def test_pyramid():
    bump = pyramid(5, 5)
    np.testing.assert_allclose(bump, bump.T)
    np.testing.assert_allclose(bump, bump[::-1])
    assert bump.argmax() == 12
    # Rings fall off with the distance squared.
    rings = [1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1]
    np.testing.assert_allclose(bump[2, :3], rings)


def test_the_first_point_of_l2_is_made_of_pairs_of_bumps():
    images = np.full((4, 10, 10, 2), 128.0, "float32")
    problem = Problem(Square(9, "l2"), None, images, np.zeros(4), 0.5, (0, 255))
    first = Bumps(Square(9, "l2"), problem).first(
        noise.make_key(1, np.arange(4))
    )
    delta = np.asarray(first) - images
    # Tiles of 2 x 2, whose halves cancel, and the sphere.
    np.testing.assert_allclose(delta[:, ::2], -delta[:, 1::2], atol=1e-4)
    assert (delta[:, ::2] != 0).any()
    size = np.linalg.norm(delta.reshape(4, -1), axis=1)
    np.testing.assert_allclose(size, 0.5 * 255, rtol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_query_touches_no_more_than_two_windows(norm):
    attack = Square(8001, norm)
    images = np.full((20, 12, 12, 2), 128.0, "float32")
    problem = Problem(attack, None, images, np.zeros(20), 0.5, (0, 255))
    proposals = Bumps(attack, problem)
    keys = noise.make_key(1, np.arange(20))
    best = proposals.first(keys)
    moved = proposals.next(8000, best, noise.make_key(keys, 1))
    old, new = (ops.convert_to_numpy(each) - images for each in (best, moved))
    for each in range(20):
        ratio = np.median(new[each] / np.where(old[each] == 0, 1, old[each]))
        touched = np.abs(new[each] - ratio * old[each]) > 1e-3
        # The smallest windows measure 3 x 3, in both channels.
        assert 0 < touched.sum() <= 2 * 9 * 2


def smooth(shape, norm="linf"):
    """A linear model with the same weights in large parts of the image."""
    model = Linear(shape, 2, n=1)
    signs = np.resize([1.0, -1.0, 1.0], shape[-1])
    weights = np.broadcast_to(signs, shape).copy()
    if norm != "linf":
        # Pairs of bumps do nothing to a sum over all pixels.
        weights[: shape[0] // 2] *= -1
    weights = weights.reshape(-1, 1) * [[0.0, 1.0]]
    model.weights = weights.astype("float32")
    rng = np.random.default_rng(0)
    images = 128 + rng.uniform(-10, 10, (128, *shape))
    model.images = images.astype("float32")
    model.labels = model.logits64(model.images).argmax(-1)
    return model


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 9, 1), (9, 5, 2)])
def test_linf_comes_near_the_closed_form(shape):
    model = smooth(shape)
    epsilon, ratio = model.epsilons("linf")
    result = run(Square(300), model, model.images, model.labels, epsilon)
    assert_within(result.adversarial, model.images, epsilon, "linf", (0, 255))
    assert not result.broken[ratio > 1 + 1e-5].any()
    assert result.broken[ratio < 0.9].mean() > 0.95
    wrong = model.logits64(result.adversarial).argmax(-1) != model.labels
    np.testing.assert_array_equal(wrong, result.broken)
    assert not result.zero_gradient.any()


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize(
    "shape", [(8, 8, 3), pytest.param((5, 9, 1), marks=pytest.mark.ci)]
)
def test_other_norms_break_without_leaving_the_ball(shape, norm):
    model = smooth(shape, norm)
    epsilon, ratio = model.epsilons(norm)
    result = run(Square(300, norm), model, model.images, model.labels, epsilon)
    assert_within(result.adversarial, model.images, epsilon, norm, (0, 255))
    assert_within(result.best, model.images, epsilon, norm, (0, 255))
    assert not result.broken[ratio > 1 + 1e-5].any()
    assert result.broken[ratio < 0.6].mean() > 0.6
    wrong = model.logits64(result.adversarial).argmax(-1) != model.labels
    np.testing.assert_array_equal(wrong, result.broken)


@pytest.mark.parametrize(
    "norm",
    [
        "linf",
        pytest.param("l2", marks=pytest.mark.ci),
        pytest.param("l1", marks=pytest.mark.ci),
    ],
)
def test_more_queries_find_more(norm):
    model = smooth((8, 8, 3), norm)
    epsilon = model.radii(norm).astype("float32") * 1.6
    few, many = (
        run(Square(queries, norm), model, model.images, model.labels, epsilon)
        for queries in (3, 100)
    )
    assert many.broken.sum() > few.broken.sum()
    assert many.broken[few.broken].all()


def test_no_gradient_is_asked_for():
    def rounds(images):
        levels = ops.cast(ops.cast(images, "int32"), "float32")
        score = ops.mean(levels, axis=(1, 2, 3))
        return ops.stack([score, 0.0 * score + 100.5], -1)

    images = np.full((4, 6, 6, 1), 101.5, "float32")
    assert run(Square(20), rounds, images, np.zeros(4), 0.01).broken.all()
    assert not run(Square(20), rounds, images, np.zeros(4), 1e-4).broken.any()


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_images_work(norm):
    images = np.full((2, 1, 2, 1), 101.0, "float32")
    model = smooth((1, 2, 1))
    result = run(Square(10, norm), model, images, [0, 1], 0.01)
    assert_within(result.best, images, 0.01, norm, (0, 255))


def test_flat_input_is_refused():
    images = np.full((2, 12), 101.0, "float32")
    with pytest.raises(ValueError, match="height, width"):
        run(Square(10), lambda x: x[:, :2], images, [0, 1], 0.01)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="share"):
        Square(share=0)
    with pytest.raises(ValueError, match="steps|queries"):
        Square(queries=0)
