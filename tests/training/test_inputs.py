"""What users hand over: right, or refused in a sentence.

The same for `fit` and for `evaluate`, whatever the data come in.
"""

import functools
import sys
import types

import keras
import numpy as np
import pytest
from networks import (
    SHAPE,
    conv_net,
    cross_entropy,
    drive,
    linear_net,
    linear_weights,
    make_data,
    make_trainer,
)

import keras_epsched as ke
from keras_epsched import batches, checks
from keras_epsched.training import first_batch

IMAGES, LABELS = make_data()
GRID = [4 / 255]


def train(x, y=None, model=None, loss=None, **kwargs):
    compile_with = {} if loss is None else {"loss": loss}
    trainer = make_trainer(model or linear(), compile_with)
    kwargs.setdefault("callbacks", drive())
    return trainer.fit(x, y, verbose=0, **kwargs)


def evaluate(x, y=None, model=None, **kwargs):
    return ke.evaluate(
        model or linear(),
        x if y is None else (x, y),
        GRID,
        ke.attacks.FGSM(),
        self_check=False,
        verbose=0,
        **kwargs,
    )


def linear():
    return linear_net(linear_weights())


# === Every kind of data ===


class Batches(keras.utils.PyDataset):
    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images) // 8

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return self.images[part], self.labels[part]


def generator(images, labels):
    for at in range(0, len(images), 8):
        yield images[at : at + 8], labels[at : at + 8]


def tf_dataset(images, labels):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


def torch_loader(images, labels):
    torch = pytest.importorskip("torch")
    tensors = torch.from_numpy(images), torch.from_numpy(labels)
    dataset = torch.utils.data.TensorDataset(*tensors)
    return torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)


KINDS = [Batches, generator, tf_dataset, torch_loader]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES / 255, LABELS, "scaled to"),
        (IMAGES - 128, LABELS, "before any normalisation"),
        # Each label is wrong: one kind is shuffled, one batch is looked at.
        (IMAGES, LABELS + 3, "between 0 and 2"),
    ],
)
def test_any_kind_of_data_is_looked_at(kind, images, labels, message):
    with pytest.raises(ValueError, match=message):
        train(kind(images, labels))
    with pytest.raises(ValueError, match=message):
        evaluate(kind(images, labels))
    with pytest.raises(ValueError, match=message):
        train(IMAGES, LABELS, validation_data=kind(images, labels))


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_loses_nothing(kind):
    (images, labels), data = batches.look(kind(IMAGES, LABELS))
    assert images.shape == (8, *SHAPE) and labels.shape == (8,)
    found = np.concatenate([labels for _, labels in batches.until_end(data)])
    assert sorted(found) == sorted(LABELS)
    # Keras asks a generator for its type.
    assert isinstance(data, types.GeneratorType) == (kind is generator)


def test_a_generator_trains_on_all_its_batches():
    seen = []

    def noted():
        for images, labels in generator(IMAGES, LABELS):
            seen.append(len(images))
            yield images, labels

    history = train(noted(), validation_data=generator(IMAGES, LABELS))
    assert seen == [8, 8, 8]
    assert len(history.history["val_loss"]) == 1
    other = train(Batches(IMAGES, LABELS), shuffle=False)
    assert history.history["loss"] == pytest.approx(other.history["loss"])


def test_a_look_at_a_loader_draws_nothing():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    batches.look(torch_loader(IMAGES, LABELS))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


