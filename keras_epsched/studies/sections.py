"""The sections of a report: their titles and notes, and a page of all."""

import textwrap
from collections.abc import Mapping

from keras_epsched.studies import budget, results

# The title of each kind of section, and how to read it; in the order of a page.
_SECTIONS = {
    "claims": (
        "Claims of the paper",
        "`measured` is the mean difference over the cells, followed by the "
        "difference in each cell. A cell is a dataset, a backbone and an "
        "epsilon, and a value of each other flag that the study varies.",
    ),
    "protocols": (
        "The same networks, judged by two protocols",
        "The paper's protocol attacks with 10 steps of APGD on cross-entropy. "
        "Its accuracies are a loose upper bound.",
    ),
    "ablations": (
        "Claims of the paper about other schedules",
        "A jump is a schedule that changes epsilon from 0 to the target at "
        "once.",
    ),
    "transfer": (
        "Clean accuracy by target epsilon",
        "Compare with Figure 1 of the paper.",
    ),
    "curves": (
        "Accuracy by epsilon of the evaluation",
        "Compare with Figure 4 of the paper, for the largest target epsilon.",
    ),
    "hinge_curves": (
        "Expected robustness by the hinges of the schedule",
        "Each line is one start of the ramp.",
    ),
    "delay": (
        "Delay by target epsilon",
        "Compare with Figure 3 of the paper. The delay is the first epoch with "
        "half of the validation accuracy that standard fine-tuning ends with. "
        "A run that never reaches it counts with all its epochs.",
    ),
    "aggregates": (
        "Means over all cells",
        "Compare with Figure 5 of the paper.",
    ),
    "trade_offs": (
        "Expected robustness and clean accuracy by objective",
        "The colour shows the objective, the marker shows the schedule.",
    ),
    "budget_curves": (
        "Expected robustness by the cost of the training",
        "Each line is one number of attack steps, with more epochs to the "
        "right.",
    ),
    "main": (
        "Standard, fixed and scheduled",
        "Compare with Tables 1 and 2 of the paper.",
    ),
    "hinges": (
        "Schedules with other hinges",
        "Compare with Table 7 of the paper. `12/50:30/50` starts the ramp "
        "after 12/50 of the training, and reaches the target after 30/50.",
    ),
    "random": (
        "A random epsilon in each epoch",
        "Compare with Table 8 of the paper.",
    ),
    "adaptive": (
        "Schedules that adapt",
        "`auto` is the automatic schedule of the paper. `paced` is ours.",
    ),
    "named": (
        "Other schedules by name",
        "`--schedule` takes these names.",
    ),
    "candidates_summary": (
        "Other schedules and flags over all tasks",
        "Means over the tasks, in points. `expected not below` counts the "
        "tasks whose expected robustness is at least that of `scheduled`.",
    ),
    "candidates": (
        "Other schedules and flags in each task",
        "Differences of the means over the seeds, in points: from `scheduled` "
        "with the flags of the first `fixed` training, and from `fixed` with "
        "those flags that give it most accuracy at the target. `fixed` with "
        "other flags than the first is a control. A training wins if its "
        "expected robustness is at least that of `scheduled`, its accuracy at "
        "the target at least that of `fixed`, and its clean accuracy at most 3 "
        "points below that of `scheduled`. 1.25× is 1.25 "
        "times the target.",
    ),
    "delays": (
        "Delay of the fixed epsilon",
        "Means over the seeds, as in Figures 3 and 9 of the paper. Epsilon 0 "
        "is standard fine-tuning. The onset is the first epoch with a clean "
        "validation accuracy of 5 %, or of twice chance if that is more (with "
        "two classes 75 %). A run that never reaches an accuracy counts with "
        "all its epochs.",
    ),
    "budget": (
        "Steps and epochs by cost",
        "`cost` is the work of the training in epochs of plain training, by "
        "the number of passes. Bold: no training of the same schedule that "
        "costs as much or less has as much expected robustness.",
    ),
    "methods": (
        "Objectives by schedule",
        "`cost` is the work of the training, by the number of passes, divided "
        "by that of as many epochs of plain training.",
    ),
    "methods_summary": (
        "Expected robustness by objective and schedule",
        "The mean clean accuracy stands in brackets.",
    ),
    "methods_tests": (
        "Paired tests of objectives and of schedules",
        "Two schedules are compared over the objectives. Two objectives are "
        "compared over the seeds, under the two-hinge schedule. `above 0` "
        "counts positive differences. The p-values are not corrected for their "
        "number.",
    ),
    "tests": (
        "Paired tests of the schedule against the fixed epsilon",
        "A test is over the seeds of a cell, or over the cells of an epsilon. "
        "`above 0` counts positive differences. The p-values are not corrected "
        "for their number.",
    ),
}

# Attacks whose accuracies are known to be too high, see `reports.wording`.
_LOOSE = ("fgsm", "pgd", "apgd")

_HOW_TO_READ = """\
Accuracies are in per cent. `clean` is without an attack, `at target` at the
target epsilon. `expected` is expected robustness: the mean accuracy over a grid
of epsilons from 0 to the target.

± and error bars are the standard error over seeds. With two seeds, tables show
the mean and both values in the order of the seeds, and pictures show each seed
as a small dot or a thin line. Two seeds or cells get no interval and no test,
because they do not decide anything."""


def title(kind: str) -> str:
    """Returns the title of a kind of section, such as `"claims"`."""
    return _SECTIONS[kind][0]


def page(name: str, frame, texts: Mapping[str, str]) -> str:
    """Returns a page with all sections of a study, as Markdown.

    Args:
        name: String. Name of the study.
        frame: Results, see `results.read`.
        texts: Mapping from kinds to tables, and links to pictures.
    """
    parts = [f"# Results of the study {name}", _measured(frame), _HOW_TO_READ]
    for kind, (heading, note) in _SECTIONS.items():
        if kind in texts:
            parts += [f"## {heading}", _wrapped(note), texts[kind]]
    return "\n\n".join(parts) + "\n"


def _measured(frame):
    """Returns what the cells were measured with, by the names of flags."""
    names = ("eval_attack", "eval_steps", "protocol", "bisect", "backend")
    values = {
        name: ", ".join(map(str, frame[name].dropna().unique()))
        for name in names
    }
    stated = ", ".join(
        f"`{key}` {text}" for key, text in values.items() if text
    )
    hours = frame["seconds"].sum() / 3600
    text = (
        f"{len(frame)} fine-tunings, whose durations add up to {hours:.1f} "
        f"hours. {_passes(frame)}Evaluation: {stated}."
    )
    if frame["eval_attack"].isin(_LOOSE).any():
        text += (
            " Attacks on cross-entropy without targets overestimate "
            "robustness: stronger attacks measured up to 14 points less "
            "expected robustness, and not equally less for all arms."
        )
    return _wrapped(text)


def _passes(frame):
    """Returns how many passes of the network a study took, if it is known."""
    if results.EVALUATION_PASSES not in frame:
        return ""
    known = frame[frame[results.EVALUATION_PASSES].notna()]
    if len(known) < len(frame):
        return ""
    of_images = (budget.passes(row) for row in frame.itertuples())
    trained = sum(
        (each.forward + each.backward) * count
        for each, count in zip(of_images, frame["training_images"], strict=True)
    )
    evaluated = frame[results.EVALUATION_PASSES].sum()
    return (
        f"They made {trained / 1e6:,.1f} million passes of single images in "
        f"training, and {evaluated / 1e6:,.1f} million in the evaluation. "
    )


def _wrapped(text):
    return textwrap.fill(text, 80, break_on_hyphens=False)
