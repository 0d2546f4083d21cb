r"""Searches for the ensemble of attacks that breaks most images per pass.

The search found the default attack of `keras_epsched.evaluate`. It has two
steps:

1. With `--model`, it measures one network. A candidate is an attack with a
   loss, a number of steps and, if it is targeted, a target. Each candidate is
   tried on every image, at every epsilon at which a cheap attack did not break
   the image. The results are written to `--folder`.
2. Without `--model`, it reads the results of all networks in the folder and
   compares the candidates that all networks have. It builds an ensemble by
   adding one attack at a time, always the one that lowers expected robustness
   most for each pass it adds (arXiv 2211.12713). Then it tries every ensemble
   of a short attack, a longer one and a targeted one. Passes are counted as in
   a bisected sweep (`keras_epsched.evaluate`).

The result is judged on other networks, in frontier.py. The search used three
networks: digits with a fixed and with a scheduled epsilon (seed 0), and a
MobileNet on flowers (seed 1). Their expected robustness under
`keras_epsched.attacks.MarginEnsemble` is 0.279, 0.370 and 0.385, for 802 to
1003 passes for each image. Under all candidates together, it is 0.279, 0.368
and 0.383. The probability margin works as well as cross-entropy in the second
attack; cross-entropy was chosen so that the ensemble uses three losses.

Examples:
  python launch/finetune.py --train_steps=7 --learning_rate=3e-3 \
      --decay_start=0.05 \
      --schedule=fixed --output=runs/fixed
  python benchmarks/attack_search.py --model=runs/fixed/model.keras
  python benchmarks/attack_search.py
"""

import itertools
import pathlib

import numpy as np
from absl import app, flags
from tabulate import tabulate

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras classifier to measure.")
flags.DEFINE_string("dataset", "digits", "Name or folder of the dataset.")
flags.DEFINE_integer("image_size", 32, "Height and width of the images.")
flags.DEFINE_enum("norm", "linf", ["linf", "l2", "l1"], "Norm of the attacks.")
flags.DEFINE_float("epsilon", 0.3, "Largest of the nine epsilons.")
flags.DEFINE_integer("images", 100, "Number of test images.", lower_bound=8)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_string("folder", "runs/attack_search", "Folder of the results.")
flags.DEFINE_list("steps", ["10", "20", "40", "100"], "Steps of candidates.")
flags.DEFINE_list(
    "targeted",
    ["margin", "dlr", "probability_margin"],
    "Losses of targeted candidates.",
)
flags.DEFINE_integer("members", 4, "Largest number of attacks in an ensemble.")

_POINTS = 9
_TARGETS = 9
_UNTARGETED = ("ce", "margin", "dlr", "probability_margin")


def candidates():
    """Names of the candidates, and their attacks."""
    from keras_epsched import attacks

    norm = FLAGS.norm
    all_steps = [int(steps) for steps in FLAGS.steps]
    for loss, steps in itertools.product(_UNTARGETED, all_steps):
        yield f"APGD-{steps} {loss}", attacks.APGD(steps, norm, loss)
    for loss, steps in itertools.product(FLAGS.targeted, all_steps):
        attack = attacks.TargetedAPGD(steps, norm, _TARGETS, loss=loss)
        yield f"APGD-T-{steps} {loss}", attack
    yield (
        "PGD-20 probability_margin",
        attacks.PGD(20, norm, "probability_margin"),
    )
    yield "FAB-T-20", attacks.FAB(20, norm, targets=_TARGETS)


def compiled(classifier, attack):
    """A function that tells what one run of an attack breaks."""
    from keras_epsched import backend
    from keras_epsched.attacks import noise

    def search(pixels, labels, epsilons, numbers, places, variants):
        return attack.search(
            lambda images: classifier(images, training=False),
            pixels,
            labels,
            epsilons,
            noise.make_key(0, numbers, places, variants),
            variant=variants,
        ).broken

    return backend.compile(
        search, "auto", classifier.variables, FLAGS.batch_size
    )


