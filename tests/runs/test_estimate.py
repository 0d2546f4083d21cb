"""What a run will take: counted, timed, and what fits into a memory."""

import subprocess
import sys
import types

import keras
import pytest
from keras import ops
from networks import (
    CLASSES,
    SHAPE,
    conv_net,
    make_data,
    make_trainer,
    only_on,
    whenever_it_runs,
)

import keras_epsched as ke
from keras_epsched import runs
from keras_epsched.runs import build, costs, fitting, measuring
from keras_epsched.runs.costs import Passes
from keras_epsched.runs.time_left import TimeLeft

_BATCH = 6


class Counted(keras.layers.Layer):
    """Hands images on, and counts those that pass in each direction."""

    def __init__(self):
        super().__init__()
        self.clear()

    def clear(self):
        # Threads of TensorFlow add at the same time; a list loses nothing.
        self._forward, self._backward = [], []

    @property
    def forward(self):
        return sum(self._forward)

    @property
    def backward(self):
        return sum(self._backward)

    def call(self, x):
        def add_forward(number):
            self._forward.append(int(number))

        def add_backward(number):
            self._backward.append(int(number))

        @ops.custom_gradient
        def counted(x):
            whenever_it_runs(add_forward, ops.shape(x)[0])

            def grad(upstream):
                whenever_it_runs(add_backward, ops.shape(x)[0])
                return upstream

            return ops.add(x, 0.0), grad

        return counted(x)


def counted_net():
    """A network with weights before and behind where passes are counted."""
    counted = Counted()
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, strides=2)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(counted(x))
    outputs = keras.layers.Dense(CLASSES)(x)
    return keras.Model(inputs, outputs), counted


@only_on("tensorflow", "counts in its graphs")
@pytest.mark.parametrize(
    "arguments",
    [
        {"attack": ke.attacks.PGD(steps=3)},
        {"attack": ke.attacks.APGD(steps=2), "objective": "twins"},
        {"attack": ke.attacks.NFGSM(), "objective": "mixed"},
        {"attack": ke.attacks.PGD(steps=2), "objective": "trades"},
        {"attack": ke.attacks.FGSM(), "weight_perturbation": 0.01},
    ],
)
def test_passes_of_a_step_are_those_that_are_made(arguments):
    network, counted = counted_net()
    trainer = make_trainer(network, **arguments)
    images, labels = make_data(_BATCH)
    # The first step looks at an image before.
    trainer.train_on_batch(images, labels)
    for epsilon in (0.0, 8 / 255):
        trainer.epsilon = epsilon
        counted.clear()
        trainer.train_on_batch(images, labels)
        expected = costs.of_step(trainer, epsilon > 0) * _BATCH
        assert counted.forward == expected.forward
        assert counted.backward == expected.backward


@pytest.mark.parametrize("bisect", [True, False])
def test_passes_of_an_evaluation_are_the_most_that_it_makes(bisect):
    network = conv_net(batchnorm=False, dropout=0)
    images, _ = make_data(12)
    labels = network.predict(images, verbose=0).argmax(axis=-1)
    # So small that every image withstands all.
    grid = [1e-6, 2e-6, 3e-6]
    attack = ke.attacks.AttackEnsemble(
        [ke.attacks.PGD(steps=2), ke.attacks.TargetedAPGD(steps=2, targets=2)]
    )
    report = ke.evaluate(
        network,
        (images, labels),
        grid,
        attack,
        bisect=bisect,
        self_check=False,
        verbose=0,
    )
    most = costs.of_evaluation(attack, CLASSES, len(grid), bisect, len(images))
    # A tenth for the self-checks.
    found = 1.1 * report.forward_passes, 1.1 * report.backward_passes
    if bisect:
        # It counts two epsilons for an attack that needs one here.
        assert most.forward >= found[0] and most.backward >= found[1]
    else:
        assert (most.forward, most.backward) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(
    ("schedule", "update_freq", "expected"),
    [
        ("standard", "epoch", [0] * 50),
        ("fixed", "epoch", [8] * 50),
        # At the first hinge itself epsilon is still 0.
        ("scheduled", "epoch", [0] * 13 + [8] * 37),
        ("scheduled", "batch", [0] * 12 + [7] + [8] * 37),
        ("auto", "epoch", [8] * 50),
    ],
)
def test_steps_that_attack(schedule, update_freq, expected):
    config = runs.Config(epochs=50, update_freq=update_freq)
    scheduler = build.make_scheduler(config, schedule)
    assert costs.attacked_steps(scheduler, 50, 8) == expected
    assert costs.is_adaptive(scheduler) == (schedule == "auto")


