"""One robust fine-tuning, which may be killed and resumes, and its reports."""

import dataclasses
import json
import pathlib
import warnings

import keras

import keras_epsched as ke
from keras_epsched import files, models, optional, provenance, reports, training
from keras_epsched.configs.config import Config, Settings
from keras_epsched.epsilons import format_epsilon
from keras_epsched.onset import onset
from keras_epsched.runs import build, card, caveats, costs, monitors, outcome
from keras_epsched.runs.epoch_lines import EpochLines
from keras_epsched.runs.prepare import prepared
from keras_epsched.runs.time_left import Pace

HISTORY = "history.json"
LOG = "history.csv"
MODEL = "model.keras"


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """What a robust fine-tuning gives; print it for the numbers.

    Args:
        folder: `pathlib.Path` of the run folder.
        classifier: `keras.Model` from pixels to logits.
        data: The dataset.
        history: Dict of lists, an entry an epoch; with `onset`, `verdict` and
            `advice`, see `keras_epsched.callbacks.TransferMonitor`.
        reports: Dict from protocols to `Report`s on the test images. The first
            lies in the run folder itself.
        config: `Config`.
    """

    folder: pathlib.Path
    classifier: keras.Model
    data: ke.datasets.ImageData
    history: dict
    reports: dict[str, reports.Report]
    config: Config

    def text(self, spell=caveats.as_python) -> str:
        """Returns the results in one table, the verdict and caveats.

        Args:
            spell: See `caveats.text`.
        """
        found = {name: [each] for name, each in self.reports.items()}
        parts = [
            outcome.heading(list(self.reports.values())),
            outcome.table("schedule", [(self.config.schedule, found)]),
            outcome.explained(self.reports),
        ]
        if self.history.get("verdict"):
            advice = f"{self.history['verdict']}: {self.history['advice']}"
            parts.append(outcome.wrapped(f"Verdict: {advice}"))
        histories = dict.fromkeys(self.reports, self.history)
        parts.append(caveats.text(self.reports, self.config, spell, histories))
        parts.append(outcome.pictures(self.folder))
        return "\n\n".join(parts)

    def __str__(self):
        return self.text()


def finetune(
    config: Config, *, command: str | None = None, verbose: int = 1
) -> Finetuned:
    """Fine-tunes a classifier robustly, and measures how robust it became.

    Leaves a run folder with the trained model, its history, reports, curve and
    model card. With `config.resume` a run that was interrupted goes on after
    its last step that was backed up.

    Args:
        config: `Config`.
        command: String or `None`. What config.json states as the command.
        verbose: Int. 0 for silence.

    Returns:
        A `Finetuned`.

    Raises:
        ConfigError: If the config, the data or the backbone is not fit for it.

    Example:
    ```python
    config = keras_epsched.runs.Config(epochs=10, output="runs/digits")
    result = keras_epsched.runs.finetune(config)
    print(result)
    result.reports["nested"].expected_robustness()
    ```
    """
    with prepared(config, "finetune", command, verbose) as run:
        run.write_config()
        config = run.config
        classifier, data, history = train(
            config,
            build.make_scheduler(config, config.schedule, config.seed),
            config.learning_rate,
            config.seed,
            run.folder,
            verbose=verbose,
        )
        first = config.protocols[0]
        found = {
            protocol: evaluate(
                config,
                classifier,
                data.test,
                protocol,
                folder=run.folder
                if protocol == first
                else run.folder / protocol,
                resume=config.resume,
                verbose=verbose,
                model_name=config.schedule,
            )
            for protocol in config.protocols
        }
        for name in ("curve.png", "curve.svg"):
            found[first].plot(run.folder / name)
        epochs = len(history["epoch"])
        card.write(run.folder, config, found[first], data, epochs=epochs)
    return Finetuned(run.folder, classifier, data, history, found, config)


