"""One cell of study.py, in a process of its own."""

import contextlib
import os
import pathlib
import sys
import time

import ray_devices


def run(
    arguments: list[str], folder: str, directory: str, resources: dict
) -> None:
    """Fine-tunes and evaluates by the flags, or goes on with it.

    Args:
        arguments: Flags of finetune.py, as on a command line.
        folder: The run folder, which gets result.json last; beside it lies
            the log.
        directory: Where relative paths begin.
        resources: What Ray lends, see `ray_devices.resources`.
    """
    started = time.time()
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if os.path.isdir(directory):
        os.chdir(directory)
    ray_devices.share(resources)
    sys.argv = ["finetune.py", *arguments, f"--output={folder}", "--resume"]
    with (
        open(log_of(folder), "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        import common
        import finetune
        from absl import flags

        flags.FLAGS.unparse_flags()
        flags.FLAGS(sys.argv)
        _, data, history, report = finetune.run()
        print(report)
        row = result(flags.FLAGS, data, history, report)
        row = {"cell": folder.name, **row, "seconds": time.time() - started}
        common.write_json(folder / "result.json", row)


def result(chosen, data, history, report) -> dict:
    """A row of results.parquet.

    Args:
        chosen: Values of flags, as attributes.
        data: The dataset.
        history: Of the training, see `common.train`.
        report: `Report` on the test images.
    """
    import keras

    low, high = report.expected_robustness_interval()
    names = (
        *("backbone", "dataset", "epsilon", "norm", "schedule", "ramp_start"),
        *("ramp_end", "objective", "adaptation", "seed", "image_size"),
        *("epochs", "batch_size", "learning_rate", "train_attack"),
        *("train_steps", "eval_attack", "eval_steps", "attack_mode"),
        *("batchnorm_momentum", "freeze_batchnorm", "reestimate_batchnorm"),
    )
    row = {name: getattr(chosen, name) for name in names}
    for name in ("backbone", "dataset"):
        row[name] = pathlib.PurePath(row[name]).name
    return {
        **row,
        "backend": keras.backend.backend(),
        "num_classes": data.num_classes,
        "training_images": data.train.split_info.num_examples,
        "test_images": report.num_images,
        "clean": report.clean_accuracy,
        "at_target": report.accuracy_at(report.target_epsilon),
        "expected_robustness": report.expected_robustness(),
        "expected_low": low,
        "expected_high": high,
        "onset": history["onset"],
        "epsilons": report.epsilons.tolist(),
        "accuracy": report.accuracy.tolist(),
        "validation_accuracy": history["val_accuracy"],
        "training_epsilon": history["epsilon"],
    }


def log_of(folder) -> pathlib.Path:
    """Where a cell writes what it prints."""
    return folder.parent / f"{folder.name}.log"


def epochs_done(folder) -> int | None:
    """Epochs of a cell so far, `None` before it has begun."""
    with contextlib.suppress(OSError):
        text = (folder / "history.csv").read_text(encoding="utf-8")
        return max(text.count("\n") - 1, 0)
    return None


def has_begun(folder, since: float) -> bool:
    """Whether a cell has written since a time."""
    with contextlib.suppress(OSError):
        return log_of(folder).stat().st_mtime > since
    return False


def in_short(error) -> str:
    """What went wrong, on one line."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return f"{type(cause).__name__}: {text}"[:200]


if __name__ == "__main__":
    sys.exit("study_cell.py is run by study.py")
