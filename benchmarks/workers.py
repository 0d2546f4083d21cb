"""Runs the sides of a comparison in processes that take turns.

Keras chooses its backend once in a process, so each side of a comparison has
its own process. All processes stay alive, and one works at a time. The parent
asks for one variant after another, round after round. So if the speed of the
machine changes, it changes for all sides, and ratios within a round stay fair.
"""

import importlib.util
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from unittest import mock

import numpy as np
from absl import flags


class Worker:
    """A process that makes variants of something, and times them on demand.

    Args:
        make: Function of `args`, importable by its name, that returns a
            `dict` of functions to time and a `dict` of facts to report.
        *args: What `make` is called with.
        backend: Backend of Keras in that process.
        **environment: Further environment variables of that process.
    """

    def __init__(
        self, make: Callable, *args, backend: str = "torch", **environment: str
    ):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, make, args), daemon=True
        )
        environment = {
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # Several share one card.
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        } | environment
        with mock.patch.dict(os.environ, environment):
            self._process.start()
        other.close()
        self.names, self.facts = self._receive()

    def _receive(self):
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"A worker process ended with status {self._process.exitcode}."
            ) from None
        if isinstance(answer, str):
            raise RuntimeError(f"A worker process failed:\n{answer}")
        return answer

    def time(self, name: str, at_least: float = 0.0) -> tuple[float, object]:
        """Mean time of one call of a variant, and what the last returned.

        Args:
            name: Name of the variant.
            at_least: Seconds that the calls take together, or more.
        """
        self._pipe.send((name, at_least))
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._pipe.send(None)
        self._process.join()


# Backends of Keras, and those that ours is compared with.
_NEEDS = {
    "tensorflow": ["tensorflow"],
    "jax": ["jax"],
    "torch": ["torch"],
    "loop": ["torch"],
    "art": ["art", "torch"],
    "art_trainer": ["art", "tensorflow"],
    "foolbox": ["foolbox", "torch"],
    "torchattacks": ["torchattacks", "torch"],
}


def installed(names: Iterable[str]) -> list[str]:
    """Those of some sides whose packages are here; says which are not."""
    found = []
    for name in names:
        missing = [
            each
            for each in _NEEDS[name]
            if importlib.util.find_spec(each) is None
        ]
        if missing:
            print(f"Left out: {name}. Not installed: {', '.join(missing)}.")
        else:
            found.append(name)
    return found


def measure(
    turns: Iterable[tuple[Worker, str]],
    rounds: int,
    at_least: float = 0.1,
    warm_up: int = 2,
) -> tuple[list[np.ndarray], list]:
    """Times variants in turn, round after round.

    Args:
        turns: Pairs of a worker and the name of one of its variants.
        rounds: Number of rounds.
        at_least: Seconds that a variant takes in a round, or more.
        warm_up: Calls of each variant before, which do not count.

    Returns:
        An array of shape `(rounds,)` for each turn: seconds of one call; and
        what each returned in the last round.
    """
    turns = list(turns)
    for worker, name in dict.fromkeys(turns):
        for _ in range(warm_up):
            worker.time(name)
    table = [
        [worker.time(name, at_least) for worker, name in turns]
        for _ in range(rounds)
    ]
    seconds = np.array([[each for each, _ in row] for row in table])
    return list(seconds.T), [result for _, result in table[-1]]


def _serve(pipe, make, args):
    # The flags of the parent, for the module was imported afresh.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(sys.argv)
    try:
        variants, facts = make(*args)
        pipe.send((list(variants), facts))
        while (request := pipe.recv()) is not None:
            name, at_least = request
            calls, started = 0, time.perf_counter()
            while not calls or time.perf_counter() - started < at_least:
                result = variants[name]()
                calls += 1
            seconds = (time.perf_counter() - started) / calls
            pipe.send((seconds, result))
    except Exception:
        pipe.send(traceback.format_exc())
