"""An evaluation that several workers share equals that of one process."""

import os
import sys

import numpy as np
import pytest

from keras_epsched import runs, studies
from keras_epsched.runs import build
from keras_epsched.studies import workers


def config(place, name="whole", **values):
    short = {"dataset": "digits", "test_examples": 30, "num_epsilons": 3}
    short |= {"eval_attack": "apgd", "eval_steps": 2, "batch_size": 8}
    short |= {"model": (str(place / "net.keras"),), "image_size": 16}
    return studies.SharedEvaluation(
        output=str(place / name), **{**short, **values}
    )


@pytest.fixture
def place(tmp_path):
    found = runs.Config(image_size=16)
    build.make_classifier(found, 10, 0).save(tmp_path / "net.keras")
    return tmp_path


def assert_same(report, other):
    np.testing.assert_array_equal(report.image_ids, other.image_ids)
    np.testing.assert_array_equal(report.correct, other.correct)
    np.testing.assert_array_equal(report.predictions, other.predictions)
    assert report.expected_robustness() == other.expected_robustness()


class OneProcess:
    """Ray's part, done here: a task is called when its result is asked for."""

    class exceptions:
        RayError = RuntimeError

    def __init__(self):
        self.done = []

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **options):
        assert options["max_retries"] == 2

        def wrapped(function):
            def later(*arguments):
                return lambda: (
                    self.done.append(arguments) or function(*arguments)
                )

            function.remote = later
            return function

        return wrapped

    def get(self, reference):
        return reference()


@pytest.mark.ci
def test_shares_are_merged_and_resumed(place, monkeypatch):
    whole = runs.evaluate(config(place), verbose=0).reports["net"]
    ray = OneProcess()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(workers.devices, "share", lambda resources: None)
    shared = config(place, "shared", workers=3)
    report = studies.evaluate(shared, verbose=0).reports["net"]
    assert len(ray.done) == 3
    assert_same(report, whole)
    assert (place / "shared" / "report.html").exists()
    created = {
        path: path.stat().st_mtime_ns
        for path in (place / "shared").glob("shares-of-3/*/report.json")
    }
    assert len(created) == 3
    # Finished shares are read.
    again = studies.evaluate(shared.replace(resume=True), verbose=0)
    assert_same(again.reports["net"], whole)
    for path, when in created.items():
        assert path.stat().st_mtime_ns == when


@pytest.mark.slow
def test_two_workers_of_ray(place):
    ray = pytest.importorskip("ray")
    whole = runs.evaluate(config(place), verbose=0).reports["net"]
    shared = config(place, "shared", workers=2)
    try:
        report = studies.evaluate(shared).reports["net"]
    finally:
        ray.shutdown()
    assert_same(report, whole)
    assert os.path.exists(place / "shared" / "shares-of-2" / "1")
