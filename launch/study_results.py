"""The columns of results.parquet, which study.py writes and report.py reads.

A row has what came out of a cell, how that was measured, and the flags that
tell one fine-tuning from another. What is not here is neither written nor read:
a column that no one knows would make a setting of its own of every row.
"""

from collections.abc import Iterable

import study_grid

# What came out.
OUTCOMES = (
    *("cell", "num_classes", "training_images", "test_images", "clean"),
    *("at_target", "expected_robustness", "expected_low", "expected_high"),
    *("onset", "epsilons", "accuracy", "validation_accuracy"),
    *("training_epsilon", "seconds"),
)
# Of the paper's protocol, where it is beside another.
PAPER_MEASURES = ("at_target_paper", "expected_robustness_paper")
# How it was measured. Results that do not say so are older than the choice.
MEASURED = {
    "backend": "tensorflow",
    "protocol": "nested",
    "bisect": False,
    "eval_attack": "apgd",
}
# Flags of finetune.py, each with what it is in results that are older than it:
# its default. A list is a text, as on the command line.
FLAGS = {
    "accumulate": 1,
    "adaptation": "full",
    "attack_mode": "training",
    "augment": "",
    "awp": 0.0,
    "backbone": "resnet_letters",
    "backbone_config": "{}",
    "batch_size": 64,
    "batchnorm_momentum": None,
    "beta": None,
    "dataset": "digits",
    "dtype": "float32",
    "ema": 0.0,
    "epochs": 20,
    "epsilon": 0.3,
    "eval_steps": None,
    "freeze_batchnorm": False,
    "head_multiplier": 1.0,
    "image_size": 32,
    "label_smoothing": 0.0,
    "last_blocks": 1,
    "layer_decay": 1.0,
    "learning_rate": 3e-3,
    "lora_rank": 8,
    "monitor_action": "warn",
    "norm": "linf",
    "num_epsilons": None,
    "objective": "adversarial",
    "offset": None,
    "probe": "clean",
    "probe_epochs": 0,
    "ramp_end": 0.75,
    "ramp_start": 0.25,
    "recipe": None,
    "reestimate_batchnorm": False,
    "robust_backbone": False,
    "scale": None,
    "schedule": "scheduled",
    "seed": 0,
    "skip_corrupt": False,
    "splits": None,
    "test_examples": None,
    "test_split": None,
    "train_attack": "pgd",
    "train_steps": 7,
    "update_freq": "epoch",
    "validation_split": None,
    "warmup": 0.05,
    "weight_decay": 1e-4,
    "weights": "pretrained",
}
# Without these a table is no table of results.
_NEEDED = (
    *("dataset", "backbone", "epsilon", "norm", "schedule", "seed"),
    *("epochs", *OUTCOMES),
)


def as_column(value):
    """The value of a flag as a column has it: a list is a text."""
    return study_grid.as_text(value) if isinstance(value, list) else value


def check_columns(names: Iterable[str], source: str) -> None:
    """Refuses columns that are not of the schema.

    Args:
        names: Names of columns.
        source: String. Where they are from, for the message.

    Raises:
        ValueError: If there is another one.
    """
    known = {*OUTCOMES, *PAPER_MEASURES, *MEASURED, *FLAGS}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(
            f"{source} has columns that are neither an outcome nor a flag: "
            f"{unknown}. Remove them, or, if a newer version wrote them, use "
            "that version. Who adds a flag or an outcome names it in "
            "launch/study_results.py."
        )


def completed(frame, path):
    """Returns results with all the columns of the schema.

    Args:
        frame: `pandas.DataFrame`, as it was read.
        path: Path it was read from, for messages.

    Raises:
        ValueError: If it holds no results of a study, or others as well.
    """
    lacks = set(_NEEDED) - set(frame)
    if lacks or frame.empty:
        raise ValueError(
            f"{path} is no file of results of study.py: it lacks "
            f"{sorted(lacks) or 'rows'}"
        )
    check_columns(frame, path)
    frame = frame.copy()
    for name, value in {**FLAGS, **MEASURED}.items():
        if name not in frame:
            frame[name] = value
        elif value is not None and frame[name].isna().any():
            found = frame[name].astype(object)
            frame[name] = found.where(found.notna(), value)
    return frame


def settings(frame) -> list[str]:
    """Columns that tell one fine-tuning from another, but schedule and seed."""
    return [
        name
        for name in frame
        if name in {*FLAGS, *MEASURED} - {"schedule", "seed"}
    ]
