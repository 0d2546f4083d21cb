"""The sweep against closed forms, and its refusals and warnings."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops
from networks import (
    SHAPE,
    conv_net,
    drive,
    linear_net,
    linear_weights,
    logits_of,
    make_data,
    make_trainer,
    trained_net,
    whenever_it_runs,
)

import keras_epsched as ke
from keras_epsched.datasets import SplitInfo

GRID = ke.epsilon_grid(8 / 255)
ORDER = {"linf": 1, "l2": 2}


def evaluate(model, data, epsilons=GRID, attack=None, **kwargs):
    return ke.evaluate(
        model,
        data,
        epsilons,
        ke.attacks.FGSM() if attack is None else attack,
        verbose=0,
        **kwargs,
    )


def binary_case(norm="linf", count=41):
    """A linear model of two classes, data, a grid, and the right answer.

    Pixels stay 10 away from 0 and 255, so the box never matters: an image
    breaks where the radius exceeds its margin over the dual norm.
    """
    rng = np.random.default_rng(5)
    weights = np.zeros((192, 2))
    weights[:, 0] = rng.normal(0, 1e-3, 192)
    dual = np.abs(weights[:, 0]).sum() if norm == "linf" else None
    dual = dual or np.linalg.norm(weights[:, 0])
    grid = GRID if norm == "linf" else np.linspace(0, 0.3, 7)
    # Critical radii in the middle between points of the grid, and beyond.
    wanted = (rng.integers(0, len(grid) + 2, count) + 0.5) * grid[1]
    labels = rng.integers(0, 2, count)
    images = rng.uniform(100, 155, (count, 192))
    sign = np.where(labels == 0, 1.0, -1.0)
    wrong = np.arange(count) % 10 == 0
    margin = np.where(wrong, -1.0, 1.0) * sign * wanted * 255 * dual
    along = weights[:, 0] / (weights[:, 0] @ weights[:, 0])
    images += np.outer(margin - images @ weights[:, 0], along)
    assert images.min() > 10 and images.max() < 245
    correct = (wanted[:, None] > grid) & ~wrong[:, None]
    data = images.reshape(-1, *SHAPE).astype("float32"), labels
    return linear_net(weights), data, grid, correct


@pytest.mark.parametrize("protocol", ["nested", "independent"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_models_have_a_closed_form(norm, protocol):
    model, data, grid, correct = binary_case(norm)
    # 41 images in batches of 16: the last ones must count too.
    report = evaluate(
        model,
        data,
        grid,
        ke.attacks.FGSM(norm),
        protocol=protocol,
        batch_size=16,
    )
    np.testing.assert_array_equal(report.correct, correct)
    np.testing.assert_array_equal(report.labels, data[1])
    assert report.num_images == 41
    accuracy = correct.mean(0)
    assert 0 < accuracy[-1] < accuracy[1] <= accuracy[0] < 1
    np.testing.assert_allclose(report.accuracy, accuracy)
    trapezoids = np.trapezoid(accuracy, grid) / grid[-1]
    assert report.expected_robustness() == pytest.approx(trapezoids)
    assert abs(accuracy.mean() - trapezoids) > 1e-3  # Not merely the mean.


def test_the_default_attack_finds_the_optimum_of_a_linear_model():
    model, data, grid, correct = binary_case()
    report = evaluate(model, data, grid, ke.attacks.APGD(steps=10))
    np.testing.assert_array_equal(report.correct, correct)


@pytest.fixture(scope="module")
def trained():
    return trained_net()


PGD = ke.attacks.PGD(steps=4)
FINE = np.linspace(0, 40 / 255, 5)


def test_nested_is_at_least_as_strong(trained):
    data = make_data(50, seed=4)
    nested = evaluate(trained, data, FINE, PGD)
    independent = evaluate(trained, data, FINE, PGD, protocol="independent")
    assert nested.protocol == "nested"
    assert independent.protocol == "independent"
    assert nested.clean_accuracy == independent.clean_accuracy > 0.8
    assert nested.accuracy[-1] < nested.clean_accuracy - 0.2
    assert np.all(np.diff(nested.accuracy) <= 0)
    assert np.all(nested.accuracy <= independent.accuracy + 0.041)
    assert nested.backward_passes < independent.backward_passes


@pytest.mark.parametrize("protocol", ["nested", "independent"])
def test_batches_do_not_change_the_result(trained, protocol):
    data = make_data(50, seed=4)
    reports = [
        evaluate(trained, data, FINE, PGD, protocol=protocol, batch_size=size)
        for size in (7, 50, 64)
    ]
    for report in reports[1:]:
        np.testing.assert_array_equal(report.correct, reports[0].correct)
        assert report.backward_passes == reports[0].backward_passes


def test_datasets_and_arrays_are_evaluated_alike(trained):
    images, labels = make_data(50, seed=4)
    dataset = [
        (images[at : at + 16], labels[at : at + 16]) for at in range(0, 50, 16)
    ]
    first = evaluate(trained, dataset, FINE, PGD)
    second = evaluate(trained, (images, labels[:, None]), FINE, PGD)
    assert first.num_images == 50
    np.testing.assert_array_equal(first.correct, second.correct)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_the_seed_matters_and_only_the_seed(trained):
    data = make_data(50, seed=4)
    attack = ke.attacks.PGD(steps=1, step_ratio=1e-3)

    def correct(seed):
        report = evaluate(trained, data, [200 / 255], attack, seed=seed)
        return report.correct

    np.testing.assert_array_equal(correct(0), correct(0))
    assert not np.array_equal(correct(0), correct(1))


def test_the_classifier_is_left_as_it_was():
    model = conv_net()
    before = [np.asarray(each) for each in model.variables]
    evaluate(model, make_data(), FINE)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable)


def test_xla_gives_the_same_result():
    model, data, grid, correct = binary_case()
    report = evaluate(model, data, grid, jit_compile=True)
    np.testing.assert_array_equal(report.correct, correct)


def test_zero_is_added_to_the_grid():
    model, data, grid, correct = binary_case()
    report = evaluate(model, data, grid[1:])
    assert report.epsilons[0] == 0
    np.testing.assert_array_equal(report.correct, correct)


def test_reports_are_saved_and_loaded(tmp_path):
    model, data, grid, _ = binary_case()
    report = evaluate(model, data, grid, ke.attacks.APGD(steps=2), seed=5)
    assert report.seed == 5 and report.model_name == "linear_net"
    report.save(tmp_path / "run")
    loaded = ke.Report.load(tmp_path / "run")
    assert loaded == report
    attack = keras.saving.deserialize_keras_object(loaded.attack)
    assert attack == ke.attacks.APGD(steps=2)


# === Costs ===


class Meter(keras.layers.Layer):
    """Counts the images that really run through the compiled model."""

    def __init__(self):
        super().__init__()
        self.counts = []

    def _add(self, count):
        # Appending is safe when TensorFlow calls from several threads.
        self.counts.append(int(count))

    def call(self, inputs):
        whenever_it_runs(self._add, ops.shape(inputs)[0])
        return inputs


@pytest.mark.parametrize("protocol", ["nested", "independent"])
@pytest.mark.parametrize(
    "attack",
    [ke.attacks.FGSM(), ke.attacks.PGD(steps=3), ke.attacks.APGD(steps=4)],
    ids=["fgsm", "pgd", "apgd"],
)
def test_passes_are_those_that_ran(attack, protocol):
    images, _ = make_data(16)
    net = linear_net(linear_weights())
    meter = Meter()
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, net(meter(inputs)))
    labels = np.argmax(logits_of(net, images), -1)
    # Too small to break anything, so that no slot stays empty.
    grid = np.array([0, 1, 2, 3]) * 1e-7
    meter.counts.clear()
    report = evaluate(
        model,
        (images, labels),
        grid,
        attack,
        protocol=protocol,
        bisect=False,
        batch_size=8,
        jit_compile=False,
    )
    assert report.accuracy.min() == 1
    forward, backward = attack.passes(3)
    assert report.forward_passes == sum(meter.counts) == 16 + 48 * forward
    assert report.backward_passes == 48 * backward
    assert report.naive_forward_passes == report.forward_passes


def test_broken_images_cost_nothing_more():
    model, data, grid, correct = binary_case()
    report = evaluate(model, data, grid, bisect=False)
    # An attack for every radius survived, and the one that broke the image.
    attacks = np.minimum(correct.sum(1), len(grid) - 1)[correct[:, 0]].sum()
    assert report.backward_passes == attacks
    assert report.forward_passes == 41 + 2 * attacks
    assert report.naive_backward_passes == correct[:, 0].sum() * 8


# === Splits ===


class Fake:
    """Batches that know which split they are."""

    def __init__(self, start=0, stop=24, count=24, **kwargs):
        self.data = make_data(count)
        values = {"dataset": "fake/1.0.0", "base": "test", **kwargs}
        self.split_info = SplitInfo(
            split=values["base"],
            start=start,
            stop=stop,
            num_examples=stop - start,
            **values,
        )

    def __iter__(self):
        images, labels = self.data
        for at in range(0, len(images), 10):
            yield images[at : at + 10], labels[at : at + 10]


def test_the_report_names_the_split():
    report = evaluate(linear_net(linear_weights()), Fake())
    assert report.dataset["dataset"] == "fake/1.0.0"
    assert report.dataset["num_examples"] == report.num_images == 24


def test_a_part_of_the_split_is_reported():
    with pytest.warns(UserWarning, match="25 images.*had 24"):
        report = evaluate(linear_net(linear_weights()), Fake(stop=25))
    assert "had 24" in str(report)


def test_an_empty_dataset_is_named():
    with pytest.raises(ValueError, match="no images"):
        evaluate(linear_net(linear_weights()), [])


def test_labels_of_a_pair_may_be_a_list():
    images, labels = Fake().data
    model = linear_net(linear_weights())
    assert evaluate(model, (images, list(labels))).num_images == len(images)


def test_a_dark_batch_is_no_wrong_scale_among_bright_ones():
    images, labels = Fake().data
    dark = np.full_like(images[:2], 0.5)
    dark[0] = 0.0
    batches = [(images, labels), (dark, labels[:2])]
    model = linear_net(linear_weights())
    for order in (batches, batches[::-1]):
        assert evaluate(model, order).num_images == len(images) + 2
    with pytest.raises(ValueError, match="scaled to"):
        evaluate(model, batches[1:])


def test_an_overlap_with_the_training_warns():
    model = linear_net(linear_weights())
    seen = Fake(20, 30, count=10).split_info
    with pytest.warns(UserWarning, match=r"test\[20:30\].*overlaps"):
        report = evaluate(model, Fake(), trained_on=[seen])
    assert any("overlaps" in note for note in report.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for other in (Fake(24, 48), Fake(base="train"), Fake(dataset="b")):
            evaluate(model, Fake(), trained_on=[other.split_info])


def test_the_trainer_remembers_its_split():
    trainer = make_trainer(
        linear_net(linear_weights()), attack=ke.attacks.FGSM()
    )

    class Train(keras.utils.PyDataset):
        split_info = Fake(0, 24).split_info

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return make_data()

    train = Train()
    trainer.fit(train, callbacks=drive(), verbose=0)
    with pytest.warns(UserWarning, match="overlaps"):
        evaluate(trainer.model, Fake())


# === Planted failures ===


def planted(function):
    """A linear model behind something that gradients do not survive."""
    inputs = keras.Input(SHAPE)
    net = linear_net(linear_weights())
    x = keras.layers.Lambda(function, output_shape=SHAPE)(inputs)
    return keras.Model(inputs, net(x))


def labelled(model):
    """Data that the model classifies correctly."""
    images, _ = make_data()
    return images, np.argmax(logits_of(model, images), -1)


def test_a_gradient_of_zero_is_reported():
    model = planted(lambda x: ops.stop_gradient(x) + 0.0 * x)
    with pytest.warns(UserWarning, match="no gradient on 24 of 24"):
        report = evaluate(model, labelled(model))
    assert report.zero_gradient_images == 24
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sound = linear_net(linear_weights())
        assert evaluate(sound, labelled(sound)).zero_gradient_images == 0


def test_a_detached_model_is_refused():
    model = planted(ops.stop_gradient)
    with pytest.raises(ValueError, match="differentiable"):
        evaluate(model, labelled(model))


def test_probabilities_are_refused():
    net = linear_net(linear_weights())
    model = keras.Model(net.inputs, keras.layers.Softmax()(net.output))
    with pytest.raises(ValueError, match="softmax"):
        evaluate(model, make_data())


def test_a_trainer_is_refused():
    with pytest.raises(ValueError, match="trainer.model"):
        evaluate(make_trainer(), make_data())


IMAGES, LABELS = make_data()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilons": []}, "at least one value"),
        ({"epsilons": [0.0]}, "at least one value"),
        ({"epsilons": [0.02, 0.01]}, "ascending"),
        ({"epsilons": [0.01, 0.01]}, "ascending"),
        ({"epsilons": [-0.01, 0.01]}, "at least 0"),
        ({"epsilons": [0, 4, 8]}, "4/255"),
        ({"protocol": "both"}, "protocol"),
        ({"value_range": (1, 0)}, "value_range"),
        ({"data": (IMAGES, LABELS[:-1])}, "as many labels"),
        ({"data": (IMAGES, LABELS + 1)}, "between 0 and 2"),
        ({"data": (IMAGES / 255, LABELS)}, "scaled to"),
        ({"data": (IMAGES + 20, LABELS)}, "before any normalisation"),
        ({"data": [IMAGES]}, r"must yield batches \(images, labels\)"),
    ],
)
def test_mistakes_are_named(arguments, message):
    arguments = {"data": (IMAGES, LABELS), **arguments}
    with pytest.raises(ValueError, match=message):
        evaluate(linear_net(linear_weights()), **arguments)


def test_attacks_that_need_images_say_so_at_once():
    rng = np.random.default_rng(0)
    inputs = keras.Input((6,))
    flat = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    data = rng.uniform(0, 255, (9, 6)).astype("float32"), np.arange(9) % 3
    attack = ke.attacks.AutoAttack()
    with pytest.raises(ValueError, match=r"`Square` needs images of shape"):
        evaluate(flat, data, FINE, attack)
