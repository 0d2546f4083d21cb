"""The trainer: its step in closed form, and what it leaves to Keras."""

import gc
import inspect
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import (
    CLASSES,
    SHAPE,
    ShapesSeen,
    conv_net,
    cross_entropy,
    drive,
    linear_net,
    linear_weights,
    logits_of,
    make_data,
    make_trainer,
    not_on,
    only_on,
    trained_net,
    weights_of,
)

import keras_epsched as ke
from keras_epsched import backend
from keras_epsched.training import first_batch

EPSILON = 8 / 255


def linear_trainer(**kwargs):
    kwargs.setdefault("attack", ke.attacks.FGSM())
    return make_trainer(linear_net(linear_weights()), **kwargs)


def mean_loss(model, images, labels):
    logits = logits_of(model, images)
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    return float(keras.ops.convert_to_numpy(losses).mean())


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def fgsm(weights, images, labels, epsilon):
    """FGSM on a linear model by NumPy: pixels and probabilities - labels."""
    flat = images.reshape(len(images), -1).astype("float64")
    one_hot = np.eye(weights.shape[1])[labels]
    error = softmax(flat @ weights) - one_hot
    moved = flat + 255 * epsilon * np.sign(error @ weights.T)
    moved = np.clip(moved, 0, 255)
    return moved, softmax(moved @ weights) - one_hot


# === The step ===


def test_one_step_in_closed_form():
    images, labels = make_data()
    weights = linear_weights()
    trainer = linear_trainer(
        epsilon=EPSILON,
        compile_with={"optimizer": keras.optimizers.SGD(1e-5)},
    )
    trainer.train_on_batch(images, labels)
    moved, error = fgsm(weights, images, labels, EPSILON)
    expected = weights - 1e-5 * moved.T @ error / len(images)
    (result,) = weights_of(trainer.model)
    change = np.abs(expected - weights).max()
    assert change > 1e-5
    np.testing.assert_allclose(result, expected, atol=1e-3 * change)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_attack_raises_the_loss_within_the_ball(mode):
    images, labels = make_data()
    model = conv_net(dropout=0, batchnorm=False)
    trainer = make_trainer(model, epsilon=EPSILON, attack_mode=mode)
    adversarial, y, weight = trainer.perturb((images, labels))
    adversarial = np.asarray(adversarial)
    clean = mean_loss(model, images, labels)
    assert mean_loss(model, adversarial, labels) > clean + 0.05
    assert np.abs(adversarial - images).max() == pytest.approx(8, abs=1e-3)
    assert adversarial.min() >= 0 and adversarial.max() <= 255
    assert y is labels and weight is None


def test_epsilon_follows_the_value_range():
    images, labels = make_data()
    trainer = linear_trainer(epsilon=EPSILON, value_range=(0, 1))
    adversarial = np.asarray(trainer.perturb((images / 255, labels))[0])
    size = np.abs(adversarial - images / 255).max()
    assert size == pytest.approx(EPSILON, abs=1e-5)


@pytest.mark.parametrize("batchnorm", [False, True])
def test_epsilon_zero_is_plain_training_to_the_last_bit(batchnorm):
    images, labels = make_data()
    plain = conv_net(batchnorm=batchnorm)
    trainer = make_trainer(conv_net(batchnorm=batchnorm))
    np.testing.assert_array_equal(trainer.perturb((images, labels))[0], images)
    plain.compile(keras.optimizers.SGD(0.05), cross_entropy())
    before = weights_of(plain)
    for _ in range(3):
        plain.train_on_batch(images, labels)
        trainer.train_on_batch(images, labels)
    after = weights_of(plain)
    assert not np.array_equal(before[0], after[0])
    # On TensorFlow the operation of BatchNorm rounds differently.
    fused = batchnorm and keras.backend.backend() == "tensorflow"
    tolerance = 1e-5 if fused else 0
    for ours, theirs in zip(weights_of(trainer.model), after, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_attack_leaves_statistics_and_seeds_alone(mode):
    trainer = make_trainer(epsilon=EPSILON, attack_mode=mode)
    model = trainer.model
    before = [np.asarray(v) for v in model.variables]
    assert len(before) > len(model.weights)  # The seed of Dropout is there.
    perturb = backend.compile(
        lambda x, y: trainer.perturb((x, y))[0], variables=trainer.variables
    )
    first = perturb(*make_data())
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable)
    # A fresh random start for every batch.
    assert np.abs(first - perturb(*make_data())).max() > 1


