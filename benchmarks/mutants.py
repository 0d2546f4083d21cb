"""Plants faults in the attacks and the sweep, to test the tests.

Each fault (mutant) changes one place in a copy of the project. Then the default
tests of that part run until one fails. If no test fails, the mutant survives,
and the tests miss this fault. The exit status is 1 if a mutant survives.

Examples:
  python benchmarks/mutants.py
  python benchmarks/mutants.py --only=momentum
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("only", "", "Run only mutants whose name contains this.")

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_ATTACKS = (
    "attacks/test_norms",
    "attacks/test_apgd",
    "attacks/test_attacks",
    "attacks/test_fab",
    "attacks/test_own_attacks",
)
_SWEEP = (
    "evaluation/test_queues",
    "evaluation/test_evaluate",
    "evaluation/test_sweep",
    "evaluation/test_self_checks",
)
_PROBLEM, _TRACKER, _STEPPERS, _NORMS, _SWEEP_FILE, _QUEUES = (
    "attacks/problem.py",
    "attacks/tracker.py",
    "attacks/steppers.py",
    "attacks/norms.py",
    "evaluation/sweep.py",
    "evaluation/queues.py",
)
# Name, tests, file, what is there, what comes instead.
_MUTANTS = [
    (
        "wrong sign",
        _ATTACKS,
        _NORMS,
        "return length * ops.sign(gradient)\n",
        "return -length * ops.sign(gradient)\n",
    ),
    (
        "no projection (linf)",
        _ATTACKS,
        _NORMS,
        "moved = ops.clip(moved, x - radius, x + radius)\n",
        "pass\n",
    ),
    (
        "no projection (l2)",
        _ATTACKS,
        _NORMS,
        "scale = ops.minimum(1.0, _divide(radius, ops.sqrt(_sum(square))))",
        "return ops.clip(moved, box[0], box[1])",
    ),
    (
        "no box",
        _ATTACKS,
        _NORMS,
        "return ops.clip(moved, box[0], box[1])\n\n    def step",
        "return moved\n\n    def step",
    ),
    (
        "clip before project (l1)",
        _ATTACKS,
        _NORMS,
        "        delta = moved - x\n        room = _room(x, delta, box)\n"
        "        radius = radius * _INSIDE\n\n        def shrunk",
        "        delta = ops.clip(moved, box[0], box[1]) - x\n"
        "        room = _room(x, delta, box)\n"
        "        radius = radius * _INSIDE\n\n        def shrunk",
    ),
    (
        "step never halved",
        _ATTACKS,
        _STEPPERS,
        "halve = check & (",
        "halve = check & (index < 0) & (",
    ),
    (
        "momentum 1",
        _ATTACKS,
        _STEPPERS,
        "_MOMENTUM = 0.75",
        "_MOMENTUM = 1.0",
    ),
    (
        "best not kept",
        _ATTACKS,
        _TRACKER,
        '"best": select(better, moved, state["best"])',
        '"best": moved',
    ),
    (
        "broken not sticky",
        _ATTACKS,
        _TRACKER,
        '"broken": state["broken"] | seen.broken',
        '"broken": seen.broken',
    ),
    (
        "a later run overwrites what an earlier one broke",
        _SWEEP,
        _QUEUES,
        "                image.warm = (place, np.array(adversarial))\n"
        "        following",
        "                image.warm = (place, np.array(adversarial))\n"
        "        elif not self.nested:\n"
        "            image.broken_at[:] = -1\n"
        "        following",
    ),
    (
        "epsilon off by the range's width",
        _ATTACKS,
        _PROBLEM,
        'ops.cast(epsilon, "float32") * (high - low)',
        'ops.cast(epsilon, "float32")',
    ),
    (
        "epsilon of another image",
        _SWEEP,
        _SWEEP_FILE,
        "np.array([self.epsilons[place] for _, place, _ in tasks])",
        "np.array([self.epsilons[place] for _, place, _ in tasks[::-1]])",
    ),
    (
        "compaction writes to another image",
        _SWEEP,
        _SWEEP_FILE,
        "row = [None if each is None else each[slot] for each in result]",
        "row = [None if each is None else each[count - 1 - slot] "
        "for each in result]",
    ),
    (
        "warm start not projected",
        _ATTACKS,
        _PROBLEM,
        "self.select(self.use_start, self.project(self.start), own_start)",
        "self.select(self.use_start, self.start, own_start)",
    ),
    (
        "a point outside counts",
        _ATTACKS,
        _TRACKER,
        "broken, distance = found.broken & inside, None",
        "broken, distance = found.broken, None",
    ),
    (
        "images to train on are not confined",
        _ATTACKS,
        "attacks/base.py",
        "problem.confine(moved, self.stays_in_ball)",
        "moved",
    ),
    (
        "warm start not moved to the new sphere",
        _SWEEP,
        _QUEUES,
        "return image.pixels + growth * (best - image.pixels)",
        "return image.pixels",
    ),
    (
        "attack silent after the first batch",
        _SWEEP,
        _SWEEP_FILE,
        "        for slot, task in enumerate(tasks):\n",
        "        if self.runs[number] > self.batch_size:\n"
        "            result = result._replace("
        "broken=np.zeros_like(result.broken))\n"
        "        for slot, task in enumerate(tasks):\n",
    ),
    (
        "bisection forgets the ceiling",
        _SWEEP,
        _QUEUES,
        "if image.floor + 1 < image.ceiling:\n                return self",
        "if image.floor + 2 < image.ceiling:\n                return self",
    ),
    (
        "distance counts without rounding up",
        _SWEEP,
        _QUEUES,
        "np.searchsorted(self.epsilons, image.distances[stage])",
        "np.searchsorted(self.epsilons, image.distances[stage]) - 1",
    ),
]


def run(mutant):
    """The test that kills a mutant, or `None`."""
    _, tests, file, before, after = mutant
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "project"
        ignored = shutil.ignore_patterns(
            ".git", "runs", "__pycache__", "*.egg*"
        )
        shutil.copytree(_ROOT, copy, ignore=ignored)
        path = copy / "keras_epsched" / file
        text = path.read_text()
        if text.count(before) != 1:
            raise ValueError(
                f"{file} holds {text.count(before)} times, not once: {before}"
            )
        path.write_text(text.replace(before, after))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-n", "2"]
            + ["--dist", "load", "-W", "ignore"]
            + [f"tests/{name}.py" for name in tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"FAILED tests/(\S+)", done.stdout)
    if done.returncode and not found:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return found.group(1) if found else None


def main(_):
    survivors = 0
    for mutant in _MUTANTS:
        if FLAGS.only in mutant[0]:
            killer = run(mutant)
            survivors += killer is None
            print(f"{mutant[0]}: {killer or 'SURVIVED'}", flush=True)
    sys.exit(bool(survivors))


if __name__ == "__main__":
    app.run(main)