WRONG = {
    "no labels": (lambda: [IMAGES[:8]], "need labels"),
    "not batched": (lambda: [(IMAGES[0], LABELS[0])], "batch it"),
    "several inputs": (
        lambda: [({"a": IMAGES, "b": IMAGES}, LABELS)],
        r"keys \['a', 'b'\]",
    ),
    "a list of inputs": (lambda: [([IMAGES, IMAGES], LABELS)], "2 arrays"),
    "several outputs": (lambda: [(IMAGES, [LABELS, LABELS])], "2 arrays"),
    "a dict of labels": (lambda: [(IMAGES, {"y": LABELS})], "one array"),
    "words": (lambda: [(IMAGES, LABELS.astype(str))], "return_inverse"),
    "objects": (lambda: [(IMAGES, LABELS.astype(object))], "numbers"),
    "images of words": (lambda: [(IMAGES.astype(str), LABELS)], "numbers"),
    "fewer labels": (lambda: [(IMAGES, LABELS[:5])], "as many labels"),
    "nothing": (lambda: [], "no images|empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_batch_is_refused(name):
    data, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        train(batch for batch in data())
    with pytest.raises(ValueError, match=message):
        evaluate(batch for batch in data())


def test_data_of_no_kind_are_refused():
    with pytest.raises(ValueError, match="Received: int"):
        train(5)
    with pytest.raises(ValueError, match="only images"):
        train(IMAGES)
    with pytest.raises(ValueError, match="Received: function"):
        evaluate(lambda: None)
    half = IMAGES[:12], LABELS[:12]
    # Of Keras these would be two inputs.
    with pytest.raises(ValueError, match="two arguments.*or pass a dataset"):
        train([half, half])
    for wrong in ([half], [half, half], [IMAGES]):
        with pytest.raises(
            ValueError, match="`validation_data` must be a pair"
        ):
            train(IMAGES, LABELS, validation_data=wrong)
    trainer = make_trainer()
    for wrong, message in (
        (None, "Received: NoneType"),
        ([(IMAGES / 255, LABELS)], "0 to 1|pixels"),
        ([(np.nan * IMAGES, LABELS)], "finite|NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            ke.training.reestimate_batchnorm(trainer, wrong)
    trainer.evaluate(IMAGES, LABELS, verbose=0)
    with pytest.raises(ValueError, match="labels"):
        ke.training.reestimate_batchnorm(trainer, [(IMAGES, LABELS + 7)])
    with pytest.raises(ValueError, match="must be an `AdversarialTrainer`"):
        ke.training.reestimate_batchnorm(trainer.model, [half])


# === Data without an end ===


class Endless(Batches):
    """Begins again and again, as `repeat()` does."""

    def __iter__(self):
        while True:
            yield from generator(self.images, self.labels)


def test_data_without_an_end_are_refused():
    endless = tf_dataset(IMAGES, LABELS).repeat()
    with pytest.raises(ValueError, match="must have an end"):
        evaluate(endless)
    again = Endless(IMAGES, LABELS)
    with pytest.raises(ValueError, match="repeats after 3 batches"):
        evaluate(again)
    trainer = make_trainer()
    before = trainer.model.get_weights()
    for data in (endless, again):
        with pytest.raises(ValueError, match="must have an end"):
            ke.training.reestimate_batchnorm(trainer, data)
    for old, new in zip(before, trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    def small():
        while True:
            for at in range(0, 24, 3):
                yield IMAGES[at : at + 3], LABELS[at : at + 3]

    with pytest.raises(ValueError, match="repeats after 8 batches"):
        evaluate(small())
    # The same image twice is no new beginning.
    twice = [(IMAGES[:1], LABELS[:1])] * 2
    assert evaluate(each for each in twice).num_images == 2
    # One pass of it is as good as any other dataset.
    report = evaluate(endless.take(3))
    assert report.num_images == 24


# === Outputs ===


def with_outputs(make):
    inputs = keras.Input(SHAPE)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, make(logits))


OUTPUTS = {
    "two": (lambda x: [x, keras.layers.Dense(2)(x)], r"outputs\[0\]"),
    "a dict of one": (lambda x: {"y": x}, r"output\['y'\]"),
    "a softmax": (keras.layers.Softmax(), "softmax"),
    "sigmoids": (keras.layers.Activation("sigmoid"), "sigmoids"),
    "a hard sigmoid": (keras.layers.Activation("hard_sigmoid"), "sigmoids"),
    "sigmoids of a Sequential": (
        keras.Sequential([keras.layers.Dense(3, activation="sigmoid")]),
        "sigmoids",
    ),
    "sigmoids, and a layer that changes nothing": (
        lambda x: keras.layers.Activation("linear", dtype="float32")(
            keras.layers.Dropout(0.1)(keras.layers.Activation("sigmoid")(x))
        ),
        "sigmoids",
    ),
    "one logit": (keras.layers.Dense(1), "two logits"),
    "a map": (keras.layers.Reshape((1, 3)), "shape"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_are_no_logits_are_refused(name):
    make, message = OUTPUTS[name]
    model = with_outputs(make)
    with pytest.raises(ValueError, match=message):
        evaluate(IMAGES, LABELS, model)
    with pytest.raises(ValueError, match=message):
        train(IMAGES, LABELS, model)


def test_probabilities_in_low_precision_are_refused():
    policy = keras.config.dtype_policy()
    for name in ("mixed_bfloat16", "mixed_float16"):
        keras.config.set_dtype_policy(name)
        try:
            model = with_outputs(keras.layers.Softmax())
        finally:
            keras.config.set_dtype_policy(policy)
        with pytest.raises(ValueError, match="softmax"):
            evaluate(IMAGES, LABELS, model)


@pytest.mark.parametrize(
    "logits",
    [
        # A head that begins at zero, and few small logits.
        np.zeros((64, 10)),
        [[0.2, 0.7, 0.3]],
        [[0.2, 1.1], [0.3, 0.4]],
        np.linspace(-0.01, 1, 40).reshape(20, 2),
        # Of a new head with few classes.
        np.linspace(0.1, 0.9, 60).reshape(20, 3),
    ],
)
def test_small_logits_are_logits(logits):
    checks.check_logits(logits)


# === Losses ===

_SPARSE = keras.losses.sparse_categorical_crossentropy
_ONE_HOT = np.eye(3, dtype="float32")[LABELS]
PROBABILITIES = {
    "a list": [keras.losses.SparseCategoricalCrossentropy()],
    "a partial": functools.partial(_SPARSE, from_logits=False),
    "a lambda": lambda y, p: _SPARSE(y, p),
    "a function": _SPARSE,
    "a name": "sparse_categorical_crossentropy",
}
ONE_HOT_PROBABILITIES = [
    "categorical_crossentropy",
    "kl_divergence",
    "binary_crossentropy",
    "poisson",
    "dice",
    keras.losses.Tversky(name="tversky"),
    keras.losses.CategoricalFocalCrossentropy(name="focal"),
    keras.losses.BinaryFocalCrossentropy(name="binary_focal"),
]


def name_of(loss):
    return getattr(loss, "name", getattr(loss, "__name__", loss))


def dice(labels, logits):
    """Of logits, though it has the name of a loss of probabilities."""
    return keras.losses.dice(labels, keras.ops.softmax(logits))


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_loss_of_probabilities_is_refused(name):
    with pytest.raises(ValueError, match="logits"):
        train(IMAGES, LABELS, loss=PROBABILITIES[name])


@pytest.mark.parametrize("loss", ONE_HOT_PROBABILITIES, ids=name_of)
def test_a_loss_of_probabilities_is_refused_with_one_hot_labels(loss):
    with pytest.raises(ValueError, match="logits"):
        train(IMAGES, _ONE_HOT, loss=loss)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1),
        pytest.param(
            keras.losses.CategoricalFocalCrossentropy(from_logits=True),
            marks=pytest.mark.ci,
        ),
        pytest.param(
            keras.losses.BinaryCrossentropy(from_logits=True),
            marks=pytest.mark.ci,
        ),
        "categorical_hinge",
        pytest.param("mean_squared_error", marks=pytest.mark.ci),
        pytest.param(
            keras.losses.CosineSimilarity(name="cosine"), marks=pytest.mark.ci
        ),
        dice,
        ke.training.SmoothedCrossentropy(0.1),
    ],
    ids=name_of,
)
def test_a_loss_of_logits_is_taken(loss):
    labels = _ONE_HOT
    if isinstance(loss, ke.training.SmoothedCrossentropy):
        labels = LABELS
    history = train(IMAGES, labels, loss=loss)
    assert np.isfinite(history.history["loss"]).all()


def test_a_loss_by_the_name_of_the_output_is_taken():
    model = linear()
    (name,) = model.output_names
    history = train(
        IMAGES, LABELS, model, {name: cross_entropy()}, shuffle=False
    )
    other = train(IMAGES, LABELS, linear(), cross_entropy(), shuffle=False)
    assert history.history["loss"] == pytest.approx(other.history["loss"])
    wrong = {name: keras.losses.SparseCategoricalCrossentropy()}
    with pytest.raises(ValueError, match="logits"):
        train(IMAGES, LABELS, model, wrong)


# === KerasHub tasks ===


def make_task(preprocessor=True, size=(16, 16)):
    """A tiny task that normalises outside of its graph."""
    keras_hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(*size, 3),
    )
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=size, scale=1 / 64, offset=-1.5
    )
    return keras_hub.models.ResNetImageClassifier(
        backbone=backbone,
        num_classes=3,
        preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(
            image_converter=converter
        )
        if preprocessor
        else None,
    )


def test_a_task_that_normalises_outside_is_refused():
    task = make_task()
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3))
    labels = task.predict(images, verbose=0).argmax(-1)
    nested = keras.Sequential([keras.Input((16, 16, 3)), task])
    for model in (task, nested):
        for call in (evaluate, train):
            with pytest.raises(ValueError, match="16 x 16.*classifier.task."):
                call(images, labels, model)
    # What the message says to do.
    net = ke.models.classifier(task)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(net(images)),
        task.predict(images, verbose=0),
        atol=1e-4,
    )
    assert evaluate(images, labels, net).clean_accuracy == 1.0
    task.preprocessor = None
    evaluate(images, labels, task)


