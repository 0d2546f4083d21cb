"""Projections and steepest steps against references in float64."""

import numpy as np
import pytest
from keras import ops
from scipy import optimize

from keras_epsched import backend
from keras_epsched.attacks import noise, norms

RANGES = [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)]
SHAPE = (6, 5, 2)


def compiled(function, *tensors):
    tensors = [ops.convert_to_tensor(tensor) for tensor in tensors]
    return ops.convert_to_numpy(
        backend.compile(function, jit_compile=False)(*tensors)
    )


def size(delta, name):
    flat = np.asarray(delta, "float64").reshape(len(delta), -1)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[name]
    return np.linalg.norm(flat, order, axis=1)


def nearest(moved, x, radius, box, name):
    """Nearest point of the ball and the box to one image, in float64.

    The dual variable of the ball is found by root finding.
    """
    delta = moved - x
    low, high = box[0] - x, box[1] - x

    def point(dual):
        if name == "l2":
            inner = delta / (1.0 + dual)
        else:
            inner = np.sign(delta) * np.maximum(np.abs(delta) - dual, 0.0)
        return np.clip(inner, low, high)

    def excess(dual):
        order = {"l2": 2, "l1": 1}[name]
        return np.linalg.norm(point(dual).ravel(), order) - radius

    if excess(0.0) <= 0:
        return x + point(0.0)
    most = 1.0
    while excess(most) > 0:
        most *= 2.0
    return x + point(optimize.brentq(excess, 0.0, most, xtol=1e-15))


def problems(box, name, n=60):
    """Images, points far and near, and radii; a third sit at the box's ends."""
    rng = np.random.default_rng(0)
    low, high = box
    width = high - low
    x = rng.uniform(low, high, (n, *SHAPE))
    ends = rng.choice([low, high], x.shape)
    x = np.where(rng.random(x.shape) < 0.33, ends, x).astype("float32")
    reach = width * 10 ** rng.uniform(-2.5, 0.8, (n, 1, 1, 1))
    delta = reach * rng.standard_normal(x.shape)
    # A few sparse ones, and one that has not moved.
    delta[::7] *= rng.random(delta[::7].shape) < 0.1
    delta[3] = 0.0
    moved = (x + delta).astype("float32")
    typical = size(np.clip(moved, low, high) - x, name) + 0.01 * width
    radius = (typical * 10 ** rng.uniform(-1.5, 0.3, n)).astype("float32")
    return moved, x, radius.reshape(n, 1, 1, 1)


@pytest.mark.parametrize("box", RANGES)
@pytest.mark.parametrize("name", ["l2", "l1"])
def test_projection_is_the_nearest_point(name, box):
    moved, x, radius = problems(box, name)
    norm = norms.get(name)
    found = compiled(
        lambda moved, x, radius: norm.project(moved, x, radius, box),
        moved,
        x,
        radius,
    )
    assert found.min() >= box[0] and found.max() <= box[1]
    for i in range(len(x)):
        m, c, r = (a.astype("float64") for a in (moved[i], x[i], radius[i]))
        best = nearest(m, c, r.item(), box, name)
        # Two ulp a pixel are lost to float32.
        rounding = 2 * np.spacing(np.float32(box[1])) * np.sqrt(x[i].size)
        tolerance = 1e-4 * np.linalg.norm(best - c) + rounding
        assert np.linalg.norm(found[i] - best) <= tolerance
        assert np.linalg.norm(m - found[i]) == pytest.approx(
            np.linalg.norm(m - best), rel=1e-5, abs=rounding
        )


def test_l2_projection_with_pixels_that_hit_the_box_one_after_the_other():
    # Each round of the projection can only discover the next of these.
    n = 14
    x = np.full((1, n), 1.0, "float32")
    room = 0.5 * 0.8 ** np.arange(n)
    x[0] -= room
    delta = 0.5 * room * 1.35 ** np.arange(n)
    moved = (x + 40 * delta).astype("float32")
    for radius in (0.05, 0.2, 0.5, 0.7):
        found = compiled(
            lambda moved, x, radius: norms.get("l2").project(
                moved, x, radius, (0.0, 1.0)
            ),
            moved,
            x,
            ops.full((1, 1), radius, "float32"),
        )
        best = nearest(
            moved[0].astype("float64"),
            x[0].astype("float64"),
            float(np.float32(radius)),
            (0.0, 1.0),
            "l2",
        )
        np.testing.assert_allclose(found[0], best, atol=1e-4 * radius)


