r"""Compares attacks by expected robustness and passes.

A good default attack breaks nearly all images that AutoAttack breaks, for a
small share of its cost. This benchmark compares the attacks of this package
with AutoAttack, torchattacks, Foolbox and ART. A pass is one forward or one
backward pass of one image.

Networks that `launch/finetune.py` trains are evaluated at nine epsilons: by the
paper's protocol, by single attacks, by `MarginEnsemble` and by
`AutoAttack("standard")`. Torchattacks, Foolbox and ART attack the same weights
and images on torch, in a separate process (frontier_peer.py), with their
default settings and at one epsilon after the other. The AutoAttack of
torchattacks gets only a few images of digits.

The reference is AutoAttack. On digits it runs in a nested sweep with rising
epsilons (`bisect=False`). On photographs it runs with bisection, to save time.
There, the passes of the sweep with rising epsilons are estimated from the
attack and the epsilon that broke each image ("~" in the tables). The tables
compare the estimate with the count if both exist.

The goals for each network: `MarginEnsemble()` is at most 0.5 points of expected
robustness above the reference, and at most 1.5 points at each epsilon, for 1/20
of its passes. `MarginEnsemble("thorough")` is at most 0.2 points above, for
1/10 of its passes.

A network is trained if FOLDER/NETWORK/model.keras does not exist. Its
evaluations are saved beside it, and resume after an interruption. Only those
that --runs names are made, but finished ones are always shown.
FOLDER/frontier_IMAGES.json has all numbers of the tables and the picture.
Networks on photographs need $KERAS_EPSCHED_TEST_DATA. The exit status is 1 if a
goal is missed.

Examples:
  python benchmarks/frontier.py
  python benchmarks/frontier.py --networks=digits_fixed_1 --runs=default \
      --peers=foolbox_pgd,art_pgd --images=10
  python benchmarks/frontier.py --draw --picture=docs/pictures/frontier.png
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import frontier_results
import numpy as np
import workers
from absl import app, flags, logging

_PEERS = list(frontier_results.PEERS)
_RUNS = [*frontier_results.OURS, *frontier_results.REFERENCES]

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", "runs/frontier", "Folder of all results.")
flags.DEFINE_list("networks", None, "Names of networks. Default: all.")
flags.DEFINE_list(
    "runs",
    [*frontier_results.OURS, "reference"],
    f"Evaluations to make: {', '.join(_RUNS)}, or reference: AutoAttack with "
    "bisection on photographs and without it on digits.",
)
flags.DEFINE_list("peers", _PEERS, "Attacks of other libraries to run.")
flags.DEFINE_integer("images", 100, "Number of test images.", lower_bound=8)
flags.DEFINE_integer(
    "autoattack_images", 16, "Number of images for torchattacks' AutoAttack."
)
flags.DEFINE_bool("draw", False, "Show earlier results without measuring.")
flags.DEFINE_list("picture", [], "Paths for the picture (.png or .svg).")

_POINTS, _BATCH = 9, 50


class Network(NamedTuple):
    """How a network is trained, and what it is evaluated on."""

    training: list
    dataset: str = "digits"
    image_size: int = 32
    norm: str = "linf"
    epsilon: float = 0.3
    reference: str = "autoattack_nested"

    @property
    def grid(self):
        count = _POINTS - 1
        return [self.epsilon * i / count for i in range(1, count + 1)]


def known_networks():
    """The networks by name, without photographs where there are none."""
    digits = (
        "--seed=1 --epochs=20 --train_steps=7 --learning_rate=3e-3 "
        "--decay_start=0.05"
    ).split()
    ramp = [*digits, "--schedule=scheduled"]
    found = {
        "digits_scheduled_1": Network(ramp),
        "digits_fixed_1": Network([*digits, "--schedule=fixed"]),
        "digits_l2": Network(
            [*ramp, "--norm=l2", "--epsilon=2.0"], norm="l2", epsilon=2.0
        ),
        "digits_l1": Network(
            [*ramp, "--norm=l1", "--epsilon=20"], norm="l1", epsilon=20.0
        ),
    }
    data = os.environ.get("KERAS_EPSCHED_TEST_DATA")
    if not data:
        print(
            "Left out: networks on photographs, because "
            "$KERAS_EPSCHED_TEST_DATA is not set."
        )
        return found
    dataset, weights = f"{data}/datasets/flowers12_128", f"{data}/weights"
    flowers = (
        f"--dataset={dataset} --image_size=64 --epochs=12 --batch_size=32 "
        "--augment=flip --train_steps=3 --learning_rate=1e-3 --epsilon=4/255 "
        "--decay_start=0.05"
    ).split()
    backbones = {
        "mobilenet": [
            "--backbone=keras.applications.MobileNet",
            '--backbone_config={"alpha":0.75}',
            f"--weights={weights}/mobilenet_v1_075_224/"
            "mobilenet_7_5_224_no_top.weights.h5",
            "--scale=2/255",
            "--offset=-1",
        ],
        "vit": [f"--backbone={weights}/vit_tiny_16_224_tinyimagenet"],
    }
    for name, backbone in backbones.items():
        for schedule in ("scheduled", "fixed"):
            found[f"flowers_{name}_{schedule}"] = Network(
                [*flowers, *backbone, f"--schedule={schedule}"],
                dataset,
                64,
                epsilon=4 / 255,
                reference="autoattack_bisect",
            )
    return found


# === Measuring ===


def make_attacks(norm):
    """Attacks by the names of the runs, and how they sweep."""
    from keras_epsched import attacks

    def margin(steps):
        return attacks.APGD(steps, norm, "probability_margin")

    autoattack = attacks.AutoAttack("standard", norm)
    return {
        "paper": (attacks.APGD(10, norm), {"protocol": "paper"}),
        "apgd_10_ce": (attacks.APGD(10, norm), {}),
        "apgd_10": (margin(10), {}),
        "apgd_20": (margin(20), {}),
        "apgd_100": (margin(100), {}),
        "default": (attacks.MarginEnsemble(norm=norm), {}),
        "thorough": (attacks.MarginEnsemble("thorough", norm), {}),
        "autoattack_nested": (autoattack, {"bisect": False}),
        "autoattack_bisect": (autoattack, {"bisect": True}),
    }


def measure(name, network):
    """Everything about one network, as a plain dict."""
    import keras_epsched as ke

    folder = pathlib.Path(FLAGS.folder) / name
    if not (folder / "model.keras").exists():
        root = pathlib.Path(__file__).parents[1]
        command = [sys.executable, root / "launch" / "finetune.py"]
        options = ["--eval_attack=fgsm", "--test_examples=60"]
        subprocess.run(
            [*command, f"--output={folder}", *options, *network.training],
            check=True,
        )
    classifier = ke.models.load(folder / "model.keras")
    data = ke.datasets.load(
        network.dataset,
        image_size=(network.image_size, network.image_size),
        batch_size=_BATCH,
        test_examples=FLAGS.images,
        seed=0,
    )
    records = {}
    for run, (attack, how) in make_attacks(network.norm).items():
        place = folder / f"{run}_{FLAGS.images}"
        reference = "reference" in FLAGS.runs and run == network.reference
        if run in FLAGS.runs or reference:
            report = ke.evaluate(
                classifier,
                data.test,
                network.grid,
                attack,
                **how,
                folder=place,
                resume=True,
                self_check=False,
                model_name=name,
                verbose=0,
            )
            print(f"{name}: {run}, {report.seconds:.0f} s", flush=True)
        elif (place / "report.json").exists():
            report = ke.evaluation.Report.load(place)
        else:
            continue
        passes = report.forward_passes + report.backward_passes
        records[run] = {
            "correct": report.correct.astype(int).tolist(),
            "passes": passes / report.num_images,
            "seconds": report.seconds,
        }
        if run in frontier_results.REFERENCES:
            records[run]["estimate"] = passes_upwards(
                report, attack.members, data.num_classes
            )
    records |= measure_peers(name, network, classifier, data, folder)
    return {"norm": network.norm, "grid": network.grid, "records": records}


def passes_upwards(report, members, classes):
    """Estimated passes an image of a nested sweep that does not bisect.

    Below the epsilon that breaks an image it meets every attack; there, the
    attacks before the one that breaks it, and half of the runs of that one.
    FAB is asked once, for it gives a distance.
    """
    from keras_epsched import attacks

    once = np.array([isinstance(each, attacks.FAB) for each in members])
    cost = np.array([sum(each.passes(classes)) for each in members])
    count = np.array([each.num_variants(classes) for each in members])
    total = report.num_images
    for correct, broken_by in zip(
        report.correct, report.broken_by, strict=True
    ):
        if not correct[0]:
            continue
        stood = int(correct.sum()) - 1
        total += (np.where(once, min(stood, 1), stood) * cost * count).sum()
        if stood < len(correct) - 1:
            by = broken_by[stood + 1]
            asked = ~once | (stood == 0)
            half = cost[by] * (count[by] + 1) / 2
            total += asked[by] * ((asked * cost * count)[:by].sum() + half)
    return float(total / report.num_images)


def measure_peers(name, network, classifier, data, folder):
    """Records of the attacks of others."""
    folder = folder / f"peers_{FLAGS.images}"
    jobs = make_jobs(name, network, folder)
    if jobs:
        folder.mkdir(exist_ok=True)
        batches = [(np.asarray(x), np.asarray(y)) for x, y in data.test]
        images, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
        logits = classifier.predict(images, _BATCH, verbose=0)
        np.savez(
            folder / "inputs.npz", images=images, labels=labels, logits=logits
        )
        plan = {
            "norm": network.norm,
            "epsilons": network.grid,
            "classes": data.num_classes,
            "jobs": jobs,
        }
        (folder / "jobs.json").write_text(json.dumps(plan), encoding="utf-8")
        print(f"{name}: {', '.join(job['attack'] for job in jobs)}", flush=True)
        subprocess.run(
            [
                sys.executable,
                pathlib.Path(__file__).with_name("frontier_peer.py"),
                f"--model={folder.parent / 'model.keras'}",
                f"--folder={folder}",
                f"--batch_size={_BATCH}",
            ],
            env={**os.environ, "KERAS_BACKEND": "torch"},
            check=True,
        )
    records = {}
    for peer in _PEERS:
        if (folder / f"{peer}.json").exists():
            found = json.loads((folder / f"{peer}.json").read_text())
            passes = found["forward_passes"] + found["backward_passes"]
            records[peer] = {**found, "passes": passes / len(found["correct"])}
            if found["outside"]:
                count = found["outside"]
                print(
                    f"{name}: {count} images of {peer} exceed epsilon or the "
                    "range of pixels"
                )
    return records


def make_jobs(name, network, folder):
    """What the peers are still to do."""
    libraries = dict.fromkeys(peer.split("_")[0] for peer in FLAGS.peers)
    here = workers.installed(libraries)
    jobs = []
    for peer in FLAGS.peers:
        library, attack = peer.split("_")
        images = FLAGS.images
        if attack == "autoattack":
            if network.dataset != "digits":
                continue
            images = min(images, FLAGS.autoattack_images)
        if library == "torchattacks" and network.norm == "l1":
            print(f"{name}: left out: {peer}, because it has no l1 norm")
        elif library in here and not (folder / f"{peer}.json").exists():
            jobs.append({"attack": peer, "images": images})
    return jobs


def main(_):
    """Measures what is missing, and shows everything."""
    logging.set_verbosity(logging.ERROR)
    path = pathlib.Path(FLAGS.folder) / f"frontier_{FLAGS.images}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if not FLAGS.draw:
        networks = known_networks()
        for name in FLAGS.networks or networks:
            if name not in networks:
                raise app.UsageError(
                    f"--networks must be names from {list(networks)}. "
                    f"Received: {name}"
                )
            results[name] = measure(name, networks[name])
            path.write_text(json.dumps(results), encoding="utf-8")
    ordered = dict.fromkeys([*known_networks(), *results])
    results = {name: results[name] for name in ordered if name in results}
    if FLAGS.networks:
        results = {name: results[name] for name in FLAGS.networks}
    missed = frontier_results.show(results)
    if FLAGS.picture:
        frontier_results.draw(results, FLAGS.picture)
    for each in missed:
        print(f"MISSED: {each}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    app.run(main)
