r"""Compares standard, fixed-epsilon and scheduled robust fine-tuning.

Fine-tunes one non-robust backbone once by each schedule, on the same data,
with the same head initialisation, data order and learning rate: without any
attack, with the target epsilon from the first step on ("fixed"), and with
epsilon ramped between two hinges ("scheduled", arXiv 2509.23325), or by the
--schedules given. Then measures the accuracy of all at every epsilon, by the
default attack and by the protocol of the paper, and draws two pictures.

Examples:
  # The built-in demonstration, about ten minutes on two CPU cores:
  python launch/compare.py
  # Three seeds, with mean and standard error:
  python launch/compare.py --seeds=3
  # Your data and backbone, at the paper's strength:
  python launch/compare.py --dataset=stanford_dogs --download \
      --backbone=resnet_50_imagenet --image_size=224 --epsilon=4/255 \
      --epochs=50 --augment=flip,color,rotation --learning_rates=1e-4
  # Schedules that find their hinges themselves, under another objective:
  python launch/compare.py --objective=trades \
      --schedules=fixed,scheduled,auto,paced
  # The numbers of the paper's protocol alone:
  python launch/compare.py --protocols=paper

With several --learning_rates the best is chosen first, for the FIXED arm, by
its expected robustness on the validation split with the first seed: the
comparison favours the baseline. To rank them, APGD with 10 steps on the margin
of probabilities stands in for the default --eval_attack. Without
--learning_rates, that of a --recipe is taken. The default is what that choice
gave on the built-in demonstration, by APGD with 10 steps on cross-entropy:

  | rate | fixed: clean | fixed: expected robustness (validation) |
  |---|---|---|
  | 1e-4 | 30.1 % | 0.019 |
  | 3e-4 | 73.0 % | 0.077 |
  | 1e-3 | 76.8 % | 0.284 |
  | 3e-3 | 62.9 % | 0.374 |
  | 1e-2 | 48.6 % | 0.312 |
  | 3e-2 | 51.4 % | 0.265 |
  | 1e-1 |  5.4 % | 0.054 |

With --attack_mode=inference the best of the same seven is 3e-2 (52.5 %, 0.363).
"""

import json
import pathlib
import time

import caveats
import common
import flag_types
import numpy as np
import refusals
import run_folders
import training_run
from absl import flags
from tabulate import tabulate

FLAGS = flags.FLAGS
flags.DEFINE_integer("seeds", 1, "Number of seeds.", lower_bound=1)
flags.DEFINE_list(
    "learning_rates", ["3e-3"], "Learning rates; the best of several is taken."
)
flags.DEFINE_list(
    "schedules",
    ["standard", "fixed", "scheduled"],
    "What is compared; --schedule of finetune.py says what there is.",
)
common.define_protocols(["nested", "paper"])


def _are_rates(texts):
    try:
        return bool(texts) and all(float(text) > 0 for text in texts)
    except ValueError:
        return False


flags.register_validator(
    "learning_rates", _are_rates, "expected positive numbers, as 1e-4,1e-3"
)


def _are_schedules(names):
    try:
        names = [flag_types.ScheduleName().parse(name) for name in names]
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error
    return bool(names) and len({*names}) == len(names)


flags.register_validator(
    "schedules", _are_schedules, "expected different schedules"
)


def choose_learning_rate(rates, folder):
    """The rate at which the fixed arm is best on the validation split."""
    if len(rates) == 1:
        return rates[0], []
    path, attack = folder / "learning_rates.json", common.make_choosing_attack()
    # Written after each rate: with --resume those are not tried again.
    rows = json.loads(path.read_text()) if path.exists() else []
    for rate in rates[len(rows) :]:
        print(f"\n=== fixed epsilon, learning rate {rate:g}", flush=True)
        classifier, data, _ = training_run.train(
            common.make_scheduler("fixed"), rate, FLAGS.seed, None, 0
        )
        report = common.evaluate(classifier, data.validation, attack=attack)
        rows.append(
            {
                "learning_rate": rate,
                "attack": report.attack_title,
                "clean": report.clean_accuracy,
                "expected_robustness": report.expected_robustness(),
            }
        )
        print(
            f"clean {report.clean_accuracy:.1%}, expected robustness "
            f"{report.expected_robustness():.3f} (validation, by "
            f"{report.attack_title})",
            flush=True,
        )
        run_folders.write_json(path, rows)
    best = max(rows, key=lambda row: row["expected_robustness"])
    return best["learning_rate"], rows


def mean_and_error(values):
    """Text of a mean and, over several seeds, its standard error."""
    values = np.asarray(values, "float64")
    if len(values) == 1:
        return f"{values[0]:.3f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ± {error:.3f}"


def interval(report):
    """Text of the bootstrap interval of one seed."""
    low, high = report.expected_robustness_interval()
    return f"{low:.3f} to {high:.3f}"


def heading(report, probe):
    """What the numbers of a table are, and how far to trust them."""
    from keras_epsched.epsilons import format_epsilon
    from keras_epsched.reports import wording as report_text

    subject = report_text.subject(report)
    target = format_epsilon(FLAGS.epsilon, FLAGS.norm)
    return (
        f"attack: {subject['attack']}\n"
        f"protocol: {subject['protocol']}\n"
        f"{target} {FLAGS.norm}, {probe.name}, {report.num_images} images, "
        f"{FLAGS.seeds} seed(s). {report_text.bound(report)}"
    )


