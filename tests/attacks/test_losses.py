"""The losses that attacks maximise."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import losses


def values_and_gradients(function, logits):
    value, pull = backend.vjp(function, ops.convert_to_tensor(logits))
    gradient = pull(ops.ones_like(value))
    return ops.convert_to_numpy(value), ops.convert_to_numpy(gradient)


def draws(num_classes=5, scale=3.0, n=64):
    rng = np.random.default_rng(0)
    logits = scale * rng.standard_normal((n, num_classes))
    return rng.integers(0, num_classes, n), logits.astype("float32")


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_softplus_of_ce_is_the_cross_entropy_of_keras(num_classes):
    labels, logits = draws(num_classes)
    ours = values_and_gradients(
        lambda z: ops.softplus(losses.get("ce")(labels, z)), logits
    )
    theirs = values_and_gradients(
        lambda z: keras.losses.sparse_categorical_crossentropy(
            labels, z, from_logits=True
        ),
        logits,
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-5)


def test_ce_has_the_direction_of_the_cross_entropy():
    labels, logits = draws()
    ours = values_and_gradients(lambda z: losses.get("ce")(labels, z), logits)
    probabilities = np.exp(logits.astype("float64"))
    probabilities /= probabilities.sum(-1, keepdims=True)
    theirs = probabilities - np.eye(5)[labels]
    theirs /= np.abs(theirs).max(-1, keepdims=True)
    found = ours[1] / np.abs(ours[1]).max(-1, keepdims=True)
    np.testing.assert_allclose(found, theirs, atol=1e-5)


@pytest.mark.parametrize("gap", [40.0, 1e4])
def test_ce_does_not_saturate(gap):
    labels = np.asarray([0, 1])
    logits = np.asarray([[gap, 0.0, -1.0], [1.0, gap, 0.5]], "float32")

    def naive(z):
        picked = ops.take_along_axis(ops.softmax(z), labels[:, None], -1)
        return -ops.log(picked[:, 0])

    assert (values_and_gradients(naive, logits)[1] == 0).any(-1).all()
    value, gradient = values_and_gradients(
        lambda z: losses.get("ce")(labels, z), logits
    )
    assert np.isfinite(value).all()
    np.testing.assert_allclose(
        # torch rounds more than the others.
        [gradient[0, 0], gradient[1, 1]],
        [-1.0, -1.0],
        rtol=1e-3,
    )
    np.testing.assert_allclose(gradient.sum(-1), 0.0, atol=1e-5)
    assert (np.abs(gradient).max(-1) > 0.5).all()


def test_margin():
    labels = np.asarray([0, 0, 2])
    logits = [[3.0, 1.0, 2.0], [1.0, 4.0, 2.0], [0.0, 5.0, 5.0]]
    value, gradient = values_and_gradients(
        lambda z: losses.get("margin")(labels, z),
        np.asarray(logits, "float32"),
    )
    np.testing.assert_allclose(value, [-1.0, 3.0, 0.0])
    np.testing.assert_allclose(gradient, [[-1, 0, 1], [-1, 1, 0], [0, 1, -1]])


def test_dlr():
    labels = np.asarray([0, 1])
    logits = np.asarray([[4.0, 1.0, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0]], "f4")
    value = ops.convert_to_numpy(losses.get("dlr")(labels, logits))
    np.testing.assert_allclose(value, [-1 / 2, 3 / 2], rtol=1e-6)


def test_dlr_is_invariant_to_scale_and_shift():
    labels, logits = draws()
    dlr = losses.get("dlr")
    np.testing.assert_allclose(
        ops.convert_to_numpy(dlr(labels, logits)),
        ops.convert_to_numpy(dlr(labels, logits * 10 + 3)),
        rtol=1e-3,
        atol=1e-5,
    )


def test_dlr_of_two_classes_is_the_margin():
    labels, logits = draws(2)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(losses.get("dlr")(labels, logits)),
        ops.convert_to_numpy(losses.get("margin")(labels, logits)),
    )


def test_targeted_dlr():
    labels, targets = np.asarray([0, 1]), np.asarray([2, 3])
    logits = np.asarray([[5.0, 1.0, 3.0, 2.0, -1.0]] * 2, "f4")
    value = ops.convert_to_numpy(
        losses.targeted_difference_of_logits_ratio(labels, targets, logits)
    )
    # The gap is 5 - (2 + 1) / 2.
    np.testing.assert_allclose(value, [-2 / 3.5, 1 / 3.5], rtol=1e-6)
    for count in (2, 3):
        value = losses.targeted_difference_of_logits_ratio(
            labels, np.asarray([1, 0]), logits[:, :count]
        )
        np.testing.assert_allclose(ops.convert_to_numpy(value), [-4.0, 4.0])


def probabilities64(logits):
    powers = np.exp(logits.astype("float64"))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_probability_margin(num_classes):
    labels, logits = draws(num_classes)
    rows = np.arange(len(labels))
    others = probabilities64(logits)
    true = others[rows, labels].copy()
    others[rows, labels] = -1.0
    value = losses.get("probability_margin")(labels, logits)
    found = np.expm1(ops.convert_to_numpy(value).astype("float64"))
    np.testing.assert_allclose(found, others.max(-1) - true, atol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_targeted_probability_margin(num_classes):
    labels, logits = draws(num_classes)
    targets = (labels + 1) % num_classes
    rows = np.arange(len(labels))
    p = probabilities64(logits)
    value = losses.targeted_probability_margin(
        labels, ops.convert_to_tensor(targets), logits
    )
    found = np.expm1(ops.convert_to_numpy(value).astype("float64"))
    np.testing.assert_allclose(
        found, p[rows, targets] - p[rows, labels], atol=1e-6
    )


@pytest.mark.parametrize("targeted", [False, True])
def test_probability_margins_have_the_direction_of_the_plain_ones(targeted):
    labels, logits = draws()
    rows, eye = np.arange(len(labels)), np.eye(5)
    p = probabilities64(logits)
    if targeted:
        rivals = (labels + 2) % 5

        def loss(z):
            return losses.targeted_probability_margin(
                labels, ops.convert_to_tensor(rivals), z
            )
    else:
        rivals = np.where(eye[labels] == 1, -1, p).argmax(-1)

        def loss(z):
            return losses.probability_margin(labels, z)

    # The gradient of p_rival - p_true at the logits.
    up, down = p[rows, rivals][:, None], p[rows, labels][:, None]
    theirs = up * eye[rivals] - down * eye[labels] + p * (down - up)
    ours = values_and_gradients(loss, logits)[1]
    np.testing.assert_allclose(
        ours / np.abs(ours).max(-1, keepdims=True),
        theirs / np.abs(theirs).max(-1, keepdims=True),
        # Rounding grows where the network is sure of the wrong class.
        atol=1e-4,
    )


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("gap", [40.0, 1e4])
def test_probability_margins_do_not_saturate(targeted, gap):
    labels, targets = np.asarray([0, 1]), ops.convert_to_tensor([2, 2])
    logits = np.asarray([[gap, 0.0, -1.0], [1.0, gap, 0.5]], "float32")

    def naive(z):
        p = ops.softmax(z)
        true = ops.take_along_axis(p, labels[:, None], -1)[:, 0]
        return p[:, 2] - true

    def loss(z):
        if targeted:
            return losses.targeted_probability_margin(labels, targets, z)
        return losses.probability_margin(labels, z)

    assert (values_and_gradients(naive, logits)[1] == 0).any(-1).all()
    value, gradient = values_and_gradients(loss, logits)
    assert np.isfinite(value).all()
    np.testing.assert_allclose(
        [gradient[0, 0], gradient[1, 1]], [-1.0, -1.0], rtol=1e-3
    )
    assert (np.abs(gradient) > 0.05).all()


def test_targeted_losses_have_names():
    for name in ("margin", "dlr", "probability_margin"):
        assert callable(losses.get_targeted(name))
    with pytest.raises(ValueError, match="ce"):
        losses.get_targeted("ce")


@pytest.mark.parametrize("name", ["ce", "margin", "dlr", "probability_margin"])
def test_losses_agree_on_what_is_misclassified(name):
    labels, logits = draws(3)
    value = ops.convert_to_numpy(losses.get(name)(labels, logits))
    wrong = logits.argmax(-1) != labels
    assert value.shape == (64,)
    # All are positive at least where the image is misclassified.
    assert (value[wrong] > 0).all()
    if name != "ce":
        assert (value[~wrong] <= 0).all()
    # They grow when the true logit shrinks.
    lower = logits - 0.1 * np.eye(3, dtype="f4")[labels]
    assert (ops.convert_to_numpy(losses.get(name)(labels, lower)) > value)[
        ~wrong
    ].all()


def test_get():
    assert losses.get(losses.margin) is losses.margin
    with pytest.raises(ValueError, match="hinge"):
        losses.get("hinge")