def test_linf_projection_clips():
    x = np.asarray([[10.0, 250.0, 0.0, 100.0]], "float32")
    moved = np.asarray([[0.0, 300.0, -9.0, 101.0]], "float32")
    found = compiled(
        lambda moved, x: norms.get("linf").project(
            moved, x, np.full((1, 1), 8.0, "float32"), (0.0, 255.0)
        ),
        moved,
        x,
    )
    np.testing.assert_array_equal(found, [[2.0, 255.0, 0.0, 101.0]])


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_points_inside_are_kept_and_radius_zero_gives_the_image(name):
    box = (0.0, 255.0)
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 255, (8, *SHAPE)).astype("float32")
    moved = np.clip(x + rng.uniform(-1, 1, x.shape), 0, 255).astype("float32")
    norm = norms.get(name)

    def project(radius):
        radius = ops.full((8, 1, 1, 1), radius, "float32")
        return compiled(
            lambda moved, x: norm.project(moved, x, radius, box), moved, x
        )

    np.testing.assert_allclose(project(1e3), moved, atol=3e-5)
    np.testing.assert_array_equal(project(0.0), x)


@pytest.mark.parametrize("box", [(0.0, 255.0), (-1.0, 1.0)])
@pytest.mark.parametrize("name", ["l2", "l1"])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-4, 0.5])
def test_rounding_never_leaves_the_ball_in_large_images(name, box, epsilon):
    rng = np.random.default_rng(2)
    width = box[1] - box[0]
    x = rng.uniform(*box, (3, 64, 64, 3)).astype("float32")
    radius = np.full((3, 1, 1, 1), epsilon * width, "float32")
    moved = x + 0.1 * width * rng.standard_normal(x.shape)
    norm = norms.get(name)
    found = compiled(
        lambda moved, x, radius: norm.project(moved, x, radius, box),
        moved.astype("float32"),
        x,
        radius,
    )
    limit = radius.ravel().astype("float64")
    limit += 2 * np.spacing(np.float32(max(map(abs, box))))
    assert (size(found - x.astype("float64"), name) <= limit).all()


@pytest.mark.parametrize("name", ["l2", "l1"])
@pytest.mark.parametrize("share", [0.6, 0.8, 1.6])
def test_changes_of_less_than_an_ulp_do_not_add_up(name, share):
    pixels = 10_000
    ulp = np.spacing(np.float32(200.0))
    x = np.linspace(193, 250, pixels, dtype="float32")[None]
    radius = share * ulp * (np.sqrt(pixels) if name == "l2" else pixels)
    found = compiled(
        lambda x: norms.get(name).project(
            x + 4 * ulp,
            x,
            ops.full((1, 1), radius, "float32"),
            (0.0, 255.0),
        ),
        x,
    )
    delta = found.astype("float64") - x
    assert size(delta, name)[0] <= radius + 2 * ulp


def greedy(gradient, x, length, box):
    """Largest gain of a linear function within an l1 ball and the box."""
    weight = np.abs(gradient).ravel()
    room = np.where(gradient > 0, box[1] - x, x - box[0]).ravel()
    gain = 0.0
    for i in np.argsort(-weight):
        used = min(room[i], length)
        gain += weight[i] * used
        length -= used
    return gain


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("box", [(0.0, 255.0), (-1.0, 1.0)])
def test_l1_step_is_the_best_within_the_ball_and_the_box(box, ties):
    _, x, _ = problems(box, "l1")
    rng = np.random.default_rng(3)
    width = box[1] - box[0]
    gradient = rng.standard_normal(x.shape)
    gradient *= 10 ** rng.uniform(-12, 4, (len(x), 1, 1, 1))
    if ties:
        gradient = rng.integers(-2, 3, x.shape)
    gradient = gradient.astype("float32")
    length = width * 10 ** rng.uniform(-2, 2.5, (len(x), 1, 1, 1))
    length = length.astype("float32")
    step = compiled(
        lambda g, x, length: norms.get("l1").step(g, x, length, box),
        gradient,
        x,
        length,
    ).astype("float64")
    moved = x + step
    assert moved.min() >= box[0] - 1e-6 * width
    assert moved.max() <= box[1] + 1e-6 * width
    assert (size(step, "l1") <= length.ravel() * (1 + 1e-5)).all()
    for i in range(len(x)):
        g, c, r = (a.astype("float64") for a in (gradient[i], x[i], length[i]))
        gain = (g * step[i]).sum()
        assert gain == pytest.approx(greedy(g, c, r.item(), box), rel=1e-5)


