"""CPUs and GPUs of a Ray task: the request, and the limits in its process."""

import os
import warnings

from keras_epsched.runs import ConfigError

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def nodes() -> list[dict[str, float]]:
    """Returns the CPUs and GPUs of each machine of the running cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def resources(
    nodes, cpus: float, gpus: float | None, of: str
) -> dict[str, float]:
    """Returns the CPUs and GPUs that a task requests from Ray.

    Args:
        nodes: List of mappings, see the function `nodes`. A task runs on one
            of them.
        cpus: Float. CPU cores of a task.
        gpus: Float or `None`. GPUs of a task, also a fraction of one. With
            `None` each task has a GPU of its own if there are any, because
            nobody knows beforehand how many networks fit on one.
        of: String. `"trial"`, `"cell"` or `"worker"`, for messages.

    Returns:
        A dict with `"cpu"` and `"gpu"`.

    Raises:
        ValueError: If no machine has as many CPUs and GPUs.
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
            + f": no {of} would ever start. Lower `{of}_cpus` or `{of}_gpus`"
        )
    if most_gpus and not gpus:
        warnings.warn(
            f"{of}_gpus=0: the {of}s run on the CPU, and "
            f"{sum(node['gpu'] for node in there):g} GPU(s) are not used",
            stacklevel=2,
        )
    return asked


def share(resources: dict[str, float]) -> None:
    """Limits this process to its CPUs and GPUs.

    Call it before the process computes anything.

    Args:
        resources: Dict, see the function `resources`.
    """
    # Other tasks may share the GPU. By default TensorFlow and JAX take all of
    # its memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if not resources["gpu"]:
        # Ray does not hide GPUs from a task that requests none.
        os.environ[VISIBLE_GPUS] = "-1"
    # By default TensorFlow uses all cores in each task.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(max(1, int(resources["cpu"]))))
