"""A few timed steps of a training and of an attack, and their memory."""

import contextlib
import dataclasses
import io
import math
import pathlib
import tempfile
import threading
import time
import warnings
from collections.abc import Callable

import keras
import numpy as np
import psutil

from keras_epsched import attacks, backend, callbacks, provenance
from keras_epsched.batches import as_arrays
from keras_epsched.configs.config import Settings
from keras_epsched.datasets import ImageData
from keras_epsched.evaluation.attack_runner import AttackRunner
from keras_epsched.runs import build, finetuning, monitors
from keras_epsched.schedules import Constant, PiecewiseLinear
from keras_epsched.training import AdversarialTrainer

# So long are steps timed, or so many of them; one in any case.
_SECONDS = 8.0
_MOST_STEPS = 20
_ATTACK_STEPS = 5
# What is trained here is thrown away.
_LEARNING_RATE = 1e-4
# No image is broken at this epsilon.
_TINY = 1e-6


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a training step holds, in bytes.

    Args:
        fixed: Int. What does not depend on the batch.
        images: Int. What grows with the batch.
        state: Int. The share of `fixed` that a card would hold: weights,
            optimizer, and a gradient.
        gradient: Int. A gradient of all that is trained.
        batch_size: Int. Images that it was measured with.
        source: String. Where the numbers come from.
    """

    fixed: int
    images: int
    state: int
    gradient: int
    batch_size: int
    source: str

    def of(self, batch_size: int, halved: bool = False) -> float:
        """Bytes with another batch size, and with activations halved."""
        share = batch_size / self.batch_size
        return self.fixed + self.images * share * (0.5 if halved else 1.0)


@dataclasses.dataclass(frozen=True)
class Training:
    """What was measured of a training.

    Args:
        trainer: `AdversarialTrainer`, which has made a few steps.
        startup: Float. Seconds until all is made and compiled.
        steps: Pair of floats. Seconds of a step in each of the two epochs.
        epoch: Float. Seconds of an epoch besides its steps: of validation,
            monitors, logs and backups.
        memory: `Memory`.
    """

    trainer: AdversarialTrainer
    startup: float
    steps: tuple[float, float]
    epoch: float
    memory: Memory


@dataclasses.dataclass(frozen=True)
class Attack:
    """What was measured of an attack in an evaluation.

    Args:
        startup: Float. Seconds until it is compiled.
        forward: Float. Seconds of a forward pass of one image.
        gradient: Float. Seconds of a forward and a backward pass of one.
    """

    startup: float
    forward: float
    gradient: float


def measure_training(
    config: Settings, data: ImageData, epsilons: tuple[float, float]
) -> Training:
    """Times steps of two short epochs, with all that a run does in them.

    Args:
        config: `Settings`.
        data: The dataset.
        epsilons: Pair of floats, epsilon in each of the two epochs.
    """
    began = time.perf_counter()
    classifier = build.make_classifier(config, data.num_classes, config.seed)
    trainer = build.compiled_trainer(
        config, classifier, _LEARNING_RATE, config.seed, len(data.train)
    )
    first, second = epsilons
    points = [(0.25, first), (0.5, second)]
    schedule = Constant(first) if first == second else PiecewiseLinear(points)
    watch = _Stopwatch(len(data.validation))
    # TensorBoard's writer may hold a file open until it is collected.
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with (
        temporary as name,
        # The run itself tells what there is to tell.
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
        ResidentSet() as held,
    ):
        folder = pathlib.Path(name)
        trainer.fit(
            data.train,
            validation_data=data.validation,
            epochs=2,
            callbacks=[
                callbacks.EpsilonScheduler(schedule),
                *monitors.make(config, data, folder).values(),
                *finetuning.log_writers(folder, None),
                callbacks.ExactBackup(folder / "backups"),
                watch,
            ],
            shuffle=False,
            verbose=0,
        )
    seconds = time.perf_counter() - began
    batch = as_arrays(next(iter(data.train)))
    return Training(
        trainer=trainer,
        startup=max(seconds - watch.steady(), 0.0),
        steps=watch.step(),
        epoch=watch.epoch(),
        memory=_memory(trainer, batch, held.peak, second),
    )


class _Stopwatch(keras.callbacks.Callback):
    """Times two epochs, and ends each when its steps were timed.

    Args:
        validation_batches: Int. Batches of a whole validation.
    """

    # The backup belongs to the epoch.
    fit_order = 2

    def __init__(self, validation_batches: int):
        super().__init__()
        self.validation_batches = validation_batches
        # Seconds in each epoch: of steps, of batches of the validation, and of
        # what comes before and after the validation.
        self._steps, self._tests, self._ends = [], [], []
        self._last = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        for each in (self._steps, self._tests, self._ends):
            each.append([])
        self._last = time.perf_counter()

    def _lap(self, laps):
        now = time.perf_counter()
        laps.append(now - self._last)
        self._last = now
        # The first one compiles.
        timed = laps[1:]
        return bool(timed) and (
            sum(timed) > _SECONDS or len(timed) >= _MOST_STEPS
        )

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = self._lap(self._steps[-1])

    def on_test_begin(self, logs=None):
        self._lap(self._ends[-1])

    def on_test_batch_end(self, batch, logs=None):
        self.model.stop_evaluating = self._lap(self._tests[-1])

    def on_epoch_end(self, epoch, logs=None):
        self._lap(self._ends[-1])
        self.model.stop_training = False

    def step(self) -> tuple[float, float]:
        """Seconds of a step in each epoch."""
        first, second = (
            float(np.median(laps[1:] or laps)) for laps in self._steps
        )
        return first, second

    def epoch(self) -> float:
        """Seconds of the second epoch besides its steps."""
        test = float(np.mean(self._tests[1]))
        return test * self.validation_batches + sum(self._ends[1])

    def steady(self) -> float:
        """Seconds that both epochs had taken if all had been compiled."""
        test = float(np.mean(self._tests[1]))
        steps = sum(
            len(laps) * each
            for laps, each in zip(self._steps, self.step(), strict=True)
        )
        tests = sum(len(laps) * test for laps in self._tests)
        return steps + tests + 2 * sum(self._ends[1])


def _memory(trainer, batch, peak, epsilon):
    """What a step holds.

    Args:
        trainer: `AdversarialTrainer` that has made steps.
        batch: Pair of arrays, images and labels.
        peak: Int. The most that this process has held.
        epsilon: Float.
    """
    gradient = _bytes(trainer.trainable_variables)
    kept = (*trainer.variables, *trainer.optimizer.variables)
    state = _bytes(kept) + gradient
    analysed = backend.step_memory(trainer, batch)
    on_device = backend.peak_memory()
    source = "the peak of a few steps"
    if analysed is not None:
        images = max(analysed[1] - gradient, 0)
        source = "XLA's analysis of the step"
    elif on_device is not None:
        images = max(on_device - state, 0)
    else:
        images = _held_by_images(trainer, batch, epsilon)
        if not images:
            source += "; too low for other batches, as nothing grew"
    fixed = state if on_device is not None else max(peak - images, state)
    place = "this process" if on_device is None else "the device"
    return Memory(
        fixed=fixed,
        images=images,
        state=state,
        gradient=gradient,
        batch_size=len(batch[0]),
        source=f"{source}, in {place}",
    )


def _held_by_images(trainer, batch, epsilon):
    """Bytes that grow with the batch, in a step of this process.

    What the process held before the step does not tell: backends keep memory
    for the next step. So this takes a step with a quarter more images, or eight
    more, and sees how much the process grows. It does so without XLA, whose
    compilation for another size of batch takes memory too.
    """
    few = len(batch[0])
    many = few + max(math.ceil(few / 4), min(few, 8))
    sizes = [few, few, many, many]
    peaks = []
    trainer.jit_compile = False
    trainer.train_function = None
    with (
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
        ResidentSet() as held,
    ):
        # Batches of a generator have no static shape. A trace for each size
        # would count as memory of the images.
        trainer.fit(
            (
                tuple(
                    np.resize(each, (size, *each.shape[1:])) for each in batch
                )
                for size in sizes
            ),
            steps_per_epoch=len(sizes),
            callbacks=[
                callbacks.EpsilonScheduler(Constant(epsilon)),
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda *_, logs=None: peaks.append(
                        held.peak
                    )
                ),
            ],
            verbose=0,
        )
    grown = max(peaks[-1] - peaks[1], 0)
    return int(grown * few / (many - few))


def _bytes(variables):
    return sum(
        math.prod(each.shape) * np.dtype(each.dtype).itemsize
        for each in variables
    )


def resident_set() -> int:
    """Bytes of memory that this process holds."""
    return psutil.Process().memory_info().rss


class ResidentSet:
    """The most that this process holds within a `with` block, in `peak`.

    The largest value of the system itself would be that since the process
    began.
    """

    _SECONDS = 0.005

    def __init__(self):
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(self._SECONDS):
            self.peak = max(self.peak, resident_set())


def measure_attack(
    classifier: keras.Model,
    images: np.ndarray,
    norm: str,
    jit_compile: bool | str = "auto",
) -> Attack:
    """Times passes of a batch through a classifier under an attack.

    Args:
        classifier: `keras.Model` from pixels to logits.
        images: Array, a batch of images.
        norm: String. Norm of the attack.
        jit_compile: Boolean or `"auto"`, as of the evaluation.
    """
    value_range = provenance.value_range_of(classifier) or (0, 255)
    count = len(images)
    runner = AttackRunner(classifier, value_range, count, jit_compile)
    _, forward = _timed(lambda: runner.predict(images))
    # Every image is attacked to the end.
    labels = runner.predict(images).argmax(axis=-1)
    attack = attacks.APGD(_ATTACK_STEPS, norm)
    startup, search = _timed(
        lambda: runner.search(
            attack, images, labels, np.full(count, _TINY), (0, np.arange(count))
        )
    )
    ahead, back = attack.passes(classifier.output_shape[-1])
    gradient = (search - (ahead - back) * forward) / back
    return Attack(startup, forward / count, gradient / count)


def _timed(function: Callable) -> tuple[float, float]:
    """Seconds that the first call of a function takes longer, and of others."""
    laps = []
    while len(laps) < 2 or (
        sum(laps[1:]) < _SECONDS / 4 and len(laps) <= _MOST_STEPS
    ):
        began = time.perf_counter()
        function()
        laps.append(time.perf_counter() - began)
    usual = float(np.median(laps[1:]))
    return max(laps[0] - usual, 0.0), usual
