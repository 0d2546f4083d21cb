"""What a task of Ray asks for, and what it takes of a machine."""

import os
import warnings

from keras_epsched.runs import ConfigError

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def nodes() -> list[dict[str, float]]:
    """What each machine of the running cluster has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def resources(
    nodes, cpus: float, gpus: float | None, of: str
) -> dict[str, float]:
    """What a task asks of Ray.

    Args:
        nodes: List of mappings, as the function `nodes` returns it. A task
            runs on one of them.
        cpus: CPU cores of a task.
        gpus: GPUs of a task, or the share of one. `None` is one for each
            where there are any: how many networks fit on a GPU is not known
            before they are trained.
        of: `"trial"`, `"cell"` or `"worker"`, as values name the task.

    Returns:
        A `dict` with `"cpu"` and `"gpu"`.

    Raises:
        ValueError: If no task could ever start.
    """
    there = [
        {"cpu": node.get("CPU", 0.0), "gpu": node.get("GPU", 0.0)}
        for node in nodes
    ]
    most_gpus = max(node["gpu"] for node in there)
    if gpus is None:
        gpus = min(1.0, most_gpus)
    asked = {"cpu": cpus, "gpu": gpus}
    if not any(
        all(asked[name] <= node[name] for name in asked) for node in there
    ):
        raise ConfigError(
            f"{of}_cpus={cpus:g} and {of}_gpus={gpus:g}, but Ray sees "
            + "; ".join(f"{n['cpu']:g} CPUs, {n['gpu']:g} GPUs" for n in there)
            + f": no {of} would ever start"
        )
    if most_gpus and not gpus:
        warnings.warn(
            f"{of}_gpus=0: the {of}s run on the CPU, and "
            f"{sum(node['gpu'] for node in there):g} GPU(s) stand idle",
            stacklevel=2,
        )
    return asked


def share(resources: dict[str, float]) -> None:
    """Keeps this process within its resources; before it computes anything.

    Args:
        resources: As the function `resources` returned them.
    """
    # Another task may have a share of the same GPU: TensorFlow and JAX would
    # take all of its memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if not resources["gpu"]:
        # Ray leaves all of them in sight.
        os.environ[VISIBLE_GPUS] = "-1"
    # TensorFlow would use all cores, in each task.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(max(1, int(resources["cpu"]))))
