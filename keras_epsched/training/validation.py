"""Says which attack the robust accuracies in the logs are under."""

import keras

from keras_epsched.epsilons import format_epsilon


def say_attack(callback, log: str, attack) -> None:
    """Prints what a log is measured by, where `fit` prints its progress.

    Args:
        callback: `keras.callbacks.Callback` of a training that begins, at the
            target epsilon of whose trainer it is measured.
        log: String. Name of the log.
        attack: `Attack`.
    """
    trainer = callback.model
    epsilon = trainer.target_epsilon or trainer.epsilon
    if epsilon > 0 and (callback.params or {}).get("verbose"):
        at = format_epsilon(epsilon, attack.norm)
        print(f"{log}: under {attack.title}, at epsilon {at}", flush=True)


class AttackNote(keras.callbacks.Callback):
    """Says which attack `val_robust_accuracy` is under."""

    def on_train_begin(self, logs=None):
        say_attack(self, "val_robust_accuracy", self.model.validation_attack)