def test_a_new_head_in_place_of_one_of_the_same_size_is_told():
    task = make_task()
    with pytest.warns(UserWarning, match="has 3 classes already"):
        ke.models.classifier(task, 3)


# === Shapes and numbers ===


def channels_first(model):
    inputs = keras.Input((3, 8, 8))
    return keras.Model(inputs, model(keras.layers.Permute((2, 3, 1))(inputs)))


def test_square_refuses_channels_first():
    net = channels_first(conv_net())
    images = np.moveaxis(IMAGES, -1, 1)
    attack = ke.attacks.Square(queries=5)
    for each in (attack, ke.attacks.AttackEnsemble([attack])):
        with pytest.raises(ValueError, match="channels first.*Permute"):
            ke.evaluate(net, (images, LABELS), GRID, each, verbose=0)
    # The way out that it names has the same answer.
    wrapped = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Permute((3, 1, 2)), net]
    )
    found, expected = (
        ke.evaluate(each, (IMAGES, LABELS), GRID, attack, verbose=0).correct
        for each in (wrapped, conv_net())
    )
    np.testing.assert_array_equal(found, expected)
    # The self-check without gradients says so, and the others run.
    report = ke.evaluate(net, (images, LABELS), GRID, verbose=0)
    messages = {each["name"]: each["message"] for each in report.checks}
    assert "channels first" in messages["attack without gradients"]


