"""What an evaluation says while it runs, on terminals and in logs."""

import contextlib
import io
import sys
import types

import numpy as np
import pytest
from networks import make_data, trained_net

import keras_epsched as ke
from keras_epsched.attacks import APGD, FAB, FGSM, AutoAttack, Square
from keras_epsched.evaluation import progress
from keras_epsched.evaluation.progress import Progress, most_passes


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lines(monkeypatch, capsys):
    """The lines that were written to standard error, which is a file."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    return lambda: capsys.readouterr().err.splitlines()


@pytest.fixture
def clock(monkeypatch):
    """Time as the test has it."""
    now = types.SimpleNamespace(seconds=0.0)
    fake = types.SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(progress, "time", fake)
    return now


def make_sweep(attack, clock, seconds, epsilons=4, bisect=False):
    """What `Progress` asks of a sweep whose batches take so many seconds."""
    sweep = types.SimpleNamespace(
        attacks=[attack],
        num_classes=10,
        epsilons=np.linspace(0, 0.3, epsilons + 1),
        bisect=bisect,
        watch=lambda attack, count: contextlib.nullcontext(),
    )

    def run_attack(count):
        with sweep.watch(attack, count):
            clock.seconds += seconds

    sweep.run_attack = run_attack
    return sweep


def attack_window(told, sweep, size, batches, broken):
    """A window: batches of all its images, then each of them is done."""
    told.begin_window(size)
    for _ in range(batches):
        sweep.run_attack(size)
    for number in range(size):
        told.advance(number >= broken)


def test_cost_of_one_attack_and_of_several():
    # 11 forward and 10 backward passes at each epsilon.
    assert most_passes([APGD(10)], 10, 8) == 8 * 21
    assert most_passes([APGD(10, restarts=3)], 10, 8) == 3 * 8 * 21
    # A distance answers every epsilon.
    fab = FAB(20, targets=9)
    assert most_passes([fab], 10, 8) == 9 * sum(fab.passes(10))
    members = AutoAttack().members
    alone = sum(
        number * sum(each.passes(10)) * (1 if isinstance(each, FAB) else 8)
        for number, each in zip((1, 9, 9, 1), members, strict=True)
    )
    assert most_passes(members, 10, 8) == alone == 58_923
    # Four of eight epsilons, then two for the second attack.
    pair = [APGD(10), Square(99)]
    assert most_passes(pair, 10, 8, bisect=True) == 4 * 21 + 2 * 100
    assert most_passes(pair, 10, 1, bisect=True) == 21 + 100


def test_lines_of_a_log(lines, clock):
    sweep = make_sweep(APGD(10), clock, seconds=4.0)
    with Progress(sweep, "APGD-10", 100, 1) as told:
        # The first batch compiles, the second tells the pace: 4 s for 21
        # passes of each of 50 images, of which 4 * 21 are due.
        attack_window(told, sweep, 50, 4, 30)
        assert clock.seconds == 16.0
        assert lines() == [
            "evaluation: 0 of 100 images done, accuracy so far at "
            "most 100 % at epsilon 0.3, at most about 20 s left"
        ]
        clock.seconds = 60.0
        told.begin_window(50)
        told.advance(False)
        # 16 s a window before, and this one began just now.
        assert lines() == [
            "evaluation: 51 of 100 images done, accuracy so far at "
            "most 69 % at epsilon 0.3, about 20 s left"
        ]
        for _ in range(49):
            told.advance(False)
        assert told.line() == (
            "evaluation: 100 of 100 images done, accuracy so far 20 % at "
            "epsilon 0.3"
        )
        # A line for each half minute, not for each image.
        assert not lines()


def test_images_that_finish_early_do_not_shorten_the_estimate(lines, clock):
    """All that is broken at once says little of those that stand."""
    sweep = make_sweep(APGD(10), clock, seconds=10.0, epsilons=8)
    with Progress(sweep, "APGD-10", 100, 1) as told:
        told.begin_window(100)
        for _ in range(2):
            sweep.run_attack(100)
        for _ in range(50):
            told.advance(False)
        # Two of eight epsilons for 20 s; the other six for half the images.
        assert told._seconds_left() == pytest.approx(30.0)
        assert "accuracy so far at most 50 %" in told.line()


def test_the_estimate_counts_windows_of_a_resumed_evaluation_as_free(
    lines, clock
):
    sweep = make_sweep(APGD(10), clock, seconds=10.0)
    with Progress(sweep, "APGD-10", 40, 1) as told:
        # Read from files: no batch is attacked.
        attack_window(told, sweep, 20, 0, 5)
        assert told._seconds_left() is None
        attack_window(told, sweep, 10, 3, 5)
        assert told._seconds_left() == pytest.approx(30.0)
        told.begin_window(10)
        clock.seconds += 25
        assert told._seconds_left() == pytest.approx(5.0)
        # Longer than the others: it will be done soon.
        clock.seconds += 25
        assert 0 < told._seconds_left() < 5.0


def test_nothing_is_estimated_of_a_dataset_of_unknown_length(lines, clock):
    sweep = make_sweep(APGD(10), clock, seconds=20.0)
    with Progress(sweep, "APGD-10", None, 1) as told:
        attack_window(told, sweep, 10, 3, 4)
        assert told.line() == (
            "evaluation: 10 images done, accuracy so far 60 % at epsilon 0.3"
        )


@pytest.mark.parametrize("terminal", [False, True])
def test_the_cost_of_an_expensive_attack_is_told_once(
    lines, clock, monkeypatch, terminal
):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    for attack, total, told_cost in (
        (Square(5000), 300, True),
        (Square(5000), None, True),
        (APGD(10), 300, False),
    ):
        stream.seek(0)
        stream.truncate()
        sweep = make_sweep(attack, clock, seconds=0.0)
        with Progress(sweep, attack.title, total, 1) as told:
            attack_window(told, sweep, 10, 2, 4)
            attack_window(told, sweep, 10, 2, 4)
        text = stream.getvalue()
        images = f"{total} images" if total else "the images"
        cost = (
            "evaluation: Square, 5,000 queries takes up to about 20,000 passes "
            f"of the network for each of {images}, for all 4 epsilons "
        )
        assert text.count(cost) == told_cost, text
        assert text.count("takes up to about") == told_cost


def test_verbose_0_is_silent(lines, clock):
    sweep = make_sweep(Square(5000), clock, seconds=60.0)
    with Progress(sweep, "Square", 100, 0) as told:
        attack_window(told, sweep, 100, 4, 10)
    assert not lines()


def test_a_terminal_has_a_bar(lines, clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    sweep = make_sweep(APGD(10), clock, seconds=60.0)
    with Progress(sweep, "APGD-10", 20, 1) as told:
        attack_window(told, sweep, 20, 4, 5)
    text = stream.getvalue()
    assert "robustness" in text and "20/20" in text
    assert "surviving=0.750" in text
    assert "images done" not in text


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "10 s"),
        (44, "40 s"),
        (89, "90 s"),
        (200, "3 min"),
        (5000, "83 min"),
        (5400, "1.5 h"),
    ],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_an_evaluation_writes_lines_and_finds_the_same(lines, monkeypatch):
    monkeypatch.setattr(progress, "_FIRST_LINE", 0.0)
    monkeypatch.setattr(progress, "_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "_MOST_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "_EXPENSIVE", 1)
    network, data = trained_net(), make_data(20)
    reports = [
        ke.evaluate(
            network,
            data,
            ke.epsilon_grid(0.2, 3),
            FGSM(),
            batch_size=8,
            verbose=verbose,
        )
        for verbose in (0, 1)
    ]
    np.testing.assert_array_equal(reports[0].correct, reports[1].correct)
    cost, *told = lines()
    assert cost.startswith("evaluation: FGSM on cross-entropy takes up to")
    assert len(told) > 20
    stands = 100 * reports[1].accuracy[-1]
    assert told[-1] == (
        f"evaluation: 20 of 20 images done, accuracy so far "
        f"{stands:.0f} % at epsilon 0.2"
    )
