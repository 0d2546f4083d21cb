r"""Compares trainings that take fewer attack steps while epsilon rises.

The training takes PGD with few steps in each epoch that begins below the target
epsilon, and with more steps from then on. The other values are the [flags] of a
study, such as those of a fixed budget. Prints for each setting the cost of the
training, in epochs without an attack, and what the default evaluation gives.
The table in REPRODUCTION.md comes from here; its rows with as many steps in all
epochs are cells of the study.

Examples:
  python benchmarks/ramp_steps.py --study=reproduction/budget.toml --epochs=20
  python benchmarks/ramp_steps.py --study=reproduction/budget_flowers.toml \
      --epochs=16 --steps=1:3,2:3
"""

import json
import os
import pathlib
import tomllib

from absl import app, flags, logging

FLAGS = flags.FLAGS
flags.DEFINE_string("study", None, "TOML file of a study.", required=True)
flags.DEFINE_integer("epochs", 20, "Epochs of each training.", lower_bound=4)
flags.DEFINE_integer("seed", 0, "Seed of the trainings.")
flags.DEFINE_list(
    "steps",
    ["1:3", "2:3", "3:7"],
    "Settings as RAMP:PLATEAU: steps of PGD while epsilon rises, and after it.",
)


def train(texts, ramp_steps, plateau_steps):
    import keras

    import keras_epsched as ke
    from keras_epsched.runs import build, costs, finetuning

    texts = texts | {"schedule": "scheduled", "train_steps": plateau_steps}
    config = ke.runs.Config(**texts)
    scheduler = build.make_scheduler(config, "scheduled")
    loss = config.train_attack_loss
    ramp = ke.attacks.PGD(ramp_steps, config.norm, loss)
    plateau = ke.attacks.PGD(plateau_steps, config.norm, loss)
    used = []

    class RampAttack(keras.callbacks.Callback):
        """Trains with another attack while epsilon is below the target."""

        def on_epoch_begin(self, epoch, logs=None):
            start = scheduler.schedule(epoch / config.epochs)
            rises = start < config.epsilon * (1 - 1e-6)
            attack = ramp if rises else plateau
            if self.model.attack is not attack:
                self.model.attack = attack
                self.model.make_train_function(force=True)
            used.append(attack)

    net, data, _ = finetuning.train(
        config,
        scheduler,
        config.learning_rate,
        config.seed,
        None,
        verbose=0,
        callbacks=[RampAttack()],
    )
    report = finetuning.evaluate(config, net, data.test, verbose=0)
    steps = len(data.train)
    attacked = costs.attacked_steps(scheduler, config.epochs, steps)
    work = sum(
        3 + sum(attack.training_passes(data.num_classes)) * count / steps
        for attack, count in zip(used, attacked, strict=True)
    )
    return {
        "steps": f"{ramp_steps}:{plateau_steps}",
        "epochs": config.epochs,
        "seed": config.seed,
        "cost": work / 3,
        "clean": report.clean_accuracy,
        "at_target": float(report.accuracy[-1]),
        "expected": report.expected_robustness(),
    }


def main(_):
    from tabulate import tabulate

    from keras_epsched.configs.values import as_text

    tables = tomllib.loads(
        pathlib.Path(FLAGS.study).read_text(encoding="utf-8")
    )
    texts = {k: as_text(v) for k, v in tables["flags"].items()}
    texts = {k: os.path.expandvars(v) for k, v in texts.items()}
    texts |= {"epochs": FLAGS.epochs, "seed": FLAGS.seed}
    rows = []
    for setting in FLAGS.steps:
        ramp_steps, plateau_steps = map(int, setting.split(":"))
        rows.append(train(texts, ramp_steps, plateau_steps))
        logging.info(json.dumps(rows[-1]))
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    app.run(main)