def memory(**changes):
    """A step of 64 images: 1 GB beside them, and 4 GB of them."""
    values = {"fixed": fitting.GB, "images": 4 * fitting.GB, "state": 2**20}
    values |= {"gradient": fitting.GB // 2, "batch_size": 64, "source": "test"}
    return measuring.Memory(**{**values, **changes})


@pytest.mark.parametrize(
    ("values", "memory_gb", "expected"),
    [
        # A tenth of the memory is left.
        ({}, 6, [("float32", 64, 1, 5.0), ("half", 64, 1, 3.0)]),
        # Smaller batches need the mean of the gradients besides.
        ({}, 5.5, [("float32", 32, 2, 3.5), ("half", 64, 1, 3.0)]),
        ({}, 2.0, [("float32", 4, 16, 1.75), ("half", 8, 8, 1.75)]),
        ({}, 1.0, []),
        ({"dtype": "mixed_float16"}, 6, [("mixed_float16", 64, 1, 5.0)]),
        # A larger memory takes all images of a step of the optimizer at once.
        (
            {"batch_size": 32, "accumulate": 2},
            6,
            [("float32", 64, 1, 5.0), ("half", 64, 1, 3.0)],
        ),
    ],
)
def test_the_largest_batch_that_fits(values, memory_gb, expected):
    config = runs.Config(**values)
    found = fitting.find(config, memory(), "half", memory_gb)
    assert [
        (each.dtype, each.batch_size, each.accumulate, each.bytes / fitting.GB)
        for each in found
    ] == expected


@pytest.fixture
def measured(monkeypatch):
    """Measurements as the test has them: what they were asked for."""
    asked = []

    def measure_training(config, data, epsilons):
        classifier = build.make_classifier(config, data.num_classes, 0)
        trainer = build.compiled_trainer(config, classifier, 1e-3, 0, 1)
        asked.append((config.batch_size, epsilons))
        return measuring.Training(trainer, 10.0, (1.0, 5.0), 2.0, memory())

    monkeypatch.setattr(measuring, "measure_training", measure_training)

    def measure_attack(classifier, images, norm, jit_compile):
        # The evaluation that follows asks for the same compiler.
        assert jit_compile == "auto"
        return measuring.Attack(3.0, 0.01, 0.02)

    monkeypatch.setattr(measuring, "measure_attack", measure_attack)
    return asked


def test_all_parts_of_a_comparison_are_counted(measured):
    config = runs.Comparison(
        schedules=("standard", "scheduled", "auto"),
        seeds=2,
        learning_rates=(1e-3, 1e-2),
        epochs=4,
        probe_epochs=1,
        test_examples=100,
        num_epsilons=3,
    )
    found = runs.estimate(config, memory_gb=6)
    assert measured == [(64, (0.0, config.epsilon))]
    data = build.load_data(config, 0)
    steps, validation = len(data.train), data.validation.split_info.num_examples
    parts = {part.name: part for part in found.parts}
    assert list(parts) == [
        "choice of the rate, fixed (2 times)",
        "training, standard (2 times)",
        "training, scheduled (2 times)",
        "training, auto (2 times)",
        "linear probe (8 times)",
        "evaluation of the rates (2 times)",
        "evaluation, nested (6 times)",
        "evaluation, paper (6 times)",
    ]
    scheduled = parts["training, scheduled (2 times)"]
    # The first of 4 epochs is before the ramp.
    assert scheduled.steps == 2 * 4 * steps
    assert scheduled.seconds == 2 * (10 + steps * (1 * 1 + 3 * 5) + 4 * 2)
    images = 64 * steps
    assert scheduled.passes == Passes(4, 4, 4) * (2 * images) + Passes(7, 7) * (
        6 * images
    )
    assert not scheduled.at_most
    assert parts["training, auto (2 times)"].at_most
    assert parts["linear probe (8 times)"].passes.forward == 8 * images
    paper = parts["evaluation, paper (6 times)"]
    assert paper.passes.forward == 6 * round(1.1 * 100 * (1 + 2 * 11))
    rates = parts["evaluation of the rates (2 times)"]
    assert rates.passes.backward == 2 * round(1.1 * validation * 2 * 10)
    assert found.seconds == sum(part.seconds for part in found.parts)
    text = str(found)
    assert max(map(len, text.splitlines())) <= 100
    assert "a training step holds 5.00 GB (test)" in text
    assert "dtype=mixed_bfloat16, batch_size=64, accumulate=1: 3.00 GB" in text


def test_a_card_that_is_not_here(measured):
    config = runs.Config(schedule="fixed", epochs=10)
    slow = runs.estimate(config, card="T4")
    # Few images, no attack.
    assert measured == [(16, (0.0, 0.0))]
    fast = runs.estimate(config, card="H100")
    assert slow.seconds > 50 * fast.seconds
    text = str(slow)
    assert "rough, as nothing ran on a T4" in text
    assert "into 15 GB fit:" in text and "mixed_float16" in text
    # All weights, but not this process.
    assert slow.bytes == 2**20 + 4 * fitting.GB
    half = runs.estimate(config.replace(dtype="mixed_float16"), card="T4")
    # XLA counts the casts too.
    rel = 0.02 if keras.backend.backend() == "jax" else 1e-6
    assert half.seconds == pytest.approx(slow.seconds * 8.1 / 65, rel=rel)


@pytest.mark.parametrize(
    ("values", "asked", "message"),
    [
        ({"epsilon": 8}, {}, "8/255"),
        ({"backbone": "no_such_preset"}, {}, "no_such_preset"),
        ({}, {"memory_gb": 0}, "`memory_gb` must be above 0"),
        ({}, {"card": "T5"}, "`card` must be one of T4"),
        ({"dtype": "mixed_bfloat16"}, {"card": "T4"}, "dtype=mixed_float16"),
    ],
)
def test_what_cannot_be_estimated_is_told(values, asked, message):
    with pytest.raises(ValueError, match=message) as error:
        runs.estimate(runs.Config(**values), **asked)
    assert error.value.is_refusal


@pytest.mark.ci
def test_an_estimate_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "_SECONDS", 0.0)
    config = runs.Config(
        image_size=8, train_steps=1, test_examples=100, batch_size=128
    )
    found = runs.estimate(config)
    training, evaluation = found.parts
    assert 0 < training.seconds and 0 < evaluation.seconds
    assert found.memory.batch_size == 128 and found.memory.fixed > 2**20
    assert "s at epsilon 0, " in found.note and "at epsilon 0.3" in found.note
    assert not list(tmp_path.iterdir())