def test_the_attack_mode_decides_what_the_attack_sees():
    data = make_data()
    inference, training = (
        np.asarray(
            make_trainer(
                conv_net(dropout=0), epsilon=EPSILON, attack_mode=mode
            ).perturb(data)[0]
        )
        for mode in ("inference", "training")
    )
    assert np.abs(inference - training).max() > 1


def test_weights_of_images_never_reach_the_attack():
    images, labels = make_data()
    trainer = linear_trainer(epsilon=EPSILON)
    weight = np.r_[0.0, np.ones(len(images) - 1)].astype("float32")
    with_weights = trainer.perturb((images, labels, weight))
    np.testing.assert_array_equal(
        with_weights[0], trainer.perturb((images, labels))[0]
    )
    assert np.abs(with_weights[0][0] - images[0]).max() > 7.9
    assert with_weights[2] is weight
    # But the loss sees them: a weight of 0 on all stops the training.
    before = weights_of(trainer.model)
    trainer.train_on_batch(images, labels, sample_weight=0 * weight)
    np.testing.assert_array_equal(weights_of(trainer.model), before)


def test_class_weights_reach_the_loss():
    images, labels = make_data()
    trainer = linear_trainer()
    before = weights_of(trainer.model)
    nothing = dict.fromkeys(range(CLASSES), 0.0)
    trainer.fit(
        images, labels, class_weight=nothing, callbacks=drive(), verbose=0
    )
    np.testing.assert_array_equal(weights_of(trainer.model), before)


# === Precision ===


class Probe(keras.layers.Layer):
    """Passes on what it gets, and remembers it (eagerly)."""

    def call(self, inputs):
        self.seen = inputs
        return inputs


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_on_unrounded_pixels(policy):
    keras.config.set_dtype_policy(policy)
    images, labels = make_data()
    trainer = make_trainer(epsilon=EPSILON)
    scaled = isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    before = weights_of(trainer.model)[0]
    assert np.isfinite(trainer.train_on_batch(images, labels)[0])
    assert np.abs(weights_of(trainer.model)[0] - before).max() > 0

    # Half precision has steps of 1/8 and 1 at a pixel of 200.
    inputs = keras.Input(SHAPE)
    probe = Probe(dtype="float32")
    model = keras.Model(inputs, conv_net()(probe(inputs)))
    trainer = make_trainer(model, epsilon=0.1 / 255, attack=ke.attacks.FGSM())
    moved = trainer.perturb((np.full_like(images, 200.0), labels))[0]
    sizes = np.abs(np.asarray(moved) - 200)
    assert sizes.max() == pytest.approx(0.1, abs=1e-4)
    assert np.mean(sizes > 0.09) > 0.9
    trainer(moved)
    np.testing.assert_array_equal(probe.seen, moved)


def test_a_float16_backbone_alone_is_enough_for_loss_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    model = conv_net()
    keras.config.set_dtype_policy("float32")
    trainer = make_trainer(model)
    scaled = keras.optimizers.LossScaleOptimizer
    assert isinstance(trainer.optimizer, scaled)
    assert not isinstance(make_trainer().optimizer, scaled)


# === Keras' own features ===


