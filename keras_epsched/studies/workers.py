"""The evaluation of a model by several workers, which share the images."""

import dataclasses
import os
import pathlib

import keras

from keras_epsched import datasets, evaluation, optional, reports, runs
from keras_epsched.configs.values import Role, value
from keras_epsched.runs import build, evaluating
from keras_epsched.runs.device import computing_as
from keras_epsched.runs.prepare import Run
from keras_epsched.studies import devices


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class SharedEvaluation(runs.Evaluation):
    """The config of an evaluation by several workers.

    Example:
    ```python
    config = keras_epsched.studies.SharedEvaluation(
        model=("runs/digits/model.keras",), workers=8
    )
    print(keras_epsched.studies.evaluate(config))
    ```
    """

    workers: int = value(
        1,
        "Processes that share the images. More than one needs Ray.",
        Role.PLACE,
        at_least=1,
    )
    worker_cpus: float = value(
        1.0, "CPU cores, and so threads, of a worker.", Role.PLACE
    )
    worker_gpus: float | None = value(
        None,
        "GPUs of a worker, also a fraction of one; default: one if there are "
        "any.",
        Role.PLACE,
        at_least=0.0,
    )


def evaluate(
    config: SharedEvaluation, *, command: str | None = None, verbose: int = 1
) -> evaluating.Evaluated:
    """Measures the robustness of classifiers with several workers.

    Each worker evaluates a share of the images. Every image gets the same
    result as with `keras_epsched.runs.evaluate`. The self-checks run on each
    share, and a check that fires on one share fires in the report.

    The workers are tasks of Ray, on this machine or on a cluster. For a cluster
    set RAY_ADDRESS, and use models and a run folder on a file system that all
    machines share. Needs `pip install "keras-epsched[study]"`.

    Args:
        config: `SharedEvaluation`.
        command: String or `None`. The command to store in config.json.
        verbose: Int. 0 prints nothing.

    Returns:
        An `Evaluated`.
    """
    if config.workers == 1:
        return runs.evaluate(config, command=command, verbose=verbose)
    optional.package(
        "ray", "`workers`", 'Or: pip install "keras-epsched[study]".'
    )
    return runs.evaluate(
        config, command=command, verbose=verbose, by=_evaluate_by_workers
    )


def _evaluate_by_workers(
    run: Run[SharedEvaluation], classifier: keras.Model, *, folder, **arguments
) -> reports.Report:
    """Evaluates each share in a process of its own, and merges the reports."""
    import ray

    config = run.config
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources = devices.resources(
        devices.nodes(), config.worker_cpus, config.worker_gpus, "worker"
    )
    task = ray.remote(
        num_cpus=resources["cpu"],
        num_gpus=resources["gpu"],
        max_calls=1,
        # A share whose process died resumes.
        max_retries=2,
    )(evaluate_share)
    model = evaluating.names(config.model)[arguments["model_name"]]
    shards = [(index, config.workers) for index in range(config.workers)]
    # Another number of workers gives other shares of the images.
    place = pathlib.Path(folder) / f"shares-of-{config.workers}"
    arguments["resume"] = True
    found = []
    references = [
        task.remote(
            config,
            model,
            os.getcwd(),
            resources,
            {
                **arguments,
                "shard": shard,
                "folder": str((place / str(shard[0])).resolve()),
            },
        )
        for shard in shards
    ]
    for number, reference in enumerate(references, 1):
        found.append(reports.Report.load(ray.get(reference)))
        run.say(f"{number} of {len(shards)} shares are done")
    report = evaluation.merge(found)
    report.save(folder)
    return report


def evaluate_share(
    config: SharedEvaluation,
    model: str,
    directory: str,
    resources: dict,
    arguments: dict,
) -> str:
    """Evaluates a share of the images.

    Args:
        config: `SharedEvaluation`.
        model: String. Path or name of the classifier.
        directory: String. The path that relative paths start from.
        resources: Dict of CPUs and GPUs, see `devices.resources`.
        arguments: Dict of arguments of `keras_epsched.evaluate`, including
            `folder` and `shard`.

    Returns:
        A string, the folder of the report.
    """
    if os.path.isdir(directory):
        os.chdir(directory)
    devices.share(resources)
    with computing_as(config):
        data: datasets.ImageData = build.load_data(config, config.seed)
        classifier = evaluating.load_classifier(config, model, data)
        evaluating.evaluate_one(
            Run(config, pathlib.Path(arguments["folder"]), data, None, 0),
            classifier,
            **arguments,
        )
    return arguments["folder"]
