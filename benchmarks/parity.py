r"""Compares the strength of attacks with those of other libraries.

An attack that is too weak makes any network look robust. So robustly fine-tuned
networks are attacked by this package and by other libraries, with the same
steps, queries, targets and images. The epsilons leave much, about half and
about a third of the clean accuracy:

- APGD, APGD-T, FAB-T and Square are compared with torchattacks. It runs in a
  separate process on the same .keras file, loaded by Keras on torch
  (parity_peer.py).
- PGD is compared with Foolbox and ART, on the same Keras model.

The goals:

- Each attack of this package leaves at most one point of accuracy more than
  that of another library.
- The four attacks of this package together leave at most one point more than
  ALL those of the other libraries together.
- No adversarial image exceeds epsilon or the range of pixels. Both sides are
  checked in float64; an image that does counts as a failure of its attack.
- At least 99 % of the adversarial images of this package also fool the network
  on torch, and at least 99 % of those of torchattacks fool the one on
  TensorFlow.

The column "both / either" is the number of images that both attacks fooled,
divided by the number that at least one fooled.

The bundled backbone on digits always runs. MobileNet 0.75 runs on your dataset
if --dataset and --weights are given. With --models, trained networks are kept
there and not trained again. It needs `pip install -e ".[peers]"`. The exit
status is 1 if a goal is missed.

Examples:
  python benchmarks/parity.py
  python benchmarks/parity.py --quick
  python benchmarks/parity.py --models=FOLDER --dataset=FOLDER/flowers12_128 \
      --weights=FOLDER/mobilenet_7_5_224_no_top.weights.h5
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_string("models", None, "Folder to keep the trained networks in.")
flags.DEFINE_string("dataset", None, "A prepared dataset, for MobileNet.")
flags.DEFINE_string("weights", None, "File with weights of MobileNet.")
flags.DEFINE_list("norms", ["linf", "l2"], "Norms: linf, l2.")
flags.DEFINE_integer("images", 256, "Number of test images.", lower_bound=8)
flags.DEFINE_integer(
    "steps", 20, "Steps of all attacks except Square.", lower_bound=1
)
flags.DEFINE_integer("queries", 1000, "Queries of Square.", lower_bound=1)
flags.DEFINE_integer(
    "targets", 9, "Target classes of targeted attacks.", lower_bound=1
)
flags.DEFINE_list(
    "remaining",
    ["0.8", "0.55", "0.35"],
    "Choose epsilons that leave these shares of the clean accuracy.",
)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "The first seed of the attacks.")
flags.DEFINE_integer(
    "seeds",
    1,
    "Number of runs of each attack. Accuracies are averaged over them.",
    lower_bound=1,
)
flags.DEFINE_list(
    "attacks",
    ["APGD", "APGD-T", "FAB-T", "Square", "Square rescaled", "PGD"],
    "Attacks to compare.",
)
flags.DEFINE_bool(
    "quick", False, "Use few images, steps and epochs, without a verdict."
)

_POINTS, _TRANSFER = 1.0, 0.99
# The share of clean accuracy that a peer leaves where a comparison tells
# something, and at how many epsilons it should.
_BAND, _WANTED = (0.15, 0.85), 3
# Rounding of float32 pixels and sums, which no attack is to be blamed for.
_RELATIVE, _ABSOLUTE = 1e-5, 2 * float(np.spacing(np.float32(1)))

_OURS = ("APGD", "APGD-T", "FAB-T", "Square")
_TORCHATTACKS = (*_OURS, "Square rescaled")
# Which of ours each attack of others is compared with.
_PAIRS = {name: name for name in _TORCHATTACKS}
_ALL = "all together"
_PAIRS |= {"PGD (Foolbox)": "PGD", "PGD (ART)": "PGD"}


class Network(NamedTuple):
    """A classifier with the images that it classifies correctly."""

    name: str
    path: pathlib.Path
    classifier: object
    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    total: int

    def accuracy(self, fooled):
        """Accuracy in points over all images, also those not attacked."""
        return 100 * (~fooled).sum(axis=-1).mean() / self.total


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


# === The networks ===


def fit(classifier, data, rate, epochs, epsilon, **kwargs):
    """Robust fine-tuning by PGD-3 and a ramp."""
    import keras

    import keras_epsched as ke

    trainer = ke.AdversarialTrainer(
        classifier, ke.attacks.PGD(steps=3), seed=0, **kwargs
    )
    trainer.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    trainer.fit(
        data.train,
        epochs=2 if FLAGS.quick else epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            ke.callbacks.EpsilonScheduler(ke.schedules.TwoHinge(epsilon))
        ],
    )


def digits(data):
    """The bundled backbone, made robust on digits."""
    import keras_epsched as ke

    classifier = ke.models.classifier(
        "resnet_letters", data.num_classes, image_size=data.image_size, seed=0
    )
    fit(classifier, data, 3e-3, 16, 0.15)
    return classifier


def mobilenet(data):
    """MobileNet 0.75, made robust on the dataset of the flags."""
    import keras

    import keras_epsched as ke

    backbone = keras.applications.MobileNet(
        alpha=0.75,
        include_top=False,
        input_shape=(*data.image_size, 3),
        weights=FLAGS.weights,
    )
    classifier = ke.models.classifier(
        backbone, data.num_classes, scale=1 / 127.5, offset=-1.0, seed=0
    )
    fit(classifier, data, 1e-3, 20, 4 / 255, batchnorm_momentum=0.9)
    return classifier


def prepare(name, make, source, folder):
    """Trains a network, or loads it, and takes what it gets right."""
    import keras

    import keras_epsched as ke

    keras.utils.set_random_seed(0)
    data = ke.datasets.load(source, image_size=(32, 32), batch_size=64, seed=0)
    path = folder / f"{name}{'-quick' if FLAGS.quick else ''}.keras"
    if path.exists():
        say(f"{name}: loads {path}")
    else:
        started = time.perf_counter()
        make(data).save(path)
        say(f"{name}: trained in {time.perf_counter() - started:.0f} s")
    classifier = ke.models.load(path)
    batches = [(np.asarray(x), np.asarray(y)) for x, y in data.test]
    images, labels = (
        np.concatenate(each)[: FLAGS.images]
        for each in zip(*batches, strict=True)
    )
    hit = predictions(classifier, images) == labels
    say(f"{name}: {hit.sum()} of {len(images)} correct without attack")
    return Network(
        name,
        path,
        classifier,
        images[hit],
        labels[hit],
        data.num_classes,
        len(images),
    )


def predictions(classifier, images):
    """Classes of NHWC images in 0..255."""
    if not len(images):
        return np.zeros(0, "int64")
    logits = classifier.predict(images, FLAGS.batch_size, verbose=0)
    return logits.argmax(-1)


# === Our attacks ===


def make_ours(norm):
    from keras_epsched import attacks

    steps, targets = FLAGS.steps, FLAGS.targets
    known = {
        "APGD": attacks.APGD(steps, norm),
        "APGD-T": attacks.TargetedAPGD(steps, norm, targets=targets),
        "FAB-T": attacks.FAB(steps, norm, targets=targets),
        "Square": attacks.Square(FLAGS.queries, norm),
        "Square rescaled": attacks.Square(FLAGS.queries, norm, rescale=True),
        "PGD": attacks.PGD(steps, norm),
    }
    return {name: known[name] for name in FLAGS.attacks}


def seeds():
    return range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)


class Searcher:
    """Runs one of our attacks on all images of a network."""

    def __init__(self, network, attack):
        from keras_epsched import backend

        def search(images, labels, epsilon, key, variant):
            return attack.search(
                lambda images: network.classifier(images, training=False),
                images,
                labels,
                epsilon,
                key,
                variant=variant,
            )

        self.network = network
        self.search = backend.compile(search)
        self.variants = attack.num_variants(network.num_classes)

    def batch(self, numbers, epsilon, variant, seed):
        """What the attack finds on some images: a batch of fixed size."""
        from keras_epsched.attacks import noise

        size = FLAGS.batch_size
        filled = np.resize(numbers, size)
        result = self.search(
            self.network.images[filled],
            self.network.labels[filled].astype("int32"),
            np.full(size, epsilon, "float32"),
            noise.make_key(seed, filled, variant),
            np.full(size, variant, "int32"),
        )
        return [
            None if each is None else np.asarray(each)[: len(numbers)]
            for each in result
        ]

    def attack(self, epsilon, seed):
        """Adversarial images, and which of them broke theirs."""
        moved = self.network.images.copy()
        broken = np.zeros(len(moved), bool)
        for variant in range(self.variants):
            standing = np.flatnonzero(~broken)
            for at in range(0, len(standing), FLAGS.batch_size):
                numbers = standing[at : at + FLAGS.batch_size]
                adversarial, new, *_ = self.batch(
                    numbers, epsilon, variant, seed
                )
                moved[numbers[new]] = adversarial[new]
                broken[numbers] = new
        return moved, broken

    def distances(self):
        """The smallest epsilon that breaks each image, by FAB."""
        smallest = np.full(len(self.network.images), np.inf)
        for variant in range(self.variants):
            for at in range(0, len(smallest), FLAGS.batch_size):
                numbers = np.arange(len(smallest))[at : at + FLAGS.batch_size]
                found = self.batch(numbers, 1.0, variant, FLAGS.seed)[-1]
                smallest[numbers] = np.minimum(smallest[numbers], found)
        return smallest


def choose_epsilons(network, norm):
    """Epsilons that leave the wanted shares of the clean accuracy.

    Returns:
        Those for all attacks, by the distances that FAB finds, and those for
        Square, which breaks far less: the same, where Square with a fifth of
        its queries shows them to be in the band, or its own.
    """
    import keras_epsched as ke

    wanted = [float(share) for share in FLAGS.remaining]
    fab = ke.attacks.FAB(FLAGS.steps, norm, targets=FLAGS.targets)
    distances = Searcher(network, fab).distances()
    common = [rounded(np.quantile(distances, 1 - each)) for each in wanted]
    if not any("Square" in name for name in FLAGS.attacks):
        return common, []
    highest = {"linf": 1.0, "l2": np.inf}[norm]
    grid = np.geomspace(min(common), min(12 * max(common), highest), 21)
    report = ke.evaluate(
        network.classifier,
        (network.images, network.labels),
        grid,
        ke.attacks.Square(max(FLAGS.queries // 5, 1), norm),
        bisect=True,
        batch_size=FLAGS.batch_size,
        seed=FLAGS.seed,
        self_check=False,
        verbose=0,
    )
    # The grid of the report begins with 0.
    curve, grid = report.accuracy[1:], np.log(report.epsilons[1:])
    left = np.interp(np.log(common), grid, curve)
    if ((left > _BAND[0]) & (left < _BAND[1])).all():
        return common, common
    own = np.exp(np.interp(wanted, curve[::-1], grid[::-1]))
    return common, [rounded(each) for each in own]


def rounded(epsilon):
    return float(f"{epsilon:.3g}")


# === The attacks of others, on TensorFlow ===


def foolbox_pgd(network, norm, epsilon):
    """Images moved by Foolbox."""
    import foolbox
    import tensorflow as tf

    model = foolbox.TensorFlowModel(network.classifier, bounds=(0, 255))
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    attack = kind(steps=FLAGS.steps, rel_stepsize=2.5 / FLAGS.steps)
    moved = []
    for at in range(0, len(network.images), FLAGS.batch_size):
        part = slice(at, at + FLAGS.batch_size)
        x = tf.constant(network.images[part])
        y = tf.constant(network.labels[part])
        moved.append(attack(model, x, y, epsilons=255 * epsilon)[1].numpy())
    return np.concatenate(moved)


def art_pgd(network, norm, epsilon):
    """Images moved by ART."""
    import keras
    from art.attacks.evasion import ProjectedGradientDescentTensorFlowV2
    from art.estimators.classification import TensorFlowV2Classifier

    wrapped = TensorFlowV2Classifier(
        model=network.classifier,
        nb_classes=network.num_classes,
        input_shape=network.images.shape[1:],
        loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
        clip_values=(0, 255),
    )
    attack = ProjectedGradientDescentTensorFlowV2(
        wrapped,
        norm={"linf": np.inf, "l2": 2}[norm],
        eps=255 * epsilon,
        eps_step=255 * epsilon * 2.5 / FLAGS.steps,
        max_iter=FLAGS.steps,
        num_random_init=1,
        batch_size=FLAGS.batch_size,
        verbose=False,
    )
    return attack.generate(
        network.images, np.eye(network.num_classes)[network.labels]
    )


# === Torchattacks ===


class Peer:
    """A process with the network on torch, at work in a folder of its own."""

    running = []

    def __init__(self, network, folder, jobs=(), found=None):
        self.folder, self.jobs = folder, jobs
        folder.mkdir()
        np.savez(
            folder / "inputs.npz", images=network.images, labels=network.labels
        )
        if jobs:
            text = json.dumps(jobs)
            (folder / "jobs.json").write_text(text, encoding="utf-8")
        if found:
            np.savez(folder / "found.npz", **found)
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(pathlib.Path(__file__).with_name("parity_peer.py")),
                f"--model={network.path}",
                f"--folder={folder}",
                f"--batch_size={FLAGS.batch_size}",
            ],
            env={**os.environ, "KERAS_BACKEND": "torch"},
        )
        Peer.running.append(self.process)

    def wait(self):
        """Returns adversarial images of each job, and predictions."""
        if self.process.wait():
            raise RuntimeError(
                "The process with torch failed. Its error is printed above."
            )
        with np.load(self.folder / "attacked.npz") as arrays:
            attacked = [arrays[f"job{at}"] for at in range(len(self.jobs))]
        with np.load(self.folder / "answers.npz") as arrays:
            return attacked, dict(arrays)


def make_jobs(network, norm, common, square):
    """What torchattacks is to do."""
    chosen = [name for name in _OURS if name in FLAGS.attacks]
    plan = [(name, epsilon) for epsilon in common for name in chosen]
    plan += [
        (name, epsilon)
        for epsilon in square
        for name in ("Square", "Square rescaled")
        if name in FLAGS.attacks and (name, epsilon) not in plan
    ]
    return [
        {
            "attack": name,
            "norm": norm,
            "epsilon": epsilon,
            "steps": FLAGS.steps,
            "queries": FLAGS.queries,
            "targets": min(FLAGS.targets, network.num_classes - 1),
            "seed": seed,
        }
        for name, epsilon in plan
        for seed in seeds()
    ]


# === The comparison ===


def excess(moved, clean, epsilon, norm):
    """By how much images in [0, 1] leave the ball or the box, in float64."""
    moved = moved.astype("float64").reshape(len(moved), -1)
    delta = moved - clean.astype("float64").reshape(len(moved), -1)
    order = {"linf": np.inf, "l2": 2}[norm]
    size = np.linalg.norm(delta, order, axis=1) if len(moved) else np.zeros(0)
    allowed = epsilon * (1 + _RELATIVE) + _ABSOLUTE
    outside = np.maximum(-moved, moved - 1).max(1, initial=0.0)
    return np.where(outside > 0, np.inf, np.maximum(size - allowed, 0.0))


class Finding(NamedTuple):
    """What one attack did at one epsilon."""

    fooled: np.ndarray  # (seeds, images)
    moved: np.ndarray  # the same images, NHWC in 0..255
    left: int  # images that would be fooled, but lie outside


def finding(network, norm, epsilon, runs):
    """The finding of several runs: images in 0..255 and flags of success."""
    clean = network.images.astype("float64") / 255
    fooled, left = [], 0
    for moved, broken in runs:
        beyond = excess(moved.astype("float64") / 255, clean, epsilon, norm)
        fooled.append(broken & (beyond == 0))
        left += int((broken & (beyond > 0)).sum())
    return Finding(np.stack(fooled), np.stack([each for each, _ in runs]), left)


def find_ours(network, norm, common, square):
    """Findings of our attacks, by their name and epsilon."""
    found = {}
    for name, attack in make_ours(norm).items():
        searcher = Searcher(network, attack)
        epsilons = common
        if "Square" in name:
            both = common if name == "Square" else ()
            epsilons = sorted({*both, *square})
        for epsilon in epsilons:
            started = time.perf_counter()
            runs = [searcher.attack(epsilon, seed) for seed in seeds()]
            found[name, epsilon] = finding(network, norm, epsilon, runs)
            say(
                f"{network.name} {norm} {epsilon:.4g} {name}: "
                f"{found[name, epsilon].fooled.sum(-1)} of "
                f"{len(network.images)} fooled, "
                f"{time.perf_counter() - started:.0f} s"
            )
    return found


def find_on_tensorflow(network, norm, epsilons):
    """Findings of Foolbox and ART, likewise."""
    import keras

    found = {}
    peers = {"PGD (Foolbox)": foolbox_pgd, "PGD (ART)": art_pgd}
    if "PGD" not in FLAGS.attacks:
        return found
    for name, attack in peers.items():
        for epsilon in epsilons:
            runs = []
            for seed in seeds():
                keras.utils.set_random_seed(seed)
                moved = attack(network, norm, epsilon)
                answer = predictions(network.classifier, moved)
                runs.append((moved, answer != network.labels))
            found[name, epsilon] = finding(network, norm, epsilon, runs)
        say(f"{network.name} {norm} {name}: done")
    return found


def share(values):
    """Mean in percent, or a dash where there is nothing."""
    return f"{100 * np.mean(values):.1f} %" if len(values) else "-"


class Comparison:
    """Compares the findings on one network, and notes what is missed."""

    def __init__(self, network):
        self.network = network
        self.rows, self.transfer, self.missed = [], [], []
        self.bands = {}

    def miss(self, text):
        self.missed.append(f"{self.network.name}, {text}")

    def row(self, norm, epsilon, name, ours, peer):
        """A row of the table, from flags of fooled images."""
        accuracy = self.network.accuracy
        gap = accuracy(ours) - accuracy(peer)
        either = (ours | peer).sum()
        both = f"{(ours & peer).sum() / either:.2f}" if either else "-"
        left = (~peer).mean()
        within = _BAND[0] <= left <= _BAND[1]
        self.bands.setdefault((norm, name), []).append(within)
        if gap > _POINTS and not FLAGS.quick:
            self.miss(
                f"{norm} {epsilon:.4g}, {name}: ours leaves {gap:.1f} points "
                f"more ({(peer & ~ours).sum()} images only by the peer, "
                f"{(ours & ~peer).sum()} only by ours)"
            )
        self.rows.append(
            (
                norm,
                f"{epsilon:.4g}",
                name,
                f"{accuracy(ours):.1f}",
                f"{accuracy(peer):.1f}",
                f"{gap:+.1f}",
                both,
                f"{left:.2f}" + ("" if within else " (out of band)"),
            )
        )

    def compare(self, norm, epsilon, ours, peers):
        """Rows of one epsilon."""
        for name, mine in _PAIRS.items():
            if name in peers:
                self.row(
                    norm, epsilon, name, ours[mine].fooled, peers[name].fooled
                )
        if set(_OURS) <= set(ours):
            all_ours = np.any([ours[name].fooled for name in _OURS], axis=0)
            all_peers = np.any([each.fooled for each in peers.values()], axis=0)
            self.row(norm, epsilon, _ALL, all_ours, all_peers)
        for owner, findings in (("our", ours), ("the peer's", peers)):
            for name, finding in findings.items():
                if finding.left:
                    text = f"{owner} {name} left the ball {finding.left} times"
                    if owner == "our":
                        self.miss(f"{norm} {epsilon:.4g}: {text}")
                    else:
                        say(f"{self.network.name} {norm} {epsilon:.4g}: {text}")

    def check_bands(self):
        """Whether enough epsilons were telling."""
        for (norm, name), within in self.bands.items():
            if sum(within) < _WANTED and not FLAGS.quick:
                self.miss(
                    f"{norm}, {name}: only {sum(within)} epsilons leave the "
                    f"peer {_BAND[0]:.0%} to {_BAND[1]:.0%} of clean accuracy"
                )

    def add_transfer(self, norm, name, ours, peers):
        """Whether what fools one copy of the network fools the other."""
        for owner, fools in (("ours", ours), ("the peer's", peers)):
            if len(fools) and np.mean(fools) < _TRANSFER:
                self.miss(
                    f"{norm}: of {owner} {name} only {share(fools)} fool the "
                    "other copy"
                )
        count = f"{len(ours)}, {len(peers)}"
        self.transfer.append((norm, name, share(ours), share(peers), count))

    def report(self):
        """Prints the tables."""
        from tabulate import tabulate

        headers = ("norm", "epsilon", "attack", "ours", "peer")
        headers += ("ours - peer", "both / either", "peer / clean")
        print(f"\n{self.network.name}: accuracy under attack, in %")
        print(tabulate(self.rows, headers, disable_numparse=True))
        headers = ("norm", "attack", "ours fool torch", "the peer's fool TF")
        headers += ("images",)
        print(
            f"\n{self.network.name}: adversarial images on the same network on "
            "another backend"
        )
        print(tabulate(self.transfer, headers, disable_numparse=True))
        print(flush=True)


def compare(network, folder):
    """All norms and epsilons of one network."""
    result = Comparison(network)
    epsilons, torch, ours, peers = {}, {}, {}, {}
    for norm in FLAGS.norms:
        common, square = epsilons[norm] = choose_epsilons(network, norm)
        say(f"{network.name} {norm}: epsilons {common}, of Square {square}")
        # At work while ours and the others are.
        torch[norm] = Peer(
            network,
            folder / f"{network.name}-{norm}",
            make_jobs(network, norm, common, square),
        )
    for norm in FLAGS.norms:
        common, square = epsilons[norm]
        ours[norm] = find_ours(network, norm, common, square)
        peers[norm] = find_on_tensorflow(network, norm, common)
    found = {
        f"{norm}/{name}/{epsilon!r}": finding.moved[finding.fooled]
        for norm, findings in ours.items()
        for (name, epsilon), finding in findings.items()
    }
    judge = Peer(network, folder / f"{network.name}-judge", found=found)
    _, answers = judge.wait()
    if (answers["clean"] != network.labels).any():
        result.miss("torch: clean images are classified otherwise")
    transfer = {}
    for norm in FLAGS.norms:
        for name, epsilon in ours[norm]:
            labels = labels_of(network, ours[norm][name, epsilon].fooled)
            answer = answers[f"{norm}/{name}/{epsilon!r}"]
            transfer.setdefault((norm, name), ([], []))[0].append(
                answer != labels
            )
        runs = {}
        for job, moved, answer in zip(*torch_results(torch[norm]), strict=True):
            runs.setdefault((job["attack"], job["epsilon"]), []).append(
                (255 * moved, answer != network.labels)
            )
        for (name, epsilon), each in runs.items():
            found = finding(network, norm, epsilon, each)
            peers[norm][name, epsilon] = found
            transfer.setdefault((norm, name), ([], []))[1].append(
                predictions(network.classifier, found.moved[found.fooled])
                != labels_of(network, found.fooled)
            )
        for epsilon in sorted({*epsilons[norm][0], *epsilons[norm][1]}):
            both = [
                {
                    name: each
                    for (name, at), each in side.items()
                    if at == epsilon
                }
                for side in (ours[norm], peers[norm])
            ]
            result.compare(norm, epsilon, *both)
    for (norm, name), sides in transfer.items():
        empty = np.zeros(0, bool)
        sides = [np.concatenate([empty, *side]) for side in sides]
        result.add_transfer(norm, name, *sides)
    result.check_bands()
    result.report()
    return result.missed


def torch_results(peer):
    """Jobs of a peer, its images, and its answers to them."""
    attacked, answers = peer.wait()
    return (
        peer.jobs,
        attacked,
        [answers[f"job{at}"] for at in range(len(peer.jobs))],
    )


def labels_of(network, fooled):
    """Labels of the images that a finding's flags select."""
    return np.broadcast_to(network.labels, fooled.shape)[fooled]


def main(_):
    logging.set_verbosity(logging.ERROR)
    if (FLAGS.dataset is None) != (FLAGS.weights is None):
        raise app.UsageError("Pass --dataset and --weights together")
    if FLAGS.quick:
        FLAGS.images, FLAGS.steps, FLAGS.queries = 32, 5, 30
        FLAGS.targets, FLAGS.remaining = 3, ["0.5"]
    networks = {"digits": (digits, "digits")}
    if FLAGS.dataset:
        networks["mobilenet"] = mobilenet, FLAGS.dataset
    missed = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        models = pathlib.Path(FLAGS.models or scratch)
        models.mkdir(parents=True, exist_ok=True)
        try:
            for name, (make, source) in networks.items():
                missed += compare(prepare(name, make, source, models), scratch)
        finally:
            for process in Peer.running:
                # Nothing, but where an error has ended this one early.
                process.kill()
                process.wait()
    for each in missed:
        print(f"MISSED: {each}")
    if FLAGS.quick:
        print("--quick: the strength of the attacks was not judged.")
    sys.exit(bool(missed))


if __name__ == "__main__":
    app.run(main)
