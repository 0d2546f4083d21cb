"""Fine-tunings by several schedules, side by side."""

import dataclasses
import json
import pathlib
import time

import numpy as np

from keras_epsched import files, reports
from keras_epsched.configs.config import Comparison, Settings, as_comparison
from keras_epsched.onset import onset_threshold
from keras_epsched.runs import build, card, caveats, costs, outcome
from keras_epsched.runs.finetuning import HISTORY, MODEL, evaluate, train
from keras_epsched.runs.prepare import Run, prepared
from keras_epsched.runs.time_left import ArmsLeft


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a comparison of schedules gives; print it for its tables.

    Args:
        folder: `pathlib.Path` of the run folder.
        reports: Dict from schedules to dicts from protocols to lists of
            `Report`s, one a seed.
        histories: Dict from schedules to lists of histories, one a seed; as
            `Finetuned.history`.
        learning_rate: Float, the same in all fine-tunings.
        tables: String, the table with what it means, as in table.txt.
        config: `Comparison`.
        seconds: Float. How long it took.
    """

    folder: pathlib.Path
    reports: dict[str, dict[str, list[reports.Report]]]
    histories: dict[str, list[dict]]
    learning_rate: float
    tables: str
    config: Comparison
    seconds: float

    def text(self, spell=caveats.as_python) -> str:
        """Returns the table, the verdicts and caveats.

        Args:
            spell: See `caveats.text`.
        """
        first = self.config.seed
        several = self.config.seeds > 1
        verdicts = [
            outcome.wrapped(f"- {arm}: {run['verdict']}: {run['advice']}")
            for arm in self.config.schedules
            # Without an attack there is nothing to change.
            if arm != "standard"
            and (run := self.histories[arm][0]).get("verdict")
        ]
        if verdicts:
            seed = f", seed {first}" if several else ""
            verdicts.insert(0, f"Verdict on each training{seed}")
        measured, histories = {}, {}
        for arm in self.config.schedules:
            for protocol in self.config.protocols:
                for number, report in enumerate(self.reports[arm][protocol]):
                    seed = f", seed {first + number}" if several else ""
                    name = f"{arm} ({protocol}{seed})"
                    measured[name] = report
                    histories[name] = self.histories[arm][number]
        parts = [
            self.tables.rstrip(),
            "\n".join(verdicts),
            caveats.text(measured, self.config, spell, histories),
            outcome.pictures(self.folder),
        ]
        if len(self.config.learning_rates) > 1:
            rate = f"Best learning rate: {self.learning_rate:g}"
            parts.insert(1, rate)
        return "\n\n".join(part for part in parts if part)

    @property
    def best(self) -> str:
        """The schedule with the largest expected robustness."""
        protocol = self.config.protocols[0]
        return max(
            self.config.schedules,
            key=lambda arm: np.mean(
                [
                    report.expected_robustness()
                    for report in self.reports[arm][protocol]
                ]
            ),
        )

    def model(self, arm: str) -> pathlib.Path:
        """The saved model of a schedule, of the first seed."""
        return place(self.folder, self.config.seed, arm) / MODEL

    def __str__(self):
        return self.text()


def compare(
    config: Settings, *, command: str | None = None, verbose: int = 1
) -> Compared:
    """Fine-tunes a backbone by several schedules, and compares what came out.

    All have the same data, head initialisation, data order and learning rate.
    Of several learning rates the best is chosen first, for the *fixed*
    schedule, by its expected robustness on the validation split with the first
    seed: the comparison favours the baseline. To rank them, APGD with 10 steps
    on the margin of probabilities stands in for the default attack.

    Leaves a run folder with table.txt, results.json, two pictures, and a
    folder for each fine-tuning. With `config.resume` it goes on where it was
    interrupted.

    Args:
        config: `Comparison`; or a `Config`, whose setting is then compared by
            the default schedules.
        command: String or `None`. What config.json states as the command.
        verbose: Int. 0 for silence.

    Returns:
        A `Compared`.

    Raises:
        ConfigError: If the config, the data or the backbone is not fit for it.

    Example:
    ```python
    config = keras_epsched.runs.Comparison(
        dataset="digits", schedules=("fixed", "scheduled"), seeds=3
    )
    result = keras_epsched.runs.compare(config)
    print(result)
    ```
    """
    started = time.time()
    comparison = as_comparison(config)
    with prepared(comparison, "compare", command, verbose) as run:
        comparison = run.config
        rate, tried = choose_learning_rate(run)
        seeds = range(comparison.seed, comparison.seed + comparison.seeds)
        run.write_config(
            learning_rate=rate, learning_rate_choice=tried, seeds=list(seeds)
        )
        found = {
            arm: {p: [] for p in comparison.protocols}
            for arm in comparison.schedules
        }
        histories = {arm: [] for arm in comparison.schedules}
        left = ArmsLeft(_work(run, seeds))
        for seed in seeds:
            standard = None
            # The others are judged by the standard one.
            for arm in sorted(
                comparison.schedules, key=lambda arm: arm != "standard"
            ):
                run.say(f"\n=== {arm}, seed {seed}: {left.text((arm, seed))}")
                history = _train_arm(
                    run, arm, seed, rate, standard, found, left
                )
                histories[arm].append(history)
                if arm == "standard":
                    standard = history["val_accuracy"]
        tables = _tables(run, found, histories)
        files.write(run.folder / "table.txt", tables)
        files.write_json(
            run.folder / "results.json", _summary(comparison, found, histories)
        )
        _draw(run, found, histories)
    seconds = time.time() - started
    return Compared(
        run.folder, found, histories, rate, tables, comparison, seconds
    )


def choose_learning_rate(run: Run[Comparison]) -> tuple[float, list[dict]]:
    """Returns the rate at which the fixed schedule is best, and all tried.

    It is measured on the validation split.
    """
    rates = run.config.learning_rates
    if len(rates) == 1:
        return rates[0], []
    path = run.folder / "learning_rates.json"
    attack = build.make_choosing_attack(run.config)
    # Written after each rate: a run that resumes does not try those again.
    rows = json.loads(path.read_text()) if path.exists() else []
    for rate in rates[len(rows) :]:
        run.say(f"\n=== fixed epsilon, learning rate {rate:g}")
        classifier, data, _ = train(
            run.config,
            build.make_scheduler(run.config, "fixed"),
            rate,
            run.config.seed,
            None,
            verbose=run.verbose,
        )
        report = evaluate(
            run.config,
            classifier,
            data.validation,
            attack=attack,
            verbose=run.verbose,
        )
        rows.append(
            {
                "learning_rate": rate,
                "attack": report.attack_title,
                "clean": report.clean_accuracy,
                "expected_robustness": report.expected_robustness(),
            }
        )
        run.say(
            f"clean {report.clean_accuracy:.1%}, expected robustness "
            f"{report.expected_robustness():.3f} (validation, by "
            f"{report.attack_title})"
        )
        files.write_json(path, rows)
    best = max(rows, key=lambda row: row["expected_robustness"])
    return best["learning_rate"], rows


def place(folder: pathlib.Path, seed: int, arm: str) -> pathlib.Path:
    """Returns the folder of one training of a comparison."""
    # Hinges may hold a slash.
    return folder / f"seed{seed}" / arm.replace("/", "-")


def _work(run, seeds):
    """Passes of the training by each schedule with each seed."""
    config, steps = run.config, len(run.data.train)
    plain, attacked = run.step_work
    work = {}
    for arm in config.schedules:
        scheduler = build.make_scheduler(config, arm, config.seed)
        some = sum(costs.attacked_steps(scheduler, config.epochs, steps))
        work[arm] = plain * (config.epochs * steps - some) + attacked * some
    return {(arm, seed): work[arm] for seed in seeds for arm in work}


def _train_arm(run, arm, seed, rate, standard, found, left):
    """Trains by one schedule, evaluates by all protocols."""
    config = run.config
    folder = place(run.folder, seed, arm)
    is_there = (folder / HISTORY).exists()
    began = time.monotonic()
    classifier, data, history = train(
        config,
        build.make_scheduler(config, arm, seed),
        rate,
        seed,
        folder,
        verbose=run.verbose,
        reference=standard,
    )
    trained = time.monotonic()
    for protocol in config.protocols:
        report = evaluate(
            config,
            classifier,
            data.test,
            protocol,
            folder=folder / protocol,
            resume=config.resume,
            verbose=run.verbose,
        )
        found[arm][protocol].append(report)
        if protocol == config.protocols[0]:
            card.write(
                folder,
                config,
                report,
                data,
                schedule=arm,
                seed=seed,
                learning_rate=rate,
                epochs=len(history["epoch"]),
            )
    of_seed = {name: each[-1] for name, each in found[arm].items()}
    run.say(f"{arm}: {outcome.in_short(of_seed)}")
    left.done(
        (arm, seed),
        None if is_there else trained - began,
        time.monotonic() - trained,
    )
    return history


def _tables(run, found, histories):
    config = run.config
    rows = []
    for arm in config.schedules:
        onsets = [history["onset"] for history in histories[arm]]
        learned = ", ".join("never" if o is None else str(o) for o in onsets)
        verdicts = [history.get("verdict") or "" for history in histories[arm]]
        verdict = ", ".join(dict.fromkeys(verdicts))
        rows.append((arm, found[arm], learned, verdict))
    first = {
        protocol: each[0]
        for protocol, each in found[config.schedules[0]].items()
    }
    parts = (
        outcome.heading([*first.values()], config.seeds),
        outcome.table("schedule", rows, ("learned\nin epoch", "verdict")),
        outcome.explained(first),
    )
    return "\n\n".join(parts) + "\n"


def _summary(config, found, histories):
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
                for protocol, runs in found[arm].items()
            },
        }
        for arm in config.schedules
    }


def _draw(run, found, histories):
    config, protocol = run.config, run.config.protocols[0]
    backbone = config.backbone
    if pathlib.Path(backbone).exists():
        backbone = pathlib.Path(backbone).name
    reports.plot_curves(
        {arm: found[arm][protocol] for arm in config.schedules},
        path=[run.folder / "curve.png", run.folder / "curve.svg"],
        title=f"{backbone} on {run.data.name}",
    )
    reports.plot_training_story(
        {
            arm: {
                name: histories[arm][0][name]
                for name in ("epoch", "val_accuracy", "epsilon", "onset")
            }
            for arm in config.schedules
        },
        path=[run.folder / "story.png", run.folder / "story.svg"],
        title=f"{backbone} on {run.data.name}, seed {config.seed}",
        chance=1 / run.data.num_classes,
        onset_threshold=onset_threshold(run.data.num_classes),
    )
