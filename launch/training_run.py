"""One fine-tuning by the flags, which may be killed and goes on."""

import json

import common
import monitors
import run_folders
from absl import flags

FLAGS = flags.FLAGS


def probe_linearly(classifier, data, learning_rate, seed, verbose):
    """Trains the head alone, on clean or on adversarial images."""
    import keras

    import keras_epsched as ke

    ke.models.adapt(classifier, "head")
    # The same layers; the classifier itself stays uncompiled.
    probe = keras.Model(classifier.inputs, classifier.outputs)
    callbacks = []
    if FLAGS.probe == "adversarial":
        probe = ke.AdversarialTrainer(
            probe,
            common.make_training_attack(),
            attack_mode="inference",
            seed=seed,
        )
        constant = ke.schedules.Constant(FLAGS.epsilon)
        callbacks = [ke.callbacks.EpsilonScheduler(constant)]
    probe.compile(
        optimizer=keras.optimizers.AdamW(
            learning_rate * FLAGS.head_multiplier, weight_decay=0.0
        ),
        loss=common.make_loss(),
        metrics=["accuracy"],
    )
    probe.fit(
        data.train,
        validation_data=data.validation,
        epochs=FLAGS.probe_epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=verbose,
    )


def train(
    scheduler,
    learning_rate,
    seed,
    folder,
    verbose=2,
    callbacks=(),
    reference=None,
):
    """Fine-tunes one classifier, with epsilon driven by a scheduler.

    In a folder, a training that was interrupted goes on with --resume, and one
    that is finished is read. Only there it is watched by --monitors.

    Args:
        scheduler: The callback that sets epsilon.
        learning_rate: Peak learning rate.
        seed: Of head, data order and random starts.
        folder: Where the training is kept, or `None`.
        verbose: As of `fit`.
        callbacks: More callbacks.
        reference: Clean validation accuracies of a standard fine-tuning.

    Returns:
        The classifier, the data, and the history with the onset of task
        adaptation: the first epoch, counted from 1, whose clean validation
        accuracy is at least 5 % and twice chance (`None` if there is none);
        and with what the monitor of the transfer says (`None` without it).
    """
    import keras

    import keras_epsched as ke
    from keras_epsched import onset

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    data = common.load_data(seed)
    if folder is not None and (folder / "history.json").exists():
        ke.callbacks.ExactBackup(folder / "backups").clear()
        text = (folder / "history.json").read_text(encoding="utf-8")
        return _load(folder, data), data, json.loads(text)
    backups, written, epoch, watching = [], [], None, {}
    if folder is not None:
        watching = monitors.make(data, folder, reference)
        backups = [
            ke.callbacks.ExactBackup(
                folder / "backups", every_minutes=FLAGS.backup_minutes or None
            )
        ]
        backup = backups[0].latest()
        epoch = None if backup is None else backup["epoch"]
        del backup  # It holds all the weights.
        written = _written(folder, epoch)
    classifier = common.make_classifier(data.num_classes, seed)
    if FLAGS.probe_epochs and epoch is None:
        probe_linearly(classifier, data, learning_rate, seed, verbose)
    common.adapt(classifier)
    trainer = common.make_trainer(classifier, seed)
    trainer.compile(
        optimizer=common.make_optimizer(
            learning_rate, FLAGS.epochs * len(data.train), trainer
        ),
        loss=common.make_loss(),
        metrics=["accuracy"],
    )
    history = trainer.fit(
        data.train,
        validation_data=data.validation,
        epochs=FLAGS.epochs,
        callbacks=[
            scheduler,
            *watching.values(),
            *callbacks,
            *written,
            *backups,
        ],
        # tf.data shuffles; Keras would warn that it does not.
        shuffle=False,
        verbose=verbose,
    ).history
    if FLAGS.reestimate_batchnorm:
        # Not where `fit` left off: after a kill it has read nothing.
        data.train.seek(FLAGS.epochs)
        ke.training.reestimate_batchnorm(trainer, data.train)
    history = {name: [float(v) for v in row] for name, row in history.items()}
    # A monitor may have stopped it.
    history["epoch"] = list(range(1, len(history["val_accuracy"]) + 1))
    history["onset"] = onset.onset(
        history["val_accuracy"], data.num_classes
    )
    transfer = watching.get("transfer")
    history["verdict"] = transfer and transfer.verdict
    history["advice"] = transfer and transfer.advice
    if folder is not None:
        temporary = folder / "unfinished.keras"
        classifier.save(temporary)
        run_folders.replace(temporary, folder / "model.keras")
        # Last: it says that the training is finished.
        run_folders.write_json(folder / "history.json", history)
        backups[0].clear()
        # What a run that goes on finds: LoRA's update is merged in it.
        classifier = _load(folder, data)
    return classifier, data, history


def _load(folder, data):
    """The classifier of a finished training."""
    import keras_epsched as ke

    classifier = ke.models.load(folder / "model.keras")
    # As `fit` noted on the one that was saved.
    classifier.training_splits = (data.train.split_info,)
    return classifier


def _written(folder, epoch):
    """Callbacks that write a log of each epoch, from a backup on."""
    import keras

    from keras_epsched import optional

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "history.csv"
    if epoch is not None and path.exists():
        # Epochs that are not in the backup are trained again.
        # As bytes, for the ends of its lines must stay.
        lines = path.read_bytes().splitlines(keepends=True)
        temporary = path.with_name("history.csv.tmp")
        temporary.write_bytes(b"".join(lines[: 1 + epoch]))
        run_folders.replace(temporary, path)
    callbacks = [keras.callbacks.CSVLogger(str(path), append=epoch is not None)]
    # Keras writes these logs with TensorFlow on every backend.
    if optional.available("tensorflow"):
        callbacks.append(keras.callbacks.TensorBoard(str(folder / "logs")))
    return callbacks
