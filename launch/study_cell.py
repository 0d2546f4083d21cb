"""One cell of study.py, in a process of its own."""

import contextlib
import os
import pathlib
import sys
import time
import traceback

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
        # What is not Python writes there as well.
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        try:
            import finetune
            import run_folders
            from absl import flags

            flags.FLAGS.unparse_flags()
            flags.FLAGS(sys.argv)
            _, data, history, reports = finetune.run()
            for report in reports.values():
                print(report)
            row = result(data, history, reports, time.time() - started)
            run_folders.write_json(folder / "result.json", row)
        except BaseException:
            traceback.print_exc()
            raise


def result(data, history, reports, seconds) -> dict:
    """What a row of results.parquet has besides the flags of the cell.

    The numbers are those of the first protocol. Where that of the paper is
    another, its own stand beside them.

    Args:
        data: The dataset.
        history: Of the training, see `training_run.train`.
        reports: Dict from protocols to `Report`s on the test images.
        seconds: Of the attempt that ended the cell.
    """
    import keras

    protocol, report = next(iter(reports.items()))
    low, high = report.expected_robustness_interval()
    # What measured, whatever the flags say of other protocols.
    measured = {"protocol": protocol, "bisect": report.bisect}
    if protocol == "paper":
        measured |= {"eval_attack": "apgd", "eval_steps": None}
    elif "paper" in reports:
        paper = reports["paper"]
        measured |= {
            "at_target_paper": paper.accuracy_at(paper.target_epsilon),
            "expected_robustness_paper": paper.expected_robustness(),
        }
    return {
        **measured,
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
        "seconds": seconds,
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
    """What went wrong, on one line; the log has the rest."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(f"{type(cause).__name__}: {cause}".split())
    return text if len(text) <= 500 else f"{text[:497]}..."


if __name__ == "__main__":
    sys.exit("study_cell.py is run by study.py")