def test_equal_gradients_share_the_l1_step():
    x = np.full((1, 4), 127.5, "float32")
    gradient = np.asarray([[1.0, -1.0, 1.0, 0.5]], "float32")
    step = compiled(
        lambda g, x: norms.get("l1").step(
            g, x, ops.full((1, 1), 3.0, "float32"), (0.0, 255.0)
        ),
        gradient,
        x,
    )
    np.testing.assert_allclose(step, [[1.0, -1.0, 1.0, 0.0]], atol=1e-5)


def test_sparse_step_moves_the_wanted_share_among_pixels_with_room():
    x = np.full((1, 10), 100.0, "float32")
    x[0, 0] = 255.0
    gradient = np.asarray([[9, -8, 7, -6, 5, -4, 3, -2, 1, 0]], "float32")
    step = compiled(
        lambda g, x: norms.get("l1").sparse_step(
            g,
            x,
            ops.full((1, 1), 6.0, "float32"),
            (0.0, 255.0),
            ops.full((1, 1), 0.3, "float32"),
        ),
        gradient,
        x,
    )
    expected = [[0, -2, 2, -2, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(step, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["linf", "l2"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_steepest_step_has_the_length_and_gain_of_the_dual_norm(name, scale):
    rng = np.random.default_rng(4)
    direction = rng.standard_normal((5, *SHAPE))
    gradient = (scale * direction).astype("float32")
    length = rng.uniform(1, 3, (5, 1, 1, 1)).astype("float32")
    step = compiled(
        lambda g, length: norms.get(name).step(g, g, length, (0, 255)),
        gradient,
        length,
    )
    np.testing.assert_allclose(size(step, name), length.ravel(), rtol=1e-5)
    dual = {"linf": "l1", "l2": "l2"}[name]
    np.testing.assert_allclose(
        (step * direction).sum((1, 2, 3)),
        length.ravel() * size(direction, dual),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_no_gradient_no_step(name):
    zeros = np.zeros((2, *SHAPE), "float32")
    step = compiled(
        lambda g, x: norms.get(name).step(
            g, x, ops.ones((2, 1, 1, 1), "float32"), (0, 255)
        ),
        zeros,
        zeros + 7,
    )
    np.testing.assert_array_equal(step, zeros)


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_random_starts_fill_the_ball_or_lie_on_the_sphere(name):
    x = np.full((2000, 2, 2, 1), 128.0, "float32")
    radius = np.full((2000, 1, 1, 1), 10.0, "float32")
    key = noise.make_key(np.arange(2000))
    norm = norms.get(name)

    def start(on_sphere):
        found = compiled(
            lambda x, radius: norm.start(
                x, radius, key, (0.0, 255.0), on_sphere
            ),
            x,
            radius,
        )
        return found - x

    inside = size(start(False), name)
    assert inside.max() <= 10.0 + 1e-4
    # The volume within a share s of the radius is s ** d.
    share = (inside / 10.0) ** 4
    np.testing.assert_allclose(
        np.quantile(share, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.05
    )
    # For l1 it is a projection: the few short draws stay inside.
    on_sphere = np.abs(size(start(True), name) - 10.0) < 1e-3
    assert on_sphere.mean() >= (0.95 if name == "l1" else 1.0)
    assert abs(start(False).mean()) < 0.5


@pytest.mark.parametrize("name", ["linf", "l2", "l1"])
def test_size_is_the_norm(name):
    delta = np.random.default_rng(5).standard_normal((4, *SHAPE))
    found = compiled(norms.get(name).size, delta.astype("float32"))
    np.testing.assert_allclose(found, size(delta, name), rtol=1e-5)


def test_unknown_norm():
    with pytest.raises(ValueError, match="l3"):
        norms.get("l3")
