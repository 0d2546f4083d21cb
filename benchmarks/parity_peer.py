r"""Runs torchattacks on torch, for parity.py.

parity.py starts it in a separate process. It loads the same .keras file with
Keras on torch. It attacks images with torchattacks, or predicts the classes of
the adversarial images that parity.py has found. It reads and writes one folder:

  inputs.npz     images (NHWC, 0..255), labels
  jobs.json      list of {attack, norm, epsilon, steps, queries, targets,
                 seed}, or
  found.npz      adversarial images of parity.py (NHWC, 0..255), by name
  attacked.npz   written: adversarial images of each job (NHWC, 0..1), with the
                 names job0, job1 and so on
  answers.npz    written: predictions for found.npz or attacked.npz, and for
                 inputs.npz

It uses one thread by default, because several threads wait for each other if
other processes use the same cores.

Example:
  KERAS_BACKEND=torch python benchmarks/parity_peer.py --model=M.keras \
      --folder=FOLDER
"""

import json
import pathlib
import time
import warnings

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras classifier.", required=True)
flags.DEFINE_string("folder", None, "The folder of the jobs.", required=True)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer("threads", 1, "Threads of torch.", lower_bound=1)

_NORMS = {"linf": "Linf", "l2": "L2"}


def load(path):
    """The network for NHWC pixels in 0..255."""
    import keras
    import keras_hub  # noqa: F401  (registers its layers)

    if keras.backend.backend() != "torch":
        raise RuntimeError(
            "This script needs the torch backend. Set KERAS_BACKEND=torch."
        )
    network = keras.saving.load_model(path, compile=False)
    network.trainable = False
    for each in network.parameters():
        each.requires_grad_(False)
    return network


def wrapped(network, images):
    """The network as torchattacks wants it: NCHW pixels in [0, 1].

    Traced, which halves the time and must not change the answers.
    """
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            pixels = 255.0 * images.permute(0, 2, 3, 1)
            return self.network(pixels, training=False)

    plain = Wrapped().eval()
    with warnings.catch_warnings():
        # Of sizes that the trace takes for constants: tried below.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(plain, images[:3])
    traced = torch.jit.freeze(traced)
    with torch.no_grad():
        for size in (1, 5, FLAGS.batch_size):
            torch.testing.assert_close(
                traced(images[-size:]), plain(images[-size:])
            )

    class Traced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            # Torchattacks asks a parameter for the device; freezing left none.
            self.device = torch.nn.Parameter(torch.zeros(1), False)
            self.traced = traced

        def forward(self, images):
            return self.traced(images)

    return Traced().eval()


def make_attack(model, job):
    """An attack of torchattacks."""
    import torchattacks

    shared = {
        "norm": _NORMS[job["norm"]],
        "eps": job["epsilon"],
        "n_restarts": 1,
        "seed": job["seed"],
    }
    # It aims at one class less than `n_classes`.
    targeted = {"steps": job["steps"], "n_classes": job["targets"] + 1}
    name = job["attack"]
    if name == "APGD":
        steps = job["steps"]
        return torchattacks.APGD(model, **shared, steps=steps, loss="ce")
    if name == "APGD-T":
        return torchattacks.APGDT(model, **shared, **targeted)
    if name == "FAB-T":
        return torchattacks.FAB(
            model, **shared, **targeted, multi_targeted=True
        )
    # AutoAttack plans for 10,000 queries, whatever it gets. The default of
    # torchattacks is to fit the plan to the queries.
    return torchattacks.Square(
        model,
        **shared,
        n_queries=job["queries"],
        resc_schedule=name == "Square rescaled",
    )


def predictions(model, images):
    """Classes of NCHW images."""
    import torch

    if not len(images):
        return np.zeros(0, "int64")
    with torch.no_grad():
        return torch.cat(
            [
                model(part).argmax(-1)
                for part in torch.split(images, FLAGS.batch_size)
            ]
        ).numpy()


def main(_):
    import torch

    torch.set_num_threads(FLAGS.threads)
    folder = pathlib.Path(FLAGS.folder)
    network = load(FLAGS.model)
    with np.load(folder / "inputs.npz") as arrays:
        pixels, labels = arrays["images"], arrays["labels"]

    def to_torch(images):
        nchw = np.ascontiguousarray(np.transpose(images, (0, 3, 1, 2)))
        return torch.from_numpy(nchw.astype("float32"))

    images = to_torch(pixels / np.float32(255))
    targets = torch.from_numpy(labels.astype("int64"))
    model = wrapped(network, images)
    answers = {"clean": predictions(model, images)}
    attacked = {}
    jobs = []
    if (folder / "jobs.json").exists():
        jobs = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
    for number, job in enumerate(jobs):
        started = time.perf_counter()
        attack = make_attack(model, job)
        moved = torch.cat(
            [
                attack(images[part], targets[part]).detach()
                for part in torch.split(
                    torch.arange(len(images)), FLAGS.batch_size
                )
            ]
        )
        name = f"job{number}"
        answers[name] = predictions(model, moved)
        attacked[name] = moved.permute(0, 2, 3, 1).numpy()
        wrong = int((answers[name] != labels).sum())
        print(
            f"[{time.strftime('%H:%M:%S')}]   torchattacks {job['norm']} "
            f"{job['epsilon']:.4g} {job['attack']}: {wrong} of {len(labels)} "
            f"fooled, {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    if (folder / "found.npz").exists():
        with np.load(folder / "found.npz") as arrays:
            for name, found in arrays.items():
                answers[name] = predictions(
                    # The pixels themselves: 255 * (x / 255) may round.
                    lambda nchw: network(
                        nchw.permute(0, 2, 3, 1), training=False
                    ),
                    to_torch(found),
                )
    np.savez(folder / "attacked.npz", **attacked)
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    app.run(main)
