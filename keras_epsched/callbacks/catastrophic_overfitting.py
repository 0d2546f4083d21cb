"""An alarm for catastrophic overfitting of fast adversarial training."""

import warnings

from keras import ops

from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.pgd import PGD
from keras_epsched.callbacks.monitored_images import MonitoredImages
from keras_epsched.training import passes


class CatastrophicOverfittingAlarm(MonitoredImages):
    """Notices when a network only withstands the attack that it trains on.

    Networks that train on one-step attacks may learn, within an epoch, to
    mislead that step: the accuracy of training stays high, and any attack of
    several steps breaks everything. After each epoch the alarm attacks the
    same images twice at the current epsilon, as in training and by a few
    steps of PGD, and fires where the accuracies part. Comparing the two, not
    one with its past, it is not misled by an epsilon that rises.

    `probe_training_accuracy` and `probe_robust_accuracy` go into the logs. The
    network is in inference mode, and the training stays as it is.

    Reference: Wong et al., ICLR 2020 (arXiv 2001.03994), who notice it by
    PGD with five steps.

    Args:
        images: Array `(batch, ...)` of pixels: training images, 64 or more.
        labels: Array of their labels.
        attack: `Attack` of several steps. Defaults to `PGD(steps=5)` in the
            norm of the training attack. It is on cross-entropy, as the
            training: the two are to differ in their steps alone.
        gap: Float. The difference of accuracies at which it fires. One step is
            weaker than several on sound networks too.
        action: `"warn"`; `"stop"`, which brings back the weights of the last
            epoch that was sound and ends the training; or `"fall_back"`, which
            brings them back and goes on with `fallback`. The optimizer's state
            stays.
        fallback: `Attack` to go on with. Defaults to `attack`.
        batch_size: Int. Images that are attacked at once.

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
                "`gap` is a difference of accuracies and must lie in (0, 1). "
                f"Received: gap={gap}"
            )
        if fallback is not None and not isinstance(fallback, Attack):
            raise ValueError(
                "`fallback` must be an attack of `keras_epsched.attacks`. "
                f"Received: fallback={fallback!r}"
            )
        if fallback is not None and not fallback.can_train:
            raise ValueError(f"`fallback` cannot train: {fallback!r}")
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
        # A fixed seed: the alarm must not advance that of the training.
        classes = trainer.class_labels(labels, images)
        # Where moving statistics lag, an attack on those of the batch misses
        # the network that is asked here; that is no overfitting.
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
            # Both are the clean accuracy.
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
            f"epoch {epoch + 1}: catastrophic overfitting. Of the images "
            f"{trained:.0%} withstand the attack of the training, but "
            f"{robust:.0%} that of several steps. {consequence}",
            stacklevel=3,
        )