# In a process of its own: memory that a backend keeps would hide what a step
# takes.
_MEMORY_OF_IMAGES = """
import keras, numpy as np
import keras_epsched as ke
from keras_epsched.runs import measuring

layers = [
    keras.layers.Conv2D(64, 3, padding="same", activation="relu")
    for _ in range(8)
]
head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
net = keras.Sequential([keras.Input((64, 64, 3)), *layers, *head])
trainer = ke.AdversarialTrainer(net)
trainer.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
batch = np.full((16, 64, 64, 3), 100.0, "float32"), np.arange(16) % 10
trainer.fit(*batch, batch_size=16, verbose=0)
memory = measuring._memory(trainer, batch, measuring.resident_set(), 4 / 255)
print(memory.images / 16, memory.state)
"""


@pytest.mark.ci
def test_the_memory_of_images_is_about_that_of_the_activations():
    found = subprocess.run(
        [sys.executable, "-c", _MEMORY_OF_IMAGES],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    of_an_image, state = map(float, found.stdout.split()[-2:])
    # Each layer keeps 64 * 64 * 64 floats of 4 bytes for the way back.
    kept = 8 * 64**3 * 4
    assert 0.8 * kept < of_an_image < 10 * kept
    # Weights, two moments of Adam, and a gradient.
    weights = 4 * (64 * 28 + 7 * 64 * 577 + 10 * 65)
    assert 4 * weights < state < 4.1 * weights


def test_the_time_left_follows_the_passes(monkeypatch, capsys):
    now = 0.0
    clock = types.SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(ke.runs.time_left, "time", clock)
    told = TimeLeft([100, 100, 100, 800, 800])
    lines = []
    # An epoch that compiles, then seconds as there are passes.
    for epoch, seconds in enumerate([300, 100, 100, 800, 800]):
        told.on_epoch_begin(epoch)
        now += seconds
        lines += capsys.readouterr().out.splitlines()
    assert lines == [
        "at most about 1.5 h of this training left",
        "about 28 min of this training left",
        "about 27 min of this training left",
        "about 13 min of this training left",
    ]


def test_the_rest_of_an_epoch_has_no_pace(capsys):
    told = TimeLeft([100] * 5, at_most=True)
    for epoch in (2, 3):
        told.on_epoch_begin(epoch)
    assert not capsys.readouterr().out
    told.on_epoch_begin(4)
    assert capsys.readouterr().out.startswith("at most about 10 s")