def table(reports, histories, protocol):
    """The table of one protocol, a row an arm."""
    rows = []
    for arm in FLAGS.schedules:
        runs = reports[arm][protocol]
        onsets = [history["onset"] for history in histories[arm]]
        rows.append(
            (
                arm,
                mean_and_error([run.clean_accuracy for run in runs]),
                mean_and_error([run.accuracy[-1] for run in runs]),
                mean_and_error([run.expected_robustness() for run in runs]),
                interval(runs[0]),
                ", ".join("never" if o is None else str(o) for o in onsets),
                ", ".join(run.get("verdict") or "" for run in histories[arm]),
            )
        )
    headers = (
        "arm",
        "clean",
        "at target",
        "expected robustness",
        "95 % interval (images, first seed)",
        "onset (epoch)",
        "transfer",
    )
    return tabulate(rows, headers=headers, disable_numparse=True)


def summary(reports, histories):
    """The same numbers for machines."""
    return {
        arm: {
            **{
                name: [history.get(name) for history in histories[arm]]
                for name in ("onset", "verdict", "advice")
            },
            **{
                protocol: {
                    "attack": runs[0].attack_title,
                    "clean": [run.clean_accuracy for run in runs],
                    "at_target": [float(run.accuracy[-1]) for run in runs],
                    "expected_robustness": [
                        run.expected_robustness() for run in runs
                    ],
                }
                for protocol, runs in reports[arm].items()
            },
        }
        for arm in FLAGS.schedules
    }


def main(_):
    import keras_epsched as ke
    from keras_epsched import onset

    started = time.time()
    folder, probe = common.prepare("compare")
    common.print_device()
    # Those of the recipe, where the command line has none.
    rates = [float(rate) for rate in FLAGS.learning_rates]
    rate, choice = choose_learning_rate(rates, folder)
    run_folders.write_config(
        folder,
        learning_rate=rate,
        learning_rate_choice=choice,
        splits=common.splits_config(probe),
        seeds=list(range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)),
        evaluation=common.evaluation_config(),
    )
    reports = {arm: {p: [] for p in FLAGS.protocols} for arm in FLAGS.schedules}
    histories = {arm: [] for arm in FLAGS.schedules}
    for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds):
        # The others are judged by the standard one.
        for arm in sorted(FLAGS.schedules, key=lambda arm: arm != "standard"):
            print(f"\n=== {arm}, seed {seed}", flush=True)
            # Hinges may hold a slash.
            place = folder / f"seed{seed}" / arm.replace("/", "-")
            standard = histories.get("standard", [])[seed - FLAGS.seed :]
            classifier, data, history = training_run.train(
                common.make_scheduler(arm, seed),
                rate,
                seed,
                place,
                reference=standard[0]["val_accuracy"] if standard else None,
            )
            histories[arm].append(history)
            for protocol in FLAGS.protocols:
                report = common.evaluate(
                    classifier,
                    data.test,
                    protocol,
                    folder=place / protocol,
                    resume=FLAGS.resume,
                )
                reports[arm][protocol].append(report)
                if protocol == FLAGS.protocols[0]:
                    common.write_card(
                        place,
                        report,
                        data,
                        schedule=arm,
                        seed=seed,
                        learning_rate=rate,
                        epochs=len(history["epoch"]),
                    )
                print(f"\n{report}", flush=True)
    texts = [
        f"{heading(reports[FLAGS.schedules[0]][protocol][0], probe)}\n\n"
        f"{table(reports, histories, protocol)}"
        for protocol in FLAGS.protocols
    ]
    text = "\n\n".join(texts) + "\n"
    (folder / "table.txt").write_text(text, encoding="utf-8")
    run_folders.write_json(folder / "results.json", summary(reports, histories))
    protocol = FLAGS.protocols[0]
    backbone = FLAGS.backbone
    if pathlib.Path(backbone).exists():
        backbone = pathlib.Path(backbone).name
    ke.evaluation.plot_curves(
        {arm: reports[arm][protocol] for arm in FLAGS.schedules},
        path=[folder / "curve.png", folder / "curve.svg"],
        title=f"{backbone} on {probe.name}",
    )
    ke.evaluation.plot_training_story(
        {
            arm: {
                name: histories[arm][0][name]
                for name in ("epoch", "val_accuracy", "epsilon", "onset")
            }
            for arm in FLAGS.schedules
        },
        path=[folder / "story.png", folder / "story.svg"],
        title=f"{backbone} on {probe.name}, seed {FLAGS.seed}",
        chance=1 / probe.num_classes,
        onset_threshold=onset.onset_threshold(probe.num_classes),
    )
    print(f"\n{text}")
    for arm in FLAGS.schedules:
        if advice := histories[arm][0].get("advice"):
            print(f"{arm}, seed {FLAGS.seed}: {advice}")
    measured = {
        f"{arm}, seed {FLAGS.seed + number}, {protocol}": report
        for arm in FLAGS.schedules
        for protocol in FLAGS.protocols
        for number, report in enumerate(reports[arm][protocol])
    }
    print(f"\n{caveats.text(measured)}")
    print(f"\nlearning rate {rate:g}, the same in all arms")
    print(f"run folder {folder} ({time.time() - started:.0f} s)")
    print(json.dumps({"run_folder": str(folder)}))


if __name__ == "__main__":
    refusals.run(main)
