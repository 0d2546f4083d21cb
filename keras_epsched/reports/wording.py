"""The sentences that printed reports, web pages and model cards share."""

import pathlib

import numpy as np

from keras_epsched.epsilons import format_epsilon

# The protocols of an evaluation, in words.
PROTOCOLS = {
    "nested": "nested (an image that is broken at one epsilon counts as "
    "broken at every larger epsilon)",
    "independent": "independent (each epsilon is attacked from scratch)",
}
_PAPER = "the protocol of the paper (arXiv 2509.23325)"
# The arguments of APGD in the evaluations of the paper.
_PAPER_ATTACK = {
    "steps": 10,
    "norm": "linf",
    "loss": "ce",
    "random_start": True,
    "restarts": 1,
    "eot": 1,
}
# Attacks that aim at no particular wrong class.
_UNTARGETED = ("FGSM", "PGD", "APGD")

# What each self-check does, and what its result means.
_PURPOSES = {
    "random outputs": "Calls the network twice on the same images. If the "
    "outputs differ, neither the accuracy nor the gradient of a single call "
    "can be trusted.",
    "float16 saturation": "Looks for logits beyond the range of float16. "
    "Such logits have no gradient.",
    "unbounded attack": "Lets the attack change every pixel to any value. An "
    "attack that works then lowers accuracy to chance.",
    "accuracy against epsilon": "Attacks the same images from scratch at "
    "several epsilons. If the attack works, fewer images withstand it at a "
    "larger epsilon.",
    "attack without gradients": "Tries random search, which uses no "
    "gradients, on images that withstood the attack. If it breaks many, the "
    "gradients of the network mislead the attack.",
    "stronger attack": "Tries a stronger attack on images that withstood the "
    "attack. The share that it breaks estimates how much too high the "
    "reported accuracy is.",
    "zero gradients": "Counts the images on which the attack found no "
    "gradient to follow.",
    "stored adversarials": "Checks the stored adversarial images again. Each "
    "must lie within epsilon and be misclassified.",
}


def check_purpose(name: str) -> str:
    """Returns what a self-check does and means, or `""` if unknown.

    Args:
        name: String. Name of the self-check.
    """
    return _PURPOSES.get(name, "")


def bound(report) -> str:
    """Returns how far the accuracies of a report can be trusted.

    Accuracy under any attack is an upper bound on robust accuracy. If every
    attack is untargeted and follows cross-entropy, the bound is known to be
    loose, however many steps the attacks have.

    Args:
        report: A `Report`.

    Returns:
        A string of one to three sentences.
    """
    config = report.attack.get("config", {})
    members = config.get("members", [report.attack])
    if not all(
        each.get("class_name") in _UNTARGETED
        and each.get("config", {}).get("loss") == "ce"
        for each in members
    ):
        return (
            "Accuracy under attack is an upper bound on robust accuracy: a "
            "stronger attack may break more images."
        )
    return (
        "Accuracy under attack is an upper bound on robust accuracy. The bound "
        "is known to be loose for untargeted attacks on cross-entropy, which "
        "were used here: stronger attacks measured an expected robustness "
        "that was up to 14 points lower. To publish a number, use the default "
        "attack, MarginEnsemble."
    )


def is_paper_protocol(report) -> bool:
    """Whether an evaluation used exactly the protocol of the paper.

    Args:
        report: A `Report`.
    """
    config = report.attack.get("config", {})
    return (
        report.protocol == "independent"
        and report.attack.get("class_name") == "APGD"
        and all(config.get(key) == _PAPER_ATTACK[key] for key in _PAPER_ATTACK)
    )


def dataset_name(report) -> str:
    """Returns the name of the dataset, without the path of a folder.

    Args:
        report: A `Report`.
    """
    name = str((report.dataset or {}).get("dataset", "unnamed"))
    kind, colon, place = name.partition(":")
    return f"{kind}{colon}{pathlib.PurePath(place).name}"


def breakers(report) -> tuple[tuple, list[tuple]]:
    """Returns a table of how many images each attack broke first.

    Args:
        report: A `Report`.

    Returns:
        The header of the table and its rows, one for each attack.
    """
    header = [
        format_epsilon(epsilon, report.norm) for epsilon in report.epsilons[1:]
    ]
    rows = [
        (name, *counts[1:])
        for name, counts in zip(
            report.member_titles, report.broken_counts, strict=True
        )
    ]
    return ("images broken up to", *header), rows


def percent_interval(interval: tuple[float, float]) -> str:
    """Returns an interval of fractions in percent, without the percent sign."""
    return "{:.2f} to {:.2f}".format(*(100 * end for end in interval))


def subject(report) -> dict[str, str]:
    """Returns what was evaluated, as a dict from line names to texts."""
    dataset, images = "unnamed", f"{report.num_images:,}"
    if report.dataset is not None:
        dataset = str(report.dataset.get("dataset", dataset))
        if report.dataset.get("split"):
            dataset += f", split {report.dataset['split']}"
        if report.dataset.get("num_examples"):
            images += f" of {report.dataset['num_examples']:,}"
    protocol = PROTOCOLS[report.protocol]
    if is_paper_protocol(report):
        protocol = f"{protocol}, {_PAPER}"
    if report.bisect:
        protocol += ", with bisection over epsilons"
    if report.shard is not None:
        images += ", shard {} of {}".format(*report.shard)
    lines = {
        "model": report.model_name or "unnamed",
        "dataset": dataset,
        "images": images,
        "attack": report.attack_title,
        "norm": report.norm,
        "protocol": protocol,
    }
    if report.precision:
        lines["computed in"] = f"{report.precision}, on a {report.device}"
    return lines


def monotony(report) -> dict[str, str]:
    """Returns a line on accuracies that rise with epsilon, if any do."""
    if not report.violations:
        return {}
    return {
        "attack failures": f"{report.violations:,} (an image withstood the "
        "attack at an epsilon although a smaller epsilon had broken it)"
    }


def cost(report) -> dict[str, str]:
    """Returns what the evaluation cost, as a dict from line names to texts."""
    lines = {
        "cost": f"{report.forward_passes:,} forward and "
        f"{report.backward_passes:,} backward passes of single images; "
        f"{report.seconds:.1f} s"
    }
    if np.isfinite(report.saving_factor):
        lines["naive cost"] = (
            f"{report.naive_forward_passes:,} forward and "
            f"{report.naive_backward_passes:,} backward passes, "
            f"{report.saving_factor:.1f} times as many, if each image were "
            "attacked at each epsilon from scratch"
        )
    if report.check_forward_passes:
        lines["self-check cost"] = (
            f"{report.check_forward_passes:,} forward and "
            f"{report.check_backward_passes:,} backward passes in addition"
        )
    return lines


def transfer(report) -> str:
    """Returns where the stored adversarial images may be less effective.

    Args:
        report: A `Report`.

    Returns:
        A string of one sentence, or `""` if the report has no images.
    """
    if report.examples is None:
        return ""
    where = "in the precision and on the device of this evaluation"
    if report.precision:
        where = f"in {report.precision} on a {report.device}"
    return (
        f"The stored adversarial images were found {where}. They may be less "
        "effective in another precision or on another device."
    )