@pytest.mark.parametrize(
    "options",
    [
        {
            "optimizer": keras.optimizers.SGD(
                0.05, gradient_accumulation_steps=2
            )
        },
        {"optimizer": keras.optimizers.SGD(0.05, use_ema=True)},
        pytest.param(
            {"steps_per_execution": 3},
            marks=[
                pytest.mark.ci,
                not_on("torch", "Keras has one step a call there"),
            ],
        ),
        pytest.param({"run_eagerly": True}, marks=pytest.mark.ci),
        pytest.param(
            {"jit_compile": True},
            marks=[
                pytest.mark.ci,
                not_on("torch", "torch.compile takes minutes"),
            ],
        ),
    ],
    ids=["accumulation", "ema", "steps", "eager", "xla"],
)
def test_options_of_compile_work(options):
    trainer = make_trainer(compile_with=_fresh(options))
    before = weights_of(trainer.model)[0]
    history = trainer.fit(
        *make_data(), batch_size=8, callbacks=drive(), verbose=0
    ).history
    assert np.isfinite(history["loss"][0])
    assert np.abs(weights_of(trainer.model)[0] - before).max() > 1e-6


def _fresh(options):
    optimizer = options.get("optimizer")
    if optimizer is None:
        return options
    return {"optimizer": type(optimizer).from_config(optimizer.get_config())}