def test_numbers_of_numpy_are_numbers(tmp_path):
    attack = ke.attacks.APGD(np.int64(3), restarts=np.int32(2))
    assert attack == ke.attacks.APGD(3, restarts=2)
    assert type(attack.steps) is int
    targets = ke.attacks.TargetedAPGD(np.uint8(3), targets=LABELS.max() + 1)
    config = keras.saving.serialize_keras_object(targets)
    assert keras.saving.deserialize_keras_object(config) == targets
    for wrong in (2.5, np.float32(3), np.bool_(True), True, "3", 0):
        with pytest.raises(ValueError, match="positive integer"):
            ke.attacks.PGD(steps=wrong)
    net = ke.models.classifier(
        "resnet_letters",
        LABELS.max() + 1,
        image_size=(np.int64(16), np.int64(16)),
        seed=np.int64(0),
    )
    assert net.output_shape == (None, 3)
    with pytest.raises(ValueError, match="an integer of at least 2"):
        ke.models.classifier("resnet_letters", 2.5)
    for resume in (False, True):
        evaluate(
            IMAGES,
            LABELS,
            batch_size=np.int64(8),
            seed=np.int64(1),
            folder=tmp_path / "evaluation",
            resume=resume,
            value_range=np.array([0, 255]),
        )
    for wrong in (None, "1", 1.5, 2**63):
        with pytest.raises(ValueError, match="`seed` must be a 64-bit integer"):
            evaluate(IMAGES, LABELS, seed=wrong)
    for wrong in (3, (0.0, 2.0), (2, 2)):
        with pytest.raises(ValueError, match="`shard` must be a pair"):
            evaluate(IMAGES, LABELS, shard=wrong)
    trainer = ke.AdversarialTrainer(net, seed=np.int64(5))
    assert trainer.get_config()["seed"] == 5
    data = ke.datasets.load(
        "digits",
        image_size=(np.int32(8), np.int32(8)),
        batch_size=np.int64(16),
        test_examples=np.int64(40),
        split_seed=np.int64(0),
        seed=np.int64(0),
    )
    assert data.test.split_info.num_examples == 40


# === What the layers add to the loss ===


