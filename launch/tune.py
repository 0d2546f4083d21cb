r"""Searches learning rate and weight decay, and writes the best as a recipe.

Trials are drawn at random and stopped early by ASHA, in Ray Tune, each within
a budget of time, as in the paper (arXiv 2509.23325): there by clean validation
accuracy, in [1e-5, 1e-1], 30 minutes a trial, for the fixed epsilon, whose
choice the schedule then uses as well. Draws repeat with the same --seed. Each
trial has a GPU of its own where there are any; --trial_gpus=0.5 puts two on
one. Needs `pip install -e ".[study]"`.

Examples:
  python launch/tune.py --trials=8 --epochs=10 --output=runs/search
  # Continue what was interrupted; trials that were under way start again. All
  # flags must be as before, but those of time and of what a trial occupies:
  python launch/tune.py --trials=8 --epochs=10 --output=runs/search --resume
  # The best of it:
  python launch/finetune.py --recipe=runs/search/recipe.json
"""

import contextlib
import json
import os
import pathlib

import common
import flag_types
import ray_devices
import refusals
import run_folders
import tune_trial
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE(
    flag_types.ScheduleName(),
    "schedule",
    "fixed",
    "Schedule of the trials; see finetune.py.",
    serializer=flags.ArgumentSerializer(),
)
flags.DEFINE_integer("trials", 16, "Number of trials.", lower_bound=1)
flags.DEFINE_float("lowest", 1e-5, "Lowest learning rate and weight decay.")
flags.DEFINE_float("highest", 1e-1, "Highest.")
flags.DEFINE_bool(
    "tune_head", False, "Also search the head's multiple, in [1, 100]."
)
flags.DEFINE_enum(
    "select",
    "clean",
    ["clean", "expected_robustness"],
    "What is to be best on the validation images, after each epoch. For "
    "expected_robustness APGD with 10 steps on the margin of probabilities "
    "stands in for the default --eval_attack, at a fraction of its passes.",
)
flags.DEFINE_integer(
    "select_images",
    256,
    "Validation images for --select=expected_robustness.",
    lower_bound=1,
)
flags.DEFINE_float("trial_minutes", 30.0, "Budget of a trial.")
flags.DEFINE_integer("grace_epochs", 1, "Epochs before ASHA stops a trial.")
flags.DEFINE_float(
    "trial_cpus", 1.0, "CPU cores of a trial, which has as many threads."
)
flags.DEFINE_float(
    "trial_gpus",
    None,
    "GPUs, or the share of one, of a trial; default: one if there are any.",
    lower_bound=0.0,
)

# What may differ when a search goes on, besides what may in any run.
MAY_DIFFER = ("trial_minutes", "trial_cpus", "trial_gpus")


def make_space():
    """What is searched."""
    from ray import tune

    between = tune.loguniform(FLAGS.lowest, FLAGS.highest)
    space = {"learning_rate": between, "weight_decay": between}
    if FLAGS.tune_head:
        space["head_multiplier"] = tune.loguniform(1.0, 100.0)
    return space


def make_generator():
    """Draws of the space, the same for the same seed."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=FLAGS.seed)


def make_tuner(folder):
    """The search of the flags, new or continued."""
    import functools

    # Trials write nothing, and relative paths stay what they are.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    ray.init()
    resources = ray_devices.resources(
        ray_devices.nodes(), FLAGS.trial_cpus, FLAGS.trial_gpus, "trial"
    )
    trial = functools.partial(
        tune_trial.run,
        arguments=common.flag_arguments(),
        score=FLAGS.select,
        minutes=FLAGS.trial_minutes,
        resources=resources,
    )
    trial = tune.with_resources(trial, resources)
    if FLAGS.resume:
        return tune.Tuner.restore(
            str((folder / "search").resolve()), trial, restart_errored=True
        )
    return tune.Tuner(
        trial,
        param_space=make_space(),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=FLAGS.trials,
            search_alg=make_generator(),
            scheduler=ASHAScheduler(
                max_t=FLAGS.epochs,
                grace_period=min(FLAGS.grace_epochs, FLAGS.epochs),
            ),
        ),
        run_config=tune.RunConfig(
            name="search", storage_path=str(folder.resolve())
        ),
    )


@contextlib.contextmanager
def gpus_hidden():
    """Keeps what is computed here off the GPUs, which are for the trials.

    A backend takes the memory of those that it sees, and keeps it; what it has
    not seen at first it does not see later. Ray must see them again.
    """
    name = ray_devices.VISIBLE_GPUS
    before = os.environ.get(name)
    os.environ[name] = "-1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def open_folder():
    """The folder of the search, which --resume expects to be there."""
    if not FLAGS.resume:
        with gpus_hidden():
            return common.prepare("tune")[0]
    folder = pathlib.Path(FLAGS.output or "")
    if FLAGS.output is None or not (folder / "search").is_dir():
        raise ValueError(
            "--resume continues a search that --output holds. Received: "
            f"--output={FLAGS.output}, where there is none: leave out --resume"
        )
    common.apply_recipe()
    run_folders.check_flags_as_stored(
        folder / "config.json", (*run_folders.MAY_DIFFER, *MAY_DIFFER)
    )
    run_folders.lock(folder)
    return folder


def write_recipe(folder, best, row):
    """Writes what finetune.py takes by --recipe."""
    path = folder / "recipe.json"
    why = f"the best of {FLAGS.trials} trials by {FLAGS.select}"
    if FLAGS.select == "expected_robustness":
        why += f" under {common.make_choosing_attack().title}"
    # Schedule and final attack are not the search's to choose.
    own = {"recipe", "data_dir", "deterministic", *run_folders.MAY_DIFFER}
    own |= {"eval_attack", "eval_steps", "bisect"}
    values = {
        key: each
        for key, each in common.flags_of(common).items()
        if key not in own
    }
    run_folders.write_json(
        path,
        {
            "source": f"A search on {FLAGS.dataset}, schedule "
            f"{FLAGS.schedule}: score {row['score']:.4f} after epoch "
            f"{row['epochs']}",
            "flags": {**values, **best},
            "choices": dict.fromkeys(best, why),
        },
    )
    return path


def main(_):
    from tabulate import tabulate

    with refusals.checking():
        if not 0 < FLAGS.lowest < FLAGS.highest:
            raise ValueError(
                "--lowest must be positive and below --highest. Received: "
                f"{FLAGS.lowest}, {FLAGS.highest}"
            )
        try:
            import ray  # noqa: F401  (said before anything is prepared)
        except ImportError as error:
            raise ImportError(
                'the search needs Ray Tune: pip install -e ".[study]"'
            ) from error
        folder = open_folder()
    results = make_tuner(folder).fit()
    rows = [
        {
            **result.config,
            "score": result.metrics.get("score"),
            "epochs": result.metrics.get("training_iteration"),
            "seconds": result.metrics.get("time_total_s"),
            "error": str(result.error or ""),
        }
        for result in results
        if result.config
    ]
    # By the last epoch of each, whose weights a training would give.
    rows.sort(key=lambda row: -(row["score"] or 0.0))
    run_folders.write_json(folder / "trials.json", rows)
    print(tabulate(rows, headers="keys"))
    if not rows or rows[0]["score"] is None:
        raise RuntimeError(f"no trial has finished an epoch: see {folder}")
    names = ("learning_rate", "weight_decay", "head_multiplier")
    best = {name: rows[0][name] for name in names if name in rows[0]}
    print(f"\nrecipe: {write_recipe(folder, best, rows[0])}")
    print(json.dumps({"run_folder": str(folder)}))


if __name__ == "__main__":
    refusals.run(main)
