"""One trial of tune.py, in a process of its own."""

import sys


def run(config: dict, arguments: list[str], score: str) -> None:
    """Trains by the flags and a draw of the search, and reports each epoch.

    Args:
        config: Values of flags that are searched.
        arguments: The other flags, as on a command line.
        score: `"clean"` or `"expected_robustness"`.
    """
    import keras
    from absl import flags

    flags.FLAGS.unparse_flags()
    # The flags of the search itself are known to its own process only.
    import common

    values = [f"--{name}={value}" for name, value in config.items()]
    flags.DEFINE_float("learning_rate", 1e-3, "", allow_override=True)
    flags.DEFINE_string("schedule", "fixed", "", allow_override=True)
    flags.DEFINE_integer("select_images", 256, "", allow_override=True)
    flags.FLAGS(["tune_trial", *arguments, *values])

    class Reporter(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            from ray import tune

            value = logs["val_accuracy"]
            if score == "expected_robustness":
                value = robustness(self.model.model)
            tune.report({"score": float(value)})

    common.train(
        common.make_schedules()[flags.FLAGS.schedule],
        flags.FLAGS.learning_rate,
        flags.FLAGS.seed,
        None,
        verbose=0,
        callbacks=[Reporter()],
    )


def robustness(classifier) -> float:
    """Expected robustness on some validation images."""
    import common
    from absl import flags

    import keras_epsched as ke

    chosen = flags.FLAGS
    data = common.load_data(chosen.seed)
    images = data.validation.unbatch().take(chosen.select_images)
    report = ke.evaluate(
        classifier,
        images.batch(chosen.batch_size),
        common.evaluation_grid(),
        common.make_attack(chosen.eval_attack, chosen.eval_steps),
        seed=chosen.seed,
        self_check=False,
        verbose=0,
    )
    return report.expected_robustness()


if __name__ == "__main__":
    sys.exit("tune_trial.py is run by tune.py")
