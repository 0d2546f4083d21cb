"""What a report says, in words: for tables, pages and cards alike."""

import pathlib

import numpy as np

from keras_epsched.epsilons import format_epsilon

# The protocols of an evaluation, in words.
PROTOCOLS = {
    "nested": "nested envelope: an image broken at a smaller epsilon counts "
    "as broken at every larger one",
    "independent": "independent sweep, each epsilon attacked afresh",
}
_PAPER = "the protocol of the paper (arXiv 2509.23325)"
# What an APGD has in the evaluations of the paper.
_PAPER_ATTACK = {
    "steps": 10,
    "norm": "linf",
    "loss": "ce",
    "random_start": True,
    "restarts": 1,
    "eot": 1,
}
# Attacks that leave the label's class, and aim at no other.
_UNTARGETED = ("FGSM", "PGD", "APGD")

# What each self-check does, and what that would tell.
_PURPOSES = {
    "random outputs": "Calls the network twice on the same images. Where its "
    "answers differ, a single draw decides neither accuracy nor gradient.",
    "float16 saturation": "Looks for logits beyond the range of float16, of "
    "which no gradient is left.",
    "unbounded attack": "Lets the attack change every pixel to any value. An "
    "attack that works brings accuracy down to chance.",
    "accuracy against epsilon": "Attacks the same images afresh at several "
    "epsilons. If the attack works, fewer withstand it at a larger epsilon.",
    "attack without gradients": "Tries random search, without gradients, on "
    "images that withstood the attack. If many fall, the gradients mislead.",
    "stronger attack": "Tries a stronger attack on images that withstood the "
    "attack. The share that falls tells by how much accuracies are too high.",
    "zero gradients": "Counts the images on which the attack found no "
    "gradient to follow.",
    "stored adversarials": "Looks again at the adversarial images that were "
    "kept. Each must lie within epsilon and be misclassified.",
}


def check_purpose(name: str) -> str:
    """Returns what a self-check looks for, empty for one that is unknown."""
    return _PURPOSES.get(name, "")


def bound(report) -> str:
    """Returns the sentence that says how far the accuracies can be trusted.

    They are an upper bound, whatever the attack. One by attacks on
    cross-entropy without targets alone is known to be loose, however many
    steps they have.

    Args:
        report: A `Report`.

    Returns:
        A string, one sentence.
    """
    config = report.attack.get("config", {})
    members = config.get("members", [report.attack])
    if not all(
        each.get("class_name") in _UNTARGETED
        and each.get("config", {}).get("loss") == "ce"
        for each in members
    ):
        return (
            "Accuracy under attack is an upper bound: a stronger attack may "
            "break more images."
        )
    return (
        "Accuracy under attack is an upper bound, and one by untargeted "
        "attacks on cross-entropy is known to be loose: stronger attacks "
        "measured 2 to 13 points less expected robustness; to report a "
        "number, use the default attack, MarginEnsemble."
    )


def is_paper_protocol(report) -> bool:
    """Whether an evaluation was made exactly as those of the paper.

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
    """Returns the name of the dataset, of a folder without its place.

    Args:
        report: A `Report`.
    """
    name = str((report.dataset or {}).get("dataset", "unnamed"))
    kind, colon, place = name.partition(":")
    return f"{kind}{colon}{pathlib.PurePath(place).name}"


def breakers(report) -> tuple[tuple, list[tuple]]:
    """Returns how many images each attack was first to break.

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
    return ("images broken by", *header), rows


def percent_interval(interval: tuple[float, float]) -> str:
    """Returns an interval of fractions in percent, without the sign."""
    return "{:.2f} to {:.2f}".format(*(100 * end for end in interval))


def subject(report) -> dict[str, str]:
    """Returns what was evaluated: the name of each line, and its text."""
    dataset, images = "unnamed", f"{report.num_images:,}"
    if report.dataset is not None:
        dataset = str(report.dataset.get("dataset", dataset))
        if report.dataset.get("split"):
            dataset += f", split {report.dataset['split']}"
        if report.dataset.get("num_examples"):
            images += f" of {report.dataset['num_examples']:,}"
    protocol = PROTOCOLS[report.protocol]
    if is_paper_protocol(report):
        protocol = f"{_PAPER}: {protocol}"
    if report.bisect:
        protocol += "; by bisection"
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
        "not monotone": f"{report.violations:,} times an image was correct "
        "although a smaller epsilon had broken it"
    }


def cost(report) -> dict[str, str]:
    """Returns what the evaluation cost: names of lines, and their texts."""
    lines = {
        "cost": f"{report.forward_passes:,} forward and "
        f"{report.backward_passes:,} backward passes of one image, "
        f"{report.seconds:.1f} s"
    }
    if np.isfinite(report.saving_factor):
        lines["naive cost"] = (
            f"{report.naive_forward_passes:,} forward and "
            f"{report.naive_backward_passes:,} backward passes: saved by a "
            f"factor of {report.saving_factor:.1f}"
        )
    if report.check_forward_passes:
        lines["self-checks"] = (
            f"{report.check_forward_passes:,} forward and "
            f"{report.check_backward_passes:,} backward passes more"
        )
    return lines


def transfer(report) -> str:
    """Returns how far the adversarial images that are kept can be reused.

    Args:
        report: A `Report`.

    Returns:
        A string, one sentence, or an empty one where no images are kept.
    """
    if report.examples is None:
        return ""
    where = "in the precision and on the device of this evaluation"
    if report.precision:
        where = f"in {report.precision} on a {report.device}"
    return (
        f"The adversarial images that are kept were found {where}; they "
        "transfer less well to another precision or device."
    )
