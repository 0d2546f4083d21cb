"""An alarm for catastrophic overfitting of fast adversarial training."""

import warnings

import keras
from keras import ops

from keras_epsched import backend
from keras_epsched.attacks import noise
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.pgd import PGD
from keras_epsched.training.trainer import AdversarialTrainer

_ACTIONS = ("warn", "stop", "fall_back")


class CatastrophicOverfittingAlarm(keras.callbacks.Callback):
    """Notices when a network only withstands the attack that it trains on.

    Networks that train on one-step attacks may learn, within an epoch, to
    mislead that step: the accuracy of training stays high, and any attack of
    several steps breaks everything. After each epoch the alarm attacks the
    same images twice at the current epsilon, as in training and by a few
    steps of PGD, and fires where the accuracies part. Comparing the two, not
    one with its past, it is not misled by an epsilon that rises.

    `probe_training_accuracy` and `probe_robust_accuracy` go into the logs. The
    probe is in inference mode and leaves the training as it is.

    Reference: Wong et al., ICLR 2020 (arXiv 2001.03994), who probe by PGD with
    five steps.

    Args:
        images: Array `(batch, ...)` of pixels: training images, 64 or more.
        labels: Array of their labels.
        attack: `Attack` of the probe. Defaults to `PGD(steps=5)` in the norm of
            the training attack.
        gap: Float. The difference of accuracies at which it fires. One step is
            weaker than several on sound networks too.
        action: `"warn"`; `"stop"`, which brings back the weights of the last
            epoch that was sound and ends the training; or `"fall_back"`, which
            brings them back and goes on with `fallback`. The optimizer's state
            stays.
        fallback: `Attack` to go on with. Defaults to `attack`.

    Raises:
        ValueError: If an argument is not as described; when training begins,
            if the model is not an `AdversarialTrainer`.

    Example:
    ```python
    images, labels = next(iter(data.train))
    alarm = keras_epsched.callbacks.CatastrophicOverfittingAlarm(
        images, labels, action="fall_back"
    )
    trainer.fit(data.train, epochs=15, callbacks=[scheduler, alarm])
    ```
    """

    def __init__(
        self,
        images,
        labels,
        attack=None,
        gap=0.3,
        action="warn",
        fallback=None,
    ):
        super().__init__()
        if action not in _ACTIONS:
            raise ValueError(
                f"`action` must be one of {_ACTIONS}. Received: "
                f"action={action!r}"
            )
        if not 0 < gap < 1:
            raise ValueError(
                "`gap` is a difference of accuracies and must lie in (0, 1). "
                f"Received: gap={gap}"
            )
        for name, each in (("attack", attack), ("fallback", fallback)):
            if each is not None and not isinstance(each, Attack):
                raise ValueError(
                    f"`{name}` must be an attack of `keras_epsched.attacks`. "
                    f"Received: {name}={each!r}"
                )
        if fallback is not None and not fallback.can_train:
            raise ValueError(f"`fallback` cannot train: {fallback!r}")
        self.images = ops.convert_to_numpy(images).astype("float32")
        self.labels = ops.convert_to_numpy(labels)
        self.attack = attack
        self.gap = gap
        self.action = action
        self.fallback = fallback
        self.fired_at = None
        self._measure = self._sound = self._probe = None

    def on_train_begin(self, logs=None):
        trainer = self.model
        if not isinstance(trainer, AdversarialTrainer):
            raise ValueError(
                "`CatastrophicOverfittingAlarm` needs an "
                "`keras_epsched.AdversarialTrainer`. Received: a model of "
                f"type {type(trainer).__name__}"
            )
        norm = trainer.attack.norm
        attack = self.attack or PGD(steps=5, norm=norm)
        if attack.norm != norm:
            raise ValueError(
                "`attack` must have the norm of the training attack, "
                f"{norm!r}. Received: {attack!r}"
            )
        self._fallback = self.fallback or attack
        self._probe = attack
        self._measure = make_probe(trainer, attack)
        self.fired_at = self._sound = None

    def on_epoch_end(self, epoch, logs=None):
        trainer = self.model
        if not trainer.epsilon > 0:
            return
        trained, robust = (
            float(ops.convert_to_numpy(each))
            for each in self._measure(self.images, self.labels)
        )
        if logs is not None:
            logs["probe_training_accuracy"] = trained
            logs["probe_robust_accuracy"] = robust
        if trained - robust < self.gap:
            if self.action != "warn":
                self._sound = trainer.model.get_weights()
            return
        if self.fired_at is None:
            self.fired_at = epoch + 1
            self._act(epoch, trained, robust)

    def get_state(self):
        """What a training that goes on must remember."""
        return {
            "fired_at": self.fired_at,
            "sound": self._sound or [],
        }

    def set_state(self, state):
        """Takes what `get_state` returned."""
        self.fired_at, self._sound = state["fired_at"], state["sound"] or None
        if self.fired_at is not None and self.action == "fall_back":
            self._fall_back()

    def _fall_back(self):
        self.model.attack = self._fallback
        self.model.make_train_function(force=True)
        # Compiled, they keep the attack that they were made with.
        self._measure = make_probe(self.model, self._probe)

    def _act(self, epoch, trained, robust):
        trainer = self.model
        consequence = "Use `NFGSM`, or an attack of more steps."
        if self.action != "warn":
            consequence = "No epoch at this attack was sound."
            if self._sound is not None:
                trainer.model.set_weights(self._sound)
                consequence = "The last sound weights are back."
        if self.action == "stop":
            trainer.stop_training = True
            consequence += " The training ends."
        if self.action == "fall_back":
            self._fall_back()
            consequence += f" The training goes on with {self._fallback!r}."
        warnings.warn(
            f"epoch {epoch + 1}: catastrophic overfitting. Of the probe "
            f"{trained:.0%} withstand the attack of the training, but "
            f"{robust:.0%} that of several steps. {consequence}",
            stacklevel=3,
        )


def make_probe(trainer, attack):
    """Compiles the probe of `CatastrophicOverfittingAlarm`.

    Args:
        trainer: `AdversarialTrainer`.
        attack: `Attack` to compare with that of the training.

    Returns:
        A function `(images, labels)` to the accuracies on images that are
        attacked as in training, and by `attack`, both in inference mode.
    """

    def accuracies(images, labels):
        labels = trainer.class_labels(labels, images)
        logits_fn = trainer.frozen_logits(False)
        # A fixed seed: the probe must not advance that of the training.
        moved = trainer.attacked(images, labels, (0, 0))
        predicted = ops.argmax(logits_fn(moved), axis=-1)
        hits = ops.cast(predicted, "int32") == labels
        broken = attack.search(
            logits_fn,
            images,
            labels,
            ops.convert_to_tensor(trainer._epsilon),
            noise.make_key(0, ops.arange(ops.shape(images)[0])),
            trainer.value_range,
        ).broken
        return (
            ops.mean(ops.cast(hits, "float32")),
            1.0 - ops.mean(ops.cast(broken, "float32")),
        )

    jit_compile = getattr(trainer, "jit_compile", False)
    return backend.compile(accuracies, bool(jit_compile), trainer.variables)