def measure():
    """Tries all candidates on one network, and writes what they break."""
    import keras_epsched as ke
    from keras_epsched import backend

    classifier = ke.models.load(FLAGS.model)
    data = ke.datasets.load(
        FLAGS.dataset,
        image_size=(FLAGS.image_size, FLAGS.image_size),
        batch_size=FLAGS.batch_size,
        test_examples=FLAGS.images,
    )
    batches = [(np.asarray(x, "f4"), np.asarray(y)) for x, y in data.test]
    pixels, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    grid = FLAGS.epsilon * np.arange(1, _POINTS) / (_POINTS - 1)
    cheap = ke.evaluate(
        classifier,
        (pixels, labels),
        grid,
        ke.attacks.APGD(5, FLAGS.norm, "probability_margin"),
        self_check=False,
        verbose=0,
    )
    standing = cheap.correct[:, 1:]
    images, places = np.nonzero(standing)
    num_classes = classifier.output_shape[-1]
    folder = pathlib.Path(FLAGS.folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pathlib.Path(FLAGS.model).parent.name}.npz"
    found = {"hit": cheap.correct[:, 0], "standing": standing}
    if path.exists():  # Candidates that an earlier call has measured.
        earlier = dict(np.load(path))
        if not np.array_equal(earlier["standing"], standing):
            raise app.UsageError(
                f"{path} was measured on other images or at other epsilons. "
                "Pass another --folder, or delete the file"
            )
        found = earlier
    for name, attack in candidates():
        if name in found:
            continue
        run = compiled(classifier, attack)
        broken = []
        for variant in range(attack.num_variants(num_classes)):
            parts = []
            for at in range(0, len(images), FLAGS.batch_size):
                rows = images[at : at + FLAGS.batch_size]
                points = places[at : at + FLAGS.batch_size]
                whole = np.asarray(rows, backend.HASH_DTYPE)
                parts.append(
                    run(
                        pixels[rows],
                        labels[rows].astype("int32"),
                        grid[points].astype("float32"),
                        whole,
                        np.asarray(points, backend.HASH_DTYPE),
                        np.full(len(rows), variant, "int32"),
                    )
                )
            table = ~standing
            table[images, places] = np.concatenate(parts)
            broken.append(np.logical_or.accumulate(table, axis=1))
        found[name] = np.stack(broken)
        found[f"passes {name}"] = sum(attack.passes(num_classes))
        print(
            f"{name}: expected robustness "
            f"{expected(found['hit'], found[name].any(0)):.3f}"
        )
        np.savez_compressed(path, **found)


def expected(hit, broken):
    """Expected robustness on an even grid, by the trapezoidal rule."""
    curve = np.concatenate([[hit.mean()], (hit[:, None] & ~broken).mean(0)])
    return float(np.trapezoid(curve) / (len(curve) - 1))


def swept(found, stages):
    """Expected robustness and passes an image of a bisected sweep.

    As `keras_epsched.evaluation.sweep` goes: the first stage bisects, the
    others try one epsilon less, that which broke the image last first.
    """
    hit = found["hit"]
    tables = [found[name][variant] for name, variant in stages]
    costs = [int(found[f"passes {name}"]) for name, _ in stages]
    broken = np.zeros((len(hit), _POINTS - 1), bool)
    passes = 0
    for image in np.flatnonzero(hit):
        floor, ceiling = 0, _POINTS
        while floor + 1 < ceiling:
            middle = (floor + ceiling) // 2
            passes += costs[0]
            if tables[0][image, middle - 1]:
                ceiling = middle
            else:
                floor = middle
        order, last = list(range(1, len(stages))), None
        while ceiling > 1:
            if last is not None:
                order.remove(last)
                order.insert(0, last)
            last = None
            for stage in order:
                passes += costs[stage]
                if tables[stage][image, ceiling - 2]:
                    last, ceiling = stage, ceiling - 1
                    break
            if last is None:
                break
        broken[image, ceiling - 1 :] = True
    return expected(hit, broken), passes / len(hit)