def evaluate(
    config: Settings,
    classifier,
    dataset,
    protocol="nested",
    attack=None,
    **arguments,
) -> reports.Report:
    """Evaluates a classifier by a config.

    Args:
        config: `Settings`.
        classifier: Pixels to logits.
        dataset: Batches of images and labels.
        protocol: String. One of `PROTOCOLS`.
        attack: `Attack`. Defaults to the final one of the config.
        **arguments: Others of `keras_epsched.evaluate`.
    """
    if "epsilons" not in arguments:
        arguments["epsilons"] = build.evaluation_grid(config)
    with warnings.catch_warnings(record=True) as caught:
        report = ke.evaluate(
            classifier,
            dataset,
            attack=attack or build.make_final_attack(config, protocol),
            protocol=protocol,
            bisect=config.bisect if protocol == "nested" else None,
            seed=config.seed,
            jit_compile=build.jit_compile(config),
            **arguments,
        )
    # What the report itself states, the run says once, at its end.
    stated = {
        *report.notes,
        *(f"{each['name']}: {each['message']}" for each in report.checks),
    }
    for each in caught:
        if str(each.message) not in stated:
            warnings.warn_explicit(
                each.message, each.category, each.filename, each.lineno
            )
    return report


def train(
    config: Settings,
    scheduler: keras.callbacks.Callback,
    learning_rate: float,
    seed: int,
    folder: pathlib.Path | None,
    verbose: int = 1,
    callbacks=(),
    reference: list[float] | None = None,
):
    """Fine-tunes one classifier, with epsilon driven by a scheduler.

    In a folder, a training that was interrupted goes on, and one that is
    finished is read. Only there it is watched by monitors.

    Args:
        config: `Settings`.
        scheduler: The callback that sets epsilon.
        learning_rate: Peak learning rate.
        seed: Of head, data order and random starts.
        folder: Where the training is kept, or `None`.
        verbose: Int. 0 for silence.
        callbacks: More callbacks.
        reference: Clean validation accuracies of a standard fine-tuning.

    Returns:
        The classifier, the data, and the history with the onset of task
        adaptation: the first epoch, counted from 1, whose clean validation
        accuracy is at least 5 % and twice chance (`None` if there is none);
        and with what the monitor of the transfer says (`None` without it).
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    data = build.load_data(config, seed)
    if folder is not None and (folder / HISTORY).exists():
        ke.callbacks.ExactBackup(folder / "backups").clear()
        text = (folder / HISTORY).read_text(encoding="utf-8")
        if verbose:
            print(f"resumed: the training in {folder} is finished", flush=True)
        return _load(folder, data), data, json.loads(text)
    backups, written, told, epoch, watching = [], [], [], None, {}
    if folder is not None:
        watching = monitors.make(config, data, folder, reference)
        backups = [
            ke.callbacks.ExactBackup(
                folder / "backups", every_minutes=config.backup_minutes or None
            )
        ]
        backup = backups[0].latest()
        epoch = None if backup is None else backup["epoch"]
        del backup  # It holds all the weights.
        written = log_writers(folder, epoch)
    if verbose and epoch is not None:
        print(
            f"resumed: {epoch} of {config.epochs} epochs are done", flush=True
        )
    classifier = build.make_classifier(config, data.num_classes, seed)
    if config.probe_epochs and epoch is None:
        probe_linearly(config, classifier, data, learning_rate, seed, verbose)
    steps = len(data.train)
    trainer = build.compiled_trainer(
        config, classifier, learning_rate, seed, config.epochs * steps
    )
    if verbose:
        attacked = costs.attacked_steps(scheduler, config.epochs, steps)
        work = [
            costs.of_epochs(trainer, [each], steps, config.batch_size).work
            for each in attacked
        ]
        pace = Pace(work, at_most=costs.is_adaptive(scheduler))
        told.append(EpochLines(config.norm, pace))
        probe_monitor = watching.get("robust_overfitting")
        if probe_monitor is not None:
            title = probe_monitor.default_attack(config.norm).title
            at = format_epsilon(config.epsilon, config.norm)
            print(
                f"robust val.: accuracy of {len(probe_monitor.images)} "
                f"validation images under {title}, at epsilon {at}"
            )
        if trainer.compiler_is_open and trainer.jit_compile:
            print(
                "XLA compiles the training, as it is faster for this kind of "
                "network (--jit_compile=false: without)"
            )
    with_xla = trainer.jit_compile
    with warnings.catch_warnings():
        # The verdict of `TransferMonitor` stands in the result.
        warnings.filterwarnings("ignore", "(failure|suboptimal) transfer")
        history = trainer.fit(
            data.train,
            validation_data=data.validation,
            epochs=config.epochs,
            callbacks=[
                scheduler,
                *watching.values(),
                *callbacks,
                *written,
                *told,
                *backups,
            ],
            # tf.data shuffles; Keras would warn that it does not.
            shuffle=False,
            verbose=0,
        ).history
    if verbose and trainer.jit_compile != with_xla:
        faster = "with" if trainer.jit_compile else "without"
        print(f"most steps were compiled {faster} XLA, which was faster")
    if config.reestimate_batchnorm:
        # Not where `fit` left off: after a kill it has read nothing.
        data.train.seek(config.epochs)
        training.reestimate_batchnorm(trainer, data.train)
    history = {name: [float(v) for v in row] for name, row in history.items()}
    # A monitor may have stopped it.
    history["epoch"] = list(range(1, len(history["val_accuracy"]) + 1))
    history["onset"] = onset(history["val_accuracy"], data.num_classes)
    history["jit_compile"] = bool(trainer.jit_compile)
    transfer = watching.get("transfer")
    history["verdict"] = transfer and transfer.verdict
    history["advice"] = transfer and transfer.advice
    if folder is not None:
        with files.written_whole(folder / MODEL) as temporary:
            classifier.save(temporary)
        # Last: it says that the training is finished.
        files.write_json(folder / HISTORY, history)
        backups[0].clear()
        # What a run that resumes finds: LoRA's update is merged in it.
        classifier = _load(folder, data)
    return classifier, data, history


def probe_linearly(config, classifier, data, learning_rate, seed, verbose):
    """Trains the head alone, on clean or on adversarial images."""
    models.adapt(classifier, "head")
    # The same layers; the classifier itself stays uncompiled.
    probe = keras.Model(classifier.inputs, classifier.outputs)
    callbacks = []
    if config.probe == "adversarial":
        probe = training.AdversarialTrainer(
            probe,
            build.make_training_attack(config),
            attack_mode="inference",
            seed=seed,
        )
        constant = ke.schedules.Constant(config.epsilon)
        callbacks = [ke.callbacks.EpsilonScheduler(constant)]
    if verbose:
        print("Linear probe", flush=True)
        callbacks.append(EpochLines(config.norm))
    probe.compile(
        optimizer=keras.optimizers.AdamW(
            learning_rate * config.head_multiplier, weight_decay=0.0
        ),
        loss=build.make_loss(config),
        metrics=["accuracy"],
    )
    probe.fit(
        data.train,
        validation_data=data.validation,
        epochs=config.probe_epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )


def _load(folder, data):
    """The classifier of a finished training."""
    classifier = models.load(folder / MODEL)
    # As `fit` noted on the one that was saved.
    provenance.remember_split(classifier, data.train.split_info)
    return classifier


def log_writers(folder, epoch):
    """Callbacks that write a log of each epoch, from a backup on."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOG
    if epoch is not None and path.exists():
        # Epochs that are not in the backup are trained again.
        # As bytes, for the ends of its lines must stay.
        lines = path.read_bytes().splitlines(keepends=True)
        files.write(path, b"".join(lines[: 1 + epoch]))
    callbacks = [keras.callbacks.CSVLogger(str(path), append=epoch is not None)]
    # Keras writes these logs with TensorFlow on every backend.
    if optional.available("tensorflow"):
        callbacks.append(keras.callbacks.TensorBoard(str(folder / "logs")))
    return callbacks