class AddsLoss(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(0.1 * keras.ops.mean(inputs**2))
        return inputs


@pytest.mark.parametrize(
    "layer",
    [
        "activity_regularizer",
        pytest.param("add_loss", marks=pytest.mark.ci),
    ],
)
@pytest.mark.parametrize(
    "objective",
    [
        "mixed",
        *(
            pytest.param(o, marks=pytest.mark.ci)
            for o in ("trades", "mart", "alp")
        ),
    ],
)
def test_losses_on_activities_count_once(objective, layer):
    def net(strength):
        keras.utils.set_random_seed(0)
        inputs = keras.Input(SHAPE)
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        penalty = keras.regularizers.L2(strength)
        if layer == "add_loss":
            x = AddsLoss()(x) if strength else x
            penalty = None
        x = keras.layers.Dense(
            8,
            activity_regularizer=penalty,
            kernel_regularizer=keras.regularizers.L2(0.01),
        )(x)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    added = []
    for each in ("adversarial", objective):
        losses = []
        for strength in (0.0, 0.1):
            trainer = make_trainer(
                net(strength),
                {
                    "optimizer": keras.optimizers.SGD(0.0),
                    # Of compiled steps one objective tells enough.
                    "run_eagerly": objective != "mixed",
                },
                objective=each,
                epsilon=0.0,
            )
            losses.append(float(trainer.train_on_batch(IMAGES, LABELS)[0]))
        added.append(losses[1] - losses[0])
    assert added[0] > 0.01
    # On clean images both views are the same, and so is what they add.
    assert added[1] == pytest.approx(added[0], rel=1e-3)


# === What is known from before ===


@pytest.mark.parametrize(
    "name",
    [
        "EarlyStopping",
        pytest.param("ReduceLROnPlateau", marks=pytest.mark.ci),
    ],
)
def test_callbacks_know_which_way_robust_accuracy_is_better(name):
    trainer = make_trainer(
        validation_attack=ke.attacks.FGSM(), clean_accuracy=True
    )
    callback = getattr(keras.callbacks, name)("val_robust_accuracy", patience=1)
    trainer.fit(
        IMAGES,
        LABELS,
        epochs=2,
        validation_data=(IMAGES, LABELS),
        callbacks=[*drive(), callback],
        verbose=0,
    )
    assert callback.monitor_op(0.6, 0.5) and not callback.monitor_op(0.5, 0.6)


def test_the_range_of_pixels_is_known_after_the_training():
    images = IMAGES / 255
    model = conv_net(dropout=0.0)
    trainer = make_trainer(model, value_range=(0, 1))
    trainer.fit(images, LABELS, callbacks=drive(), verbose=0)
    report = evaluate(images, LABELS, trainer.model)
    assert report.value_range == (0.0, 1.0)
    with pytest.raises(ValueError, match="seem to be scaled"):
        evaluate(images, LABELS, trainer.model, value_range=(0, 255))
    net = ke.models.classifier(
        "resnet_letters", 3, image_size=(8, 8), value_range=(-1, 1)
    )
    assert evaluate(2 * images - 1, LABELS, net).value_range == (-1.0, 1.0)


def test_the_range_of_pixels_of_a_classifier_is_that_of_its_training():
    net = ke.models.classifier(
        "resnet_letters", 3, image_size=(8, 8), value_range=(-1, 1)
    )
    trainer = ke.AdversarialTrainer(net)
    assert trainer.value_range == (-1, 1)
    with pytest.warns(UserWarning, match="made for pixels in"):
        ke.AdversarialTrainer(net, value_range=(0, 1))


def test_the_look_at_batchnorm_is_no_larger_than_a_batch():
    trainer = make_trainer()
    images, _ = first_batch.check(trainer, *make_data(96), most=8)[0]
    assert len(images) == 8


def test_reports_tell_precision_and_device(tmp_path, monkeypatch):
    report = evaluate(IMAGES, LABELS, folder=tmp_path)
    assert (report.precision, report.device) == ("float32", "CPU")
    assert "computed in  float32, on a CPU" in str(report)
    again = ke.Report.load(tmp_path)
    assert (again.precision, again.device) == ("float32", "CPU")
    evaluate(IMAGES, LABELS, folder=tmp_path, resume=True)
    inputs = sys.modules["keras_epsched.evaluation.inputs"]
    for name in ("precision", "device"):
        with monkeypatch.context() as changed:
            changed.setattr(inputs, name, lambda *_: "another")
            with pytest.raises(ValueError, match=f"{name}: .* 'another' now"):
                evaluate(IMAGES, LABELS, folder=tmp_path, resume=True)
    # A folder of a version that did not know.
    settings = tmp_path / "evaluation.json"
    old = settings.read_text().replace('"precision"', '"p"')
    settings.write_text(old.replace('"device"', '"d"'))
    evaluate(IMAGES, LABELS, folder=tmp_path, resume=True)


def test_mixed_precision_is_told():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = conv_net()
    finally:
        keras.config.set_dtype_policy(policy)
    assert evaluate(IMAGES, LABELS, model).precision == "bfloat16, float32"
