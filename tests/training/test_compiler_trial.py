"""A long training tries both compilers; the clock is a planted one."""

import keras
import pytest
from networks import drive, make_data, make_trainer

import keras_epsched as ke
from keras_epsched.training import compiler_trial

if keras.backend.backend() != "tensorflow":
    pytest.skip("only TensorFlow has a choice", allow_module_level=True)

import tensorflow as tf

if tf.config.list_physical_devices("GPU"):
    pytest.skip("on a GPU Keras' choice stays", allow_module_level=True)

IMAGES, LABELS = make_data()


class Clock:
    """Time passes in the steps of a trainer alone."""

    def __init__(self, trainer, with_xla, without):
        self.trainer, self.now, self.inside = trainer, 0.0, False
        self.seconds = {True: with_xla, False: without}

    def perf_counter(self):
        # Read before and behind each step.
        if self.inside:
            self.now += self.seconds[bool(self.trainer.jit_compile)]
        self.inside = not self.inside
        return self.now


@pytest.fixture
def fit(monkeypatch):
    def fit(
        trainer,
        with_xla=1.0,
        without=1.0,
        epochs=60,
        data=(IMAGES, LABELS),
        **kwargs,
    ):
        clock = Clock(trainer, with_xla, without)
        monkeypatch.setattr(compiler_trial, "time", clock)
        monkeypatch.setattr(compiler_trial, "_SHARE", 0.1)
        made = []
        make = trainer.make_train_function

        def counted(force=False):
            made.append(trainer.jit_compile)
            make(force)

        monkeypatch.setattr(trainer, "make_train_function", counted)
        kwargs.setdefault("callbacks", drive())
        kwargs = {"batch_size": 8, "shuffle": False, **kwargs}
        trainer.fit(*data, epochs=epochs, verbose=2, **kwargs)
        return made

    return fit


@pytest.mark.ci
def test_the_faster_compiler_is_taken(fit, capsys):
    trainer = make_trainer()
    assert not trainer.jit_compile
    assert True in fit(trainer, with_xla=0.5)
    assert trainer.jit_compile
    printed = capsys.readouterr().out
    assert "0.5 s with XLA and 1 s without" in printed
    # The choice stays.
    assert True not in fit(trainer, with_xla=0.5)[1:]
    assert "with XLA" not in capsys.readouterr().out


@pytest.mark.ci
def test_what_was_compiled_first_comes_back(fit, capsys):
    trainer = make_trainer()
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            trainer.train_function
        )
    )
    fit(trainer, with_xla=0.99, callbacks=[*drive(), note])
    assert not trainer.jit_compile
    assert seen[0] is seen[-1] and len(set(map(id, seen))) == 2
    assert "TensorFlow's graph" in capsys.readouterr().out


@pytest.mark.ci
@pytest.mark.parametrize(
    ("compiled", "arguments"),
    [
        ({"jit_compile": False}, {}),
        ({"steps_per_execution": 3}, {"epochs": 20}),
        ({"run_eagerly": True}, {"epochs": 1}),
        ({}, {"epochs": 5}),
        ({}, {"callbacks": drive(0.0)}),
    ],
    ids="given together eager short without".split(),
)
def test_nothing_is_tried(fit, compiled, arguments):
    trainer = make_trainer(compile_with=compiled)
    assert True not in fit(trainer, with_xla=0.1, **arguments)
    assert not trainer.jit_compile


@pytest.mark.ci
def test_a_resumed_training_has_the_compiler_that_was_chosen(fit, tmp_path):
    examples = list(zip(IMAGES.astype("uint8"), LABELS, strict=True))
    data = ke.datasets.ImageBatches(examples, (8, 8), 8)

    def backup():
        return [*drive(), ke.callbacks.ExactBackup(tmp_path / "backup")]

    class Killed(Exception):
        pass

    def kill(epoch, logs):
        if epoch == 50:
            raise Killed

    killer = keras.callbacks.LambdaCallback(on_epoch_begin=kill)
    trainer = make_trainer()
    with pytest.raises(Killed):
        fit(trainer, with_xla=0.5, data=(data,), callbacks=[*backup(), killer])
    assert trainer.jit_compile
    resumed = make_trainer()
    # By the clock it would now choose the other.
    fit(resumed, with_xla=2.0, data=(data,), callbacks=backup())
    assert resumed.jit_compile