def test_eager_and_compiled_training_agree():
    images, labels = make_data()

    def train(**options):
        trainer = make_trainer(epsilon=EPSILON, compile_with=options)
        for _ in range(3):
            trainer.train_on_batch(images, labels)
        return weights_of(trainer.model)

    eager = train(run_eagerly=True)
    for one, other in zip(eager, train(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


class Counter(keras.layers.Layer):
    """Counts how often Python runs through it."""

    count = 0

    def call(self, inputs):
        self.count += 1
        return inputs


@not_on("torch", "it runs eagerly, and traces nothing")
def test_a_whole_schedule_is_one_trace():
    def traces(epochs):
        counter = Counter()
        inputs = keras.Input(SHAPE)
        net = conv_net(batchnorm=False)
        trainer = make_trainer(keras.Model(inputs, net(counter(inputs))))
        schedule = ke.schedules.LinearWarmup(EPSILON, 1.0)
        history = trainer.fit(
            *make_data(),
            epochs=epochs,
            batch_size=12,
            callbacks=[ke.callbacks.EpsilonScheduler(schedule, "batch")],
            verbose=0,
        ).history
        assert len(set(history["epsilon"])) == epochs
        return counter.count

    assert traces(6) == traces(1) > 0


def live_arrays():
    """Number of the arrays that the backend holds."""
    gc.collect()
    name = keras.backend.backend()
    if name == "jax":
        import jax

        return len(jax.live_arrays())
    if name == "torch":
        from torch import Tensor
    else:
        from tensorflow import Tensor
    return sum(issubclass(type(each), Tensor) for each in gc.get_objects())


@pytest.mark.ci
def test_nothing_piles_up_over_two_hundred_steps():
    images, labels = make_data()
    trainer = make_trainer(validation_attack=ke.attacks.PGD(1))
    schedule = ke.schedules.TwoHinge(EPSILON)

    def steps(count):
        for step in range(count):
            trainer.epsilon = schedule(step / count)
            trainer.train_on_batch(images, labels)
            trainer.test_on_batch(images[:4], labels[:4])
        return live_arrays()

    # What earlier tests have left may go meanwhile.
    steps(5)
    few = steps(5)
    assert 0 < steps(200) <= few


@only_on("tensorflow", "elsewhere Keras makes all state before the first step")
@pytest.mark.parametrize("built", [False, True])
def test_the_step_is_traced_once(built, monkeypatch):
    traced = []
    perturb = ke.AdversarialTrainer.perturb

    def counted(self, data):
        traced.append(self)
        return perturb(self, data)

    monkeypatch.setattr(ke.AdversarialTrainer, "perturb", counted)
    images, labels = make_data()
    trainer = make_trainer(epsilon=EPSILON)
    if built:
        # As that of a trainer that was loaded.
        trainer.optimizer.build(trainer.trainable_variables)
    trainer.fit(images, labels, epochs=2, verbose=0)
    assert len(traced) == 1


_TWO_REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
sys.path[:0] = sys.argv[1], sys.argv[1] + "/training"
from networks import make_data
from test_objectives import trades_gradient
from test_trainer import EPSILON, fgsm, linear_trainer, linear_weights
import keras
import keras_epsched as ke
objective = sys.argv[2]
if objective == "trades":
    # Cross-entropy inside, whose steepest step needs no random start.
    objective = ke.training.TRADES(beta=6.0, inner_loss="attack")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    optimizer = keras.optimizers.SGD(1e-5)
    trainer = linear_trainer(
        epsilon=EPSILON,
        objective=objective,
        compile_with={"optimizer": optimizer},
    )
assert strategy.num_replicas_in_sync == 2
images, labels = make_data()
trainer.fit(images, labels, batch_size=len(images), verbose=0)
weights = linear_weights()
moved, error = fgsm(weights, images, labels, EPSILON)
gradient = moved.T @ error / len(images)
if objective != "adversarial":
    clean = images.reshape(len(images), -1).astype("float64")
    gradient = trades_gradient(
        weights, clean, moved, labels, np.ones(len(images)), 6.0
    )
expected = weights - 1e-5 * gradient
assert np.abs(expected - weights).max() > 2e-5
difference = np.abs(trainer.model.get_weights()[0] - expected).max()
print("difference", difference)
assert difference < 1e-6, difference
"""


@pytest.mark.ci
@only_on("tensorflow", "tf.distribute is TensorFlow's own")
@pytest.mark.parametrize("objective", ["adversarial", "trades"])
def test_two_replicas_do_the_step_of_one(objective):
    import pathlib
    import subprocess
    import sys

    here = pathlib.Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", _TWO_REPLICAS, str(here), objective],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "difference" in result.stdout


# === Saving ===


def test_a_loaded_trainer_continues_as_the_original(tmp_path):
    images, labels = make_data()
    trainer = make_trainer(
        attack_mode="training",
        batchnorm_momentum=0.8,
        clean_accuracy=True,
        validation_attack=ke.attacks.PGD(steps=3),
        compile_with={"optimizer": keras.optimizers.Adam(1e-3)},
    )
    trainer.fit(images, labels, callbacks=drive(), verbose=0)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")

    assert loaded.epsilon == trainer.epsilon == np.float32(EPSILON)
    assert loaded.target_epsilon == trainer.target_epsilon > 0
    for name in ("attack", "objective", "validation_attack", "attack_mode"):
        assert getattr(loaded, name) == getattr(trainer, name)
    assert loaded.attack_mode == "training" and loaded.clean_accuracy is True
    norm = next(
        layer
        for layer in loaded.model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    assert norm.momentum == 0.8
    states = loaded._seed_states()
    assert len(states) == 2
    fresh = make_trainer(attack_mode="training")._seed_states()
    for state, own, new in zip(
        states, trainer._seed_states(), fresh, strict=True
    ):
        np.testing.assert_array_equal(state, own)
        assert not np.array_equal(state, new)

    for _ in range(3):
        # Keras before 3.14 goes on with the means of the epoch.
        trainer.reset_metrics()
        loaded.reset_metrics()
        ours = trainer.train_on_batch(images, labels)
        theirs = loaded.train_on_batch(images, labels)
        np.testing.assert_array_equal(ours, theirs)
    for one, other in zip(weights_of(trainer), weights_of(loaded), strict=True):
        np.testing.assert_array_equal(one, other)


def test_frozen_batchnorm_stays_as_it_is_and_is_saved(tmp_path):
    trainer = make_trainer(freeze_batchnorm=True, epsilon=EPSILON)
    norm = next(
        layer
        for layer in trainer.model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    before = weights_of(norm)
    trainer.train_on_batch(*make_data())
    np.testing.assert_array_equal(weights_of(norm), before)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert loaded.freeze_batchnorm
    assert len(loaded.trainable_weights) == len(trainer.trainable_weights) == 4


@only_on("tensorflow", "other backends export by TensorFlow or ONNX")
def test_the_classifier_is_what_one_exports(tmp_path):
    trainer = make_trainer(epsilon=EPSILON)
    images, labels = make_data()
    trainer.train_on_batch(images, labels)
    trainer.model.export(str(tmp_path / "served"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(
        served.serve(images),
        trainer.model(images, training=False),
        rtol=1e-5,
        atol=1e-5,
    )


# === Labels, logs and checks ===


def test_all_forms_of_labels_give_the_same_attack():
    images, labels = make_data()
    one_hot = np.eye(CLASSES, dtype="float32")[labels]
    smooth = 0.9 * one_hot + 0.1 / CLASSES
    expected = linear_trainer(epsilon=EPSILON).perturb((images, labels))[0]
    for form in (labels[:, None], labels.astype("float32"), one_hot, smooth):
        moved = linear_trainer(epsilon=EPSILON).perturb((images, form))[0]
        np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("form", ["column", "one_hot", "smoothed"])
def test_all_forms_of_labels_train(form):
    images, labels = make_data()
    one_hot = np.eye(CLASSES, dtype="float32")[labels]
    y, loss = {
        "column": (labels[:, None], cross_entropy()),
        "one_hot": (
            one_hot,
            keras.losses.CategoricalCrossentropy(from_logits=True),
        ),
        "smoothed": (
            0.9 * one_hot + 0.1 / CLASSES,
            keras.losses.CategoricalCrossentropy(from_logits=True),
        ),
    }[form]
    trainer = linear_trainer(compile_with={"loss": loss})
    history = trainer.fit(images, y, callbacks=drive(), verbose=0).history
    assert np.isfinite(history["loss"][0])


def test_robust_validation_at_epsilon_zero_warns():
    images, labels = make_data()
    trainer = linear_trainer(validation_attack=ke.attacks.FGSM())
    with pytest.warns(UserWarning, match="robust_accuracy.*clean accuracy"):
        trainer.evaluate(images, labels, verbose=0)
    trainer.target_epsilon = EPSILON
    with warnings.catch_warnings():
        # Of ours; NumPy deprecates what Keras does on JAX and torch.
        warnings.simplefilter("error", UserWarning)
        trainer.evaluate(images, labels, verbose=0)


@pytest.mark.parametrize("verbose", [0, 2])
def test_fit_says_what_robust_accuracy_is_under(verbose, capsys):
    images, labels = make_data()
    attack = ke.attacks.APGD(2, loss="probability_margin")
    trainer = linear_trainer(validation_attack=attack)
    # Epsilon is still 0, its target is not.
    schedule = ke.schedules.TwoHinge(EPSILON, 0.8, 0.9)
    callbacks = [ke.callbacks.EpsilonScheduler(schedule)]

    def printed(**arguments):
        trainer.fit(
            images, labels, callbacks=callbacks, verbose=verbose, **arguments
        )
        return capsys.readouterr().out

    epsilon = ke.epsilons.format_epsilon(EPSILON)
    line = (
        "val_robust_accuracy: accuracy under APGD-2 on the probability margin, "
        f"at epsilon {epsilon}\n"
    )
    said = printed(validation_data=(images, labels))
    assert said.count(line) == bool(verbose)
    assert "val_robust_accuracy" not in printed()


def test_logs_say_what_was_measured():
    images, labels = make_data()
    attack = ke.attacks.FGSM()
    trainer = linear_trainer(
        clean_accuracy=True,
        validation_attack=attack,
        compile_with={"optimizer": keras.optimizers.SGD(1e-6)},
    )
    # Epsilon is still 0, its target is not.
    schedule = ke.schedules.TwoHinge(EPSILON, 0.8, 0.9)
    logs = trainer.fit(
        images,
        labels,
        validation_data=(images, labels),
        callbacks=[ke.callbacks.EpsilonScheduler(schedule)],
        verbose=0,
    ).history
    assert set(logs) == {
        *("loss", "accuracy", "clean_accuracy", "epsilon"),
        *("val_loss", "val_accuracy", "val_robust_accuracy"),
    }
    assert logs["epsilon"] == [0.0] and trainer.epsilon == 0
    (weights,) = weights_of(trainer.model)
    moved, _ = fgsm(weights.astype("float64"), images, labels, EPSILON)
    robust = np.mean(np.argmax(moved @ weights, -1) == labels)
    logits = images.reshape(len(images), -1) @ weights
    clean = np.mean(np.argmax(logits, -1) == labels)
    assert robust < clean
    assert logs["val_robust_accuracy"][0] == pytest.approx(robust, abs=1e-6)
    assert logs["val_accuracy"][0] == pytest.approx(clean, abs=1e-6)
    result = trainer.evaluate(images, labels, return_dict=True, verbose=0)
    assert set(result) == {"loss", "accuracy", "robust_accuracy"}
    result = trainer.train_on_batch(images, labels, return_dict=True)
    assert set(result) == {"loss", "accuracy", "clean_accuracy"}


def test_training_accuracy_is_adversarial_and_clean_accuracy_clean():
    images, labels = make_data()
    trainer = linear_trainer(
        epsilon=EPSILON,
        clean_accuracy=True,
        compile_with={"optimizer": keras.optimizers.SGD(0.0)},
    )
    weights = linear_weights()
    logs = trainer.train_on_batch(images, labels, return_dict=True)
    moved, _ = fgsm(weights, images, labels, EPSILON)
    robust = np.mean(np.argmax(moved @ weights, -1) == labels)
    logits = images.reshape(len(images), -1) @ weights
    clean = np.mean(np.argmax(logits, -1) == labels)
    assert robust < clean
    assert logs["accuracy"] == pytest.approx(robust, abs=1e-6)
    assert logs["clean_accuracy"] == pytest.approx(clean, abs=1e-6)


def test_standard_training_by_accident_warns():
    with pytest.warns(UserWarning, match="without any attack"):
        linear_trainer().fit(*make_data(), verbose=0)


def fit(images=None, labels=None, model=None, epsilon=EPSILON, **options):
    data = make_data()
    trainer = make_trainer(
        model or linear_net(linear_weights()),
        attack=ke.attacks.FGSM(),
        compile_with=options,
    )
    trainer.fit(
        data[0] if images is None else images,
        data[1] if labels is None else labels,
        callbacks=drive(epsilon),
        verbose=0,
    )


def softmax_net():
    model = linear_net(linear_weights())
    outputs = keras.layers.Softmax()(model.output)
    return keras.Model(model.inputs, outputs)


IMAGES, LABELS = make_data()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": LABELS + 1}, "between 0 and 2"),
        ({"labels": LABELS - 1}, "between 0 and 2"),
        ({"labels": LABELS + 0.5}, "whole numbers"),
        ({"labels": np.zeros((24, 3), "float32")}, "sum to 1"),
        ({"images": IMAGES + 10}, "before any normalisation"),
        ({"images": IMAGES - 128}, "before any normalisation"),
        ({"images": IMAGES * np.nan}, "NaN"),
        ({"images": IMAGES / 255}, "scaled to"),
        ({"model": softmax_net}, "softmax"),
        ({"loss": "sparse_categorical_crossentropy"}, "from_logits=True"),
        (
            {"loss": keras.losses.SparseCategoricalCrossentropy()},
            "from_logits=True",
        ),
        ({"epsilon": 8.0}, "8/255"),
    ],
)
def test_mistakes_are_named_before_the_training(arguments, message):
    arguments = dict(arguments)
    if "model" in arguments:
        arguments["model"] = arguments["model"]()
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


def test_missing_labels_are_named():
    images, _ = make_data()
    with pytest.raises(ValueError, match="need labels"):
        linear_trainer().fit(images, callbacks=drive(), verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(8)
    with pytest.raises(ValueError, match="need labels"):
        linear_trainer().fit(dataset, callbacks=drive(), verbose=0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES / 255, LABELS, "scaled to"),
        (IMAGES, LABELS + 1, "between 0 and 2"),
    ],
)
def test_validation_data_are_looked_at_too(images, labels, message):
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    for validation in ((images, labels), dataset):
        with pytest.raises(ValueError, match=message):
            linear_trainer().fit(
                *make_data(),
                validation_data=validation,
                callbacks=drive(),
                verbose=0,
            )


@only_on("tensorflow", "elsewhere arrays have a size")
def test_images_of_unknown_size_are_named():
    def unknown(images, labels):
        images = tf.py_function(tf.identity, [images], tf.float32)
        return tf.ensure_shape(images, (None, None, None, 3)), labels

    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)
    with pytest.raises(ValueError, match="ensure_shape"):
        make_trainer().fit(dataset.map(unknown), callbacks=drive(), verbose=0)


def test_pixels_that_resizing_rounded_are_in_range():
    images = np.where(IMAGES > 250, np.float32(255.0002), IMAGES)
    assert images.max() > 255
    fit(images=images)


def test_fit_takes_the_positional_arguments_of_keras():
    history = linear_trainer().fit(IMAGES, LABELS, 8, 2, 0, drive(), 0.25)
    assert len(history.history["val_loss"]) == 2


def test_fit_has_the_arguments_of_keras():
    def arguments(cls):
        parameters = inspect.signature(cls.fit).parameters.values()
        return [(each.name, each.default) for each in parameters]

    assert arguments(ke.AdversarialTrainer) == arguments(keras.Model)


def test_the_number_of_classes_is_known_before_the_first_step():
    trainer = linear_trainer()
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append(trainer.num_classes)
    )
    assert trainer.num_classes is None
    trainer.fit(*make_data(), callbacks=[*drive(), look], verbose=0)
    assert seen == [CLASSES]


def test_several_outputs_are_named_without_a_look_at_the_data():
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(inputs))
    trainer = make_trainer(keras.Model(inputs, [outputs, outputs]))
    with pytest.raises(ValueError, match="must have one output"):
        trainer.perturb(make_data())


def test_the_target_is_reached_up_to_rounding():
    trainer = linear_trainer()
    assert not trainer.at_target
    trainer.target_epsilon = EPSILON
    for share, reached in ((0.9999, False), (1 - 1e-7, True), (1.5, True)):
        trainer.epsilon = share * EPSILON
        assert trainer.at_target is reached
        assert trainer.reaches_target(share * EPSILON) is reached


def test_the_first_look_is_at_images_from_everywhere():
    images, labels = make_data(96)
    order = np.argsort(labels)
    (_, seen), _ = first_batch.check(
        linear_trainer(), images[order], labels[order]
    )
    assert len(seen) == 64 and set(seen) == {0, 1, 2}


def test_datasets_are_looked_at_too():
    images, labels = make_data()
    dataset = tf.data.Dataset.from_tensor_slices((images, labels + 1))
    with pytest.raises(ValueError, match="between 0 and 2"):
        linear_trainer().fit(dataset.batch(8), callbacks=drive(), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 8}, "8/255"),
        ({"epsilon": -0.1}, "at least 0"),
        ({"attack_mode": "train"}, "attack_mode"),
        ({"attack": "pgd"}, "must be attacks"),
        ({"validation_attack": "pgd"}, "must be attacks"),
        ({"attack": ke.attacks.Square(5)}, "evaluation only"),
        ({"objective": "trades!"}, "objective"),
        ({"value_range": (255, 0)}, "value_range"),
        ({"batchnorm_momentum": 1.5}, "batchnorm_momentum"),
        ({"model": None}, "keras.Model"),
    ],
)
def test_arguments_are_checked(arguments, message):
    arguments = {"model": conv_net(), **arguments}
    with pytest.raises(ValueError, match=message):
        ke.AdversarialTrainer(**arguments)


# === BatchNorm ===


def test_the_monitor_logs_both_modes():
    logs = make_trainer().fit(*make_data(), callbacks=drive(), verbose=0)
    for mode in ("inference", "training"):
        assert logs.history[f"adversarial_loss_{mode}"][0] > 0


@pytest.mark.parametrize(
    "epochs, stale_until, warned",
    [
        pytest.param(1, 9, 1, marks=pytest.mark.ci),
        (4, 9, 3),
        pytest.param(4, 2, None, marks=pytest.mark.ci),
    ],
)
def test_the_monitor_warns_of_stale_statistics(epochs, stale_until, warned):
    model = conv_net()
    (layer,) = (
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    layer.momentum = 1.0  # the moving mean is what the test makes it
    fresh = layer.moving_mean.numpy()
    stale = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: layer.moving_mean.assign(
            fresh - (200.0 if epoch < stale_until else 0.0)
        )
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(model).fit(
            *make_data(),
            epochs=epochs,
            callbacks=[*drive(), stale],
            verbose=0,
        )
    said = [str(each.message) for each in caught if "moving" in str(each)]
    if warned is None:
        assert not said
    else:
        (text,) = said
        assert text.startswith(f"Epoch {warned}:")
        assert "batchnorm_momentum=0.9" in text


@pytest.mark.parametrize("frozen", [False, True])
def test_without_adapting_batchnorm_there_is_no_monitor(frozen):
    trainer = make_trainer(conv_net(batchnorm=frozen), freeze_batchnorm=frozen)
    logs = trainer.fit(*make_data(), callbacks=drive(), verbose=0).history
    assert set(logs) == {"loss", "accuracy", "epsilon"}


@pytest.mark.parametrize(
    "jit_compile", ["auto", pytest.param(True, marks=pytest.mark.ci)]
)
def test_a_smaller_last_batch_compiles_no_attack(jit_compile):
    if jit_compile is True and keras.backend.backend() == "torch":
        pytest.skip("torch.compile takes minutes")
    attack = ShapesSeen(2)
    trainer = make_trainer(
        trained_net(),
        compile_with={"jit_compile": jit_compile},
        validation_attack=attack,
    )
    images, labels = make_data(11, seed=5)

    def fit():
        return trainer.fit(
            *make_data(8),
            batch_size=8,
            validation_data=(images, labels),
            validation_batch_size=4,
            callbacks=drive(4 / 255),
            verbose=0,
        ).history

    fit()
    # TensorFlow's own compiler takes any size.
    assert len(attack.seen) == 1 or attack.seen == [4, 4, 3]
    logs = fit()
    assert len(attack.seen) == 1 or attack.seen == 2 * [4, 4, 3]
    whole = trainer.evaluate(
        images, labels, batch_size=11, return_dict=True, verbose=0
    )
    for name, value in whole.items():
        assert logs[f"val_{name}"][0] == pytest.approx(value, rel=1e-5)
    assert 0 < whole["robust_accuracy"] < 1
    # Batches are filled up to those of the same validation.
    attack.seen.clear()
    trainer.evaluate(images, labels, batch_size=2, verbose=0)
    assert max(attack.seen, default=0) <= 2


@pytest.mark.ci
def test_steps_of_validation_that_are_executed_together():
    if keras.backend.backend() == "torch":
        pytest.skip("Keras has one step a call there")
    images, labels = make_data(11, seed=5)
    results = []
    for together in (1, 2):
        trainer = make_trainer(
            conv_net(dropout=0, batchnorm=False),
            compile_with={
                "jit_compile": True,
                "steps_per_execution": together,
            },
            epsilon=EPSILON,
            validation_attack=ShapesSeen(2),
        )
        results.append(
            trainer.evaluate(
                images, labels, batch_size=4, return_dict=True, verbose=0
            )
        )
    assert results[0] == results[1]
