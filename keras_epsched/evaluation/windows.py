"""A running evaluation: it attacks windows of images and makes the report."""

import pathlib
import time
from dataclasses import asdict, dataclass, field

import numpy as np

from keras_epsched import checks
from keras_epsched.attacks.base import Attack
from keras_epsched.attacks.ensemble import AttackEnsemble
from keras_epsched.evaluation import parts, self_checks
from keras_epsched.evaluation.check_sample import (
    CheckSample,
    sampling_priority,
)
from keras_epsched.evaluation.inspector import Inspector
from keras_epsched.evaluation.progress import Progress
from keras_epsched.evaluation.stored_adversarials import (
    look_again,
    stored_adversarials,
)
from keras_epsched.evaluation.sweep import Sweep
from keras_epsched.reports.examples import Examples
from keras_epsched.reports.report import Report

# Another device or a random network may change this share of predictions.
_CHANGED_PREDICTIONS = 0.1
_COUNTED = ("forward", "backward", "naive_forward", "naive_backward")


@dataclass(repr=False)
class Evaluation:
    """A running evaluation.

    Args:
        sweep: `Sweep` that attacks the images.
        attack: The `Attack` or `AttackEnsemble` of the sweep.
        settings: Dict of everything that decides the result.
        folder: Path for the results of windows, or `None`.
        model_name: String, the name of the model in the report.

    Example:
    ```python
    evaluation = Evaluation(sweep, attack, settings, folder, "net")
    for pixels, labels, numbers in windows:
        evaluation.add(pixels, labels, numbers, progress)
    report = evaluation.report(notes=[])
    ```
    """

    sweep: Sweep
    attack: Attack | AttackEnsemble
    settings: dict
    folder: pathlib.Path | None
    model_name: str
    found: list[dict] = field(default_factory=list, init=False)
    sample: CheckSample = field(default_factory=CheckSample, init=False)
    examples: Examples | None = field(default=None, init=False)

    def add(self, pixels, labels, numbers, progress: Progress) -> None:
        """Evaluates a window of images, or reads its stored results.

        Args:
            pixels: Array `(count, ...)`.
            labels: Array of labels: integers, one-hot or smoothed.
            numbers: Integer array of shape `(count,)`, the ids of the images.
            progress: `Progress`.
        """
        value_range = self.settings["value_range"]
        checks.check_images(pixels, value_range, scale=not self.found)
        pixels = np.asarray(pixels, "float32").clip(*value_range)
        progress.begin_window(len(pixels))
        part = None
        if self.folder is not None:
            part = parts.read(self.folder, len(self.found))
        if part is None:
            part = self._sweep(pixels, labels, numbers, progress)
            self._write(part, pixels)
        else:
            self._take_up(part, pixels, labels, numbers, progress)
        self.found.append(part)
        if self.settings["self_check"]:
            hit = part["correct"][:, 0]
            priorities = sampling_priority(self.settings["seed"], numbers)
            self.sample.add(
                priorities[hit],
                pixels[hit],
                part["label"][hit],
                numbers[hit],
                part["broken_by"][hit],
            )

    def _write(self, part, pixels):
        if self.folder is None:
            return
        if not self.found and self.examples is not None:
            self.examples.save(self.folder)
        parts.write(self.folder, len(self.found), part, pixels)

    def _take_up(self, part, pixels, labels, numbers, progress):
        """Uses the stored results of a window, if its images are the same."""
        logits = self.sweep.predict(pixels)
        self.sweep.set_classes(logits.shape[1])
        labels = checks.class_labels(labels, self.sweep.num_classes)
        parts.check_same_images(part, labels, numbers, pixels, self.folder)
        # A model with equal weights may normalise images differently.
        changed = logits.argmax(axis=-1) != part["prediction"]
        if changed.mean() > _CHANGED_PREDICTIONS:
            raise ValueError(
                f"The results in {self.folder} are of another classifier: "
                f"{changed.sum()} of {len(changed)} predictions differ. Pass "
                "another folder."
            )
        if not self.found:
            self.examples = Examples.load(self.folder)
        for correct in part["correct"]:
            progress.advance(correct[-1])

    def _sweep(self, pixels, labels, numbers, progress):
        """Attacks a window, and returns its rows of the table."""
        sweep, started = self.sweep, time.perf_counter()
        before = np.array(sweep.passes())
        images = sweep.run(
            pixels,
            labels,
            numbers,
            sweep.batch_size,
            lambda image: progress.advance(image.correct[-1]),
        )
        looks = looked_at = outside = not_fooled = 0
        broken = [image for image in images if image.example]
        if broken and (self.settings["self_check"] or self.examples is None):
            looked_at = len(broken)
            looks = looked_at * sweep.eot
            examples, outside, not_fooled = look_again(
                sweep, broken, self.attack.norm, self.settings["value_range"]
            )
            if self.examples is None:
                self.examples = examples
        forward, backward = np.array(sweep.passes()) - before
        naive_forward, naive_backward = sweep.naive_passes(images)
        return {
            "image": np.asarray(numbers, "int64"),
            "label": np.array([each.label for each in images]),
            "prediction": np.array([each.prediction for each in images]),
            "correct": np.array([each.correct for each in images]),
            "broken_by": np.array([sweep.broken_by(each) for each in images]),
            "zero_gradient": np.array([each.zero_gradient for each in images]),
            "totals": {
                "forward": len(images) * sweep.eot + forward,
                "backward": backward,
                "naive_forward": naive_forward,
                "naive_backward": naive_backward,
                "looks": looks,
                "looked_at": looked_at,
                "outside": outside,
                "not_fooled": not_fooled,
                "seconds": time.perf_counter() - started,
            },
        }

    def report(self, notes: list[str]) -> Report:
        """Runs the self-checks and returns the report of all windows.

        Args:
            notes: Strings, the warnings of the report.

        Returns:
            A `Report`.
        """
        started = time.perf_counter()
        part = parts.join(self.found)
        totals = part["totals"]
        zero = int(part["zero_gradient"].sum())
        attacked = int(part["correct"][:, 0].sum())
        outcomes = [self_checks.zero_gradients(zero, attacked)]
        check_forward, check_backward = totals["looks"], 0
        if self.settings["self_check"]:
            inspector = Inspector(
                self.sweep,
                self.attack,
                part["correct"].mean(axis=0),
                self.sample,
                totals["forward"] + totals["backward"],
                totals["looks"],
            )
            outcomes += self_checks.run(inspector)
            failed = totals["outside"]
            if not inspector.random:
                failed += totals["not_fooled"]
            outcomes.append(stored_adversarials(totals["looked_at"], failed))
            check_forward += inspector.forward
            check_backward += inspector.backward
        settings = dict(self.settings)
        del settings["self_check"]
        settings["model_fingerprint"] = settings.pop("model")
        return Report(
            **settings,
            **{f"{name}_passes": totals[name] for name in _COUNTED},
            check_forward_passes=check_forward,
            check_backward_passes=check_backward,
            correct=part["correct"],
            broken_by=part["broken_by"],
            labels=part["label"],
            predictions=part["prediction"],
            image_ids=part["image"],
            norm=self.attack.norm,
            attack_name=repr(self.attack),
            attack_members=[repr(each) for each in self.sweep.attacks],
            attack_title=self.attack.title,
            member_titles=[each.title for each in self.sweep.attacks],
            seconds=totals["seconds"] + time.perf_counter() - started,
            zero_gradient_images=zero,
            checks=[asdict(each) for each in outcomes],
            examples=self.examples,
            model_name=self.model_name,
            notes=notes,
        )
