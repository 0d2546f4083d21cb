r"""Runs the attacks of other libraries on torch, for frontier.py.

frontier.py starts it in a separate process. It loads the same .keras file with
Keras on torch, and runs the attacks at one epsilon after the other, on the
images that are classified correctly, as a user of these libraries would. The
network counts its forward and backward passes for each image. Every adversarial
image is checked: one that exceeds epsilon or the range of pixels counts as a
failure of its attack.

Steps, restarts and losses are the defaults of each library. Step sizes are not,
because a fixed size is far too large or too small at most epsilons. They are
the share of epsilon that the defaults imply (2/255 of 8/255 in torchattacks,
0.1 of 0.3 in ART). AutoAttack has 100 steps as in its reference, instead of the
10 of torchattacks.

It reads and writes one folder:

  inputs.npz   images (NHWC, 0..255), labels, logits of another backend
  jobs.json    norm, epsilons, classes, and a list of {attack, images}
  NAME.json    written for each attack: correct (images x epsilons), passes,
               outside (number of adversarial images that exceed epsilon or the
               range of pixels), seconds

Example:
  KERAS_BACKEND=torch python benchmarks/frontier_peer.py --model=M.keras \
      --folder=FOLDER
"""

import json
import pathlib
import time

import numpy as np
import parity_peer
from absl import app, flags, logging

FLAGS = flags.FLAGS

_SAME_LOGITS = 1e-3
_TORCHATTACKS_NORMS = {"linf": "Linf", "l2": "L2"}
# Of AutoAttack at one epsilon: forward passes alone, and with a gradient.
_FORWARD, _GRADIENTS = 5900, 1910
_ART_NORMS = {"linf": np.inf, "l2": 2, "l1": 1}


def counted(network, image_shape):
    """The network, which notes how many images went through it."""
    import torch

    class Counted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network
            self.image_shape = tuple(image_shape)
            self.forward_passes = self.backward_passes = 0

        def forward(self, images):
            if images.requires_grad:
                # As of a network in torch, which `view` in torchattacks needs.
                images.register_hook(lambda gradient: gradient.contiguous())
            logits = self.network(images)
            self.forward_passes += len(logits)
            if logits.requires_grad:
                logits.register_hook(self.note_backward)
            return logits

        def note_backward(self, gradient):
            self.backward_passes += len(gradient)

    return Counted().eval()


# === Attacks: functions from images and labels to adversarial images ===


def torchattacks_pgd(model, norm, epsilon, classes):
    import torchattacks

    if norm == "l2":
        return torchattacks.PGDL2(model, eps=epsilon, alpha=epsilon / 5)
    return torchattacks.PGD(model, eps=epsilon, alpha=epsilon / 4)


def torchattacks_apgd(model, norm, epsilon, classes):
    import torchattacks

    return torchattacks.APGD(model, _TORCHATTACKS_NORMS[norm], epsilon)


def torchattacks_autoattack(model, norm, epsilon, classes):
    import torchattacks

    attack = torchattacks.AutoAttack(
        model, _TORCHATTACKS_NORMS[norm], epsilon, n_classes=classes, seed=0
    )
    for each in attack._autoattack.attacks[:3]:
        each.steps = 100
    return attack


def foolbox_pgd(model, norm, epsilon, classes):
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    kinds = {
        "linf": foolbox.attacks.LinfPGD,
        "l2": foolbox.attacks.L2PGD,
        "l1": foolbox.attacks.L1PGD,
    }
    attack = kinds[norm]()
    return lambda x, y: attack(wrapped, x, y, epsilons=epsilon)[1]


def art_pgd(model, norm, epsilon, classes):
    from art.attacks import evasion

    return _art(
        evasion.ProjectedGradientDescentPyTorch, model, norm, epsilon, classes
    )


def art_apgd(model, norm, epsilon, classes):
    from art.attacks import evasion

    return _art(
        evasion.AutoProjectedGradientDescent, model, norm, epsilon, classes
    )