def groups(found, counts):
    """Attacks that may be added, each as a list of stages."""
    for name in found:
        if name.startswith("passes ") or found[name].ndim != 3:
            continue
        runs = len(found[name])
        for count in counts if runs > 1 else (1,):
            title = f"{name}, {count} targets" if runs > 1 else name
            yield title, [(name, variant) for variant in range(count)]


def greedy(networks, options):
    """Adds the attack that gains most for its cost, again and again.

    Args:
        networks: List of dicts of what was measured.
        options: Dict from titles to lists of stages.

    Yields:
        Lists of titles, from each attack on.
    """
    for first in options:
        names, stages = [first], list(options[first])
        robustness, passes, _ = _mean(networks, stages)
        while True:
            yield names
            if len(names) == FLAGS.members:
                break
            tried = {
                title: _mean(networks, [*stages, *added])
                for title, added in options.items()
                if title not in names
            }
            best = max(
                tried,
                key=lambda title: (
                    (robustness - tried[title][0])
                    / max(tried[title][1] - passes, 1.0)
                ),
            )
            if tried[best][0] >= robustness:
                break
            robustness, passes, _ = tried[best]
            names = [*names, best]
            stages += options[best]


def triples(options):
    """Yields a short attack, one more without targets or none, and targets."""
    short = [title for title in options if title.startswith("APGD-10 ")]
    middle = [title for title in options if title.startswith("APGD-")]
    middle = [title for title in middle if "-T-" not in title]
    aimed = [title for title in options if title.startswith("APGD-T-")]
    for first, second, third in itertools.product(short, middle, aimed):
        if second == first:
            yield [first, third]
        else:
            yield [first, second, third]


def search():
    """Prints the ensembles that none beats in both strength and cost."""
    paths = sorted(pathlib.Path(FLAGS.folder).glob("*.npz"))
    if not paths:
        raise app.UsageError(
            f"{FLAGS.folder} has no results. Measure a network first, with "
            "--model=FILE.keras"
        )
    networks = [dict(np.load(path)) for path in paths]
    common = set.intersection(*map(set, networks))
    networks = [
        {name: found[name] for name in found if name in common}
        for found in networks
    ]
    everything = [
        expected(
            found["hit"],
            np.any([x.any(0) for x in found.values() if x.ndim == 3], axis=0),
        )
        for found in networks
    ]
    print("networks:", ", ".join(path.stem for path in paths))
    print(
        "expected robustness under all candidates together:",
        np.round(everything, 4),
    )
    few = dict(groups(networks[0], (1, 3, 5, 9)))
    many = dict(groups(networks[0], range(1, 1 + _TARGETS)))
    for title, tried in {
        "Greedy search by expected robustness per pass": greedy(networks, few),
        "Every triple": triples(many),
    }.items():
        rows = []
        for names in tried:
            stages = [stage for name in names for stage in many[name]]
            robustness, passes, each = _mean(networks, stages)
            rows.append((robustness, passes, " + ".join(names), *each))
        front, best = [], 1.0
        for row in sorted(rows, key=lambda row: row[1]):
            if row[0] < best:
                best = row[0]
                front.append(row)
        headers = ["E", "passes an image", "ensemble"]
        headers += [path.stem for path in paths]
        print(f"\n{title}. No other ensemble is both cheaper and stronger:")
        print(tabulate(front, headers, floatfmt=(".4f", ".0f", "", "", "")))


def _mean(networks, stages):
    results = [swept(found, stages) for found in networks]
    robustness, passes = np.mean(results, axis=0)
    each = [f"{one:.4f}, {cost:.0f}" for one, cost in results]
    return float(robustness), float(passes), each


def main(_):
    """Measures a network, or searches in what was measured."""
    if FLAGS.model:
        measure()
    else:
        search()


if __name__ == "__main__":
    app.run(main)
