"""Detects catastrophic overfitting in fast adversarial training."""

import warnings

from keras import ops

from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.pgd import PGD
from keras_epsched.callbacks.monitored_images import MonitoredImages
from keras_epsched.training import passes


class CatastrophicOverfittingAlarm(MonitoredImages):
    """Detects a network that resists only the attack it is trained on.

    Use it when you train with an attack of one or two steps (`FGSM`, `NFGSM`,
    `PGD(2)`). Such a network may learn to defeat that attack only: the training
    accuracy stays high, but an attack of several steps breaks nearly every
    image. This is called catastrophic overfitting. With one step it often
    happens within one epoch.

    After each epoch, the callback attacks the same images twice at the
    current epsilon: with the training attack, and with a few steps of PGD. It
    fires if the first accuracy exceeds the second by at least `gap`. Both are
    measured in the same epoch, so a rising epsilon does not cause an alarm.

    The logs get `probe_training_accuracy` (under the training attack) and
    `probe_robust_accuracy` (under PGD). The network is in inference mode. With
    `action="warn"`, the callback does not change the training.

    Reference: Wong et al., ICLR 2020 (arXiv 2001.03994), who detect it with
    PGD of five steps.

    Args:
        images: Array `(batch, ...)` of pixels: training images, 64 or more.
        labels: Array of their labels.
        attack: `Attack` of several steps. Defaults to `PGD(steps=5)` on
            cross-entropy, in the norm of the training attack. Use the loss of
            the training attack, so that only the number of steps differs.
        gap: Float. The difference of the accuracies at which the callback
            fires. A normal network also has a small difference, because one
            step is weaker than several.
        action: String. What to do when the callback fires:

            - `"warn"`: warn only;
            - `"stop"`: restore the weights of the last epoch without the gap,
              and end the training;
            - `"fall_back"`: restore these weights, and continue the training
              with the attack `fallback`. The state of the optimizer is kept.
        fallback: `Attack` to continue with. Defaults to `attack`.
        batch_size: Int. Number of images that are attacked at once.

    Raises:
        ValueError: If an argument is invalid. When training begins: if the
            model is not an `AdversarialTrainer`.

    Example:
    ```python
    images, labels = next(iter(data.train))
    alarm = keras_epsched.callbacks.CatastrophicOverfittingAlarm(
        images, labels, action="fall_back"
    )
    trainer.fit(data.train, epochs=15, callbacks=[scheduler, alarm])
    ```
    """

    ACTIONS = ("warn", "stop", "fall_back")

    def __init__(
        self,
        images,
        labels,
        attack=None,
        gap=0.3,
        action="warn",
        fallback=None,
        batch_size=64,
    ):
        super().__init__(images, labels, attack, action, batch_size)
        if not 0 < gap < 1:
            raise ValueError(
                "`gap` is a difference of two accuracies, so it must be above "
                f"0 and below 1. Received: gap={gap}"
            )
        if fallback is not None and not isinstance(fallback, Attack):
            raise ValueError(
                "`fallback` must be an attack of `keras_epsched.attacks`. "
                f"Received: fallback={fallback!r}"
            )
        if fallback is not None and not fallback.can_train:
            raise ValueError(
                "`fallback` must be an attack that can train, such as "
                f"PGD(steps=5). Received one that cannot train: {fallback!r}"
            )
        self.gap = gap
        self.fallback = fallback
        self.fired_at = self._sound = None

    def default_attack(self, norm):
        return PGD(5, norm)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._fallback = self.fallback or self._attack
        self.fired_at = self._sound = None

    def measure_batch(self, images, labels, places):
        trainer = self.model
        # A fixed seed, so that the alarm does not change the training's seed.
        classes = trainer.class_labels(labels, images)
        # Inference mode, as in the measurement. If moving statistics lag, an
        # attack in training mode would be weaker, without any overfitting.
        moved = trainer.adversarial_view(images, classes, (0, 0), "inference")
        logits = passes.frozen_logits(trainer, False)(moved)
        predicted = ops.argmax(logits, axis=-1)
        found = self.search(images, labels, places, trainer._epsilon)
        return [ops.cast(predicted, "int32") == classes, found.broken]

    def on_epoch_end(self, epoch, logs=None):
        trainer = self.model
        if not max(trainer.epsilon, trainer.target_epsilon) > 0:
            return
        hits, broken = self.measure()
        trained, robust = float(hits.mean()), 1.0 - float(broken.mean())
        if logs is not None:
            logs["probe_training_accuracy"] = trained
            logs["probe_robust_accuracy"] = robust
        if not trainer.epsilon > 0:
            # At epsilon 0, both are the clean accuracy.
            return
        if trained - robust < self.gap:
            if self.action != "warn":
                self._sound = trainer.model.get_weights()
            return
        if self.fired_at is None:
            self.fired_at = epoch + 1
            self._act(epoch, trained, robust)

    def get_state(self):
        return {
            "fired_at": self.fired_at,
            "sound": self._sound or [],
        }

    def set_state(self, state):
        self.fired_at, self._sound = state["fired_at"], state["sound"] or None
        if self.fired_at is not None and self.action == "fall_back":
            self._fall_back()

    def _fall_back(self):
        self.model.attack = self._fallback
        self.model.make_train_function(force=True)

    def _act(self, epoch, trained, robust):
        trainer = self.model
        consequence = (
            "Train with `attack=NFGSM()` or with more steps, for example "
            "`attack=PGD(steps=3)`."
        )
        if self.action != "warn":
            consequence = (
                "No earlier epoch under this attack was free of it, so no "
                "weights are restored."
            )
            if self._sound is not None:
                trainer.model.set_weights(self._sound)
                consequence = (
                    "The weights of the last epoch without it are restored."
                )
        if self.action == "stop":
            trainer.stop_training = True
            consequence += " The training ends."
        if self.action == "fall_back":
            self._fall_back()
            consequence += f" The training continues with {self._fallback!r}."
        warnings.warn(
            f"Epoch {epoch + 1}: catastrophic overfitting. The accuracy on "
            f"the same images is {trained:.0%} under the training attack, but "
            f"only {robust:.0%} under an attack of several steps. The network "
            "resists only the attack it is trained on, so it is not robust. "
            f"{consequence}",
            stacklevel=3,
        )