def _art(kind, model, norm, epsilon, classes):
    import torch
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model=model,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=model.image_shape,
        nb_classes=classes,
        clip_values=(0, 1),
        device_type="cpu",
    )
    attack = kind(
        wrapped,
        norm=_ART_NORMS[norm],
        eps=epsilon,
        eps_step=epsilon / 3,
        batch_size=FLAGS.batch_size,
        verbose=False,
    )
    return lambda x, y: torch.from_numpy(
        attack.generate(x.numpy(), np.eye(classes, dtype="float32")[y])
    )


ATTACKS = {
    "torchattacks_pgd": torchattacks_pgd,
    "torchattacks_apgd": torchattacks_apgd,
    "torchattacks_autoattack": torchattacks_autoattack,
    "foolbox_pgd": foolbox_pgd,
    "art_pgd": art_pgd,
    "art_apgd": art_apgd,
}


# === The loop over epsilons ===


def run(make, model, images, labels, plan):
    """What an attack leaves at each epsilon, and what it takes."""
    import torch

    from keras_epsched.evaluation.stored_adversarials import is_within

    torch.manual_seed(0)
    np.random.seed(0)
    model.forward_passes = model.backward_passes = outside = 0
    started = time.perf_counter()
    hit = parity_peer.predictions(model, images) == labels.numpy()
    correct = [hit]
    chosen = torch.from_numpy(np.flatnonzero(hit))
    for epsilon in plan["epsilons"]:
        attack = make(model, plan["norm"], epsilon, plan["classes"])
        standing = hit.copy()
        for part in torch.split(chosen, FLAGS.batch_size):
            moved = attack(images[part], labels[part]).detach()
            fooled = (
                parity_peer.predictions(model, moved) != labels[part].numpy()
            )
            inside = is_within(
                moved.numpy(),
                images[part].numpy(),
                np.full(len(part), epsilon),
                plan["norm"],
                (0, 1),
            )
            outside += int((~inside).sum())
            standing[part.numpy()] = ~(fooled & inside)
        correct.append(standing)
    return {
        "correct": np.stack(correct, axis=1).astype(int).tolist(),
        "forward_passes": model.forward_passes,
        "backward_passes": model.backward_passes,
        "outside": outside,
        "seconds": time.perf_counter() - started,
    }


def minutes_of_autoattack(model, images, epsilons):
    """What AutoAttack takes at most, where no image breaks."""
    import torch

    def seconds(step):
        started = time.perf_counter()
        for _ in range(10):
            step()
        return (time.perf_counter() - started) / 10

    def forward():
        with torch.no_grad():
            model(images)

    def gradient():
        moved = images.clone().requires_grad_()
        torch.autograd.grad(model(moved).sum(), moved)

    at_each = _FORWARD * seconds(forward) + _GRADIENTS * seconds(gradient)
    return len(epsilons) * at_each / 60


def main(_):
    import torch

    logging.set_verbosity(logging.ERROR)

    torch.set_num_threads(FLAGS.threads)
    folder = pathlib.Path(FLAGS.folder)
    plan = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
    with np.load(folder / "inputs.npz") as arrays:
        pixels, logits = arrays["images"], arrays["logits"]
        labels = torch.from_numpy(arrays["labels"].astype("int64"))
    nchw = np.ascontiguousarray(np.transpose(pixels, (0, 3, 1, 2)))
    images = torch.from_numpy(nchw.astype("float32") / np.float32(255))
    network = parity_peer.wrapped(parity_peer.load(FLAGS.model), images)
    model = counted(network, images.shape[1:])
    with torch.no_grad():
        np.testing.assert_allclose(
            model(images).numpy(),
            logits,
            rtol=_SAME_LOGITS,
            atol=_SAME_LOGITS,
        )
    for job in plan["jobs"]:
        name, few = job["attack"], slice(job["images"])
        if name == "torchattacks_autoattack":
            minutes = minutes_of_autoattack(
                model, images[few], plan["epsilons"]
            )
            print(f"  {name}: up to {minutes:.0f} minutes", flush=True)
        result = run(ATTACKS[name], model, images[few], labels[few], plan)
        path = folder / f"{name}.json"
        path.with_suffix(".tmp").write_text(json.dumps(result))
        path.with_suffix(".tmp").rename(path)
        print(f"  {name}: {result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    app.run(main)
