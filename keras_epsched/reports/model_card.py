"""Model cards in the format of the Hugging Face hub."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from keras_epsched import files
from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports import wording
from keras_epsched.reports.report import Report

_TEMPLATE = pathlib.Path(__file__).with_name("model_card.md.jinja")
_NORMS = {"linf": "l-infinity", "l2": "l2", "l1": "l1"}


def write_model_card(
    report: Report,
    path: str | os.PathLike,
    recipe: Mapping[str, object],
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    license: str | None = None,
    robust: bool = True,
) -> None:
    """Writes a model card for a saved classifier.

    Use it before you publish a classifier. The card is a README.md in the
    format of the Hugging Face hub, which lists the results of its front
    matter. It describes the inputs and outputs of the model, its training,
    its accuracy at each epsilon with intervals, the self-checks that failed or
    were not run, and the limits of the results.

    Args:
        report: `Report` on test images.
        path: Path of the card, usually `README.md` in the model's folder.
        recipe: Dict of the settings of the training, for example
            `{"backbone": "ResNet-50", "schedule": "scheduled"}`. Its value of
            `"dataset"` names the data if the report does not, as after an
            evaluation on arrays.
        name: Optional string, the name of the model. Defaults to the name of
            the folder.
        classes: Optional names of the classes, in the order of the logits.
        license: Optional string, the licence's identifier on the hub.
        robust: Boolean. Whether the model was trained on adversarial images.
            Defaults to `True`.

    Raises:
        ValueError: If `report` is not a `Report`.

    Example:
    ```python
    keras_epsched.evaluation.write_model_card(
        report,
        "runs/flowers/README.md",
        {"backbone": "ResNet-50", "epochs": 50, "schedule": "scheduled"},
        license="apache-2.0",
    )
    ```
    """
    import huggingface_hub
    from tabulate import tabulate

    if not isinstance(report, Report):
        raise ValueError(f"`report` must be a `Report`. Received: {report!r}")
    if not report.dataset and "dataset" in recipe:
        dataset = {"dataset": str(recipe["dataset"])}
        report = dataclasses.replace(report, dataset=dataset)
    path = pathlib.Path(path)
    name = name or path.resolve().parent.name
    target = format_epsilon(report.target_epsilon, report.norm)
    rows = [
        (
            format_epsilon(epsilon, report.norm),
            f"{100 * accuracy:.1f}",
            wording.percent_interval(report.accuracy_interval(epsilon)),
        )
        for epsilon, accuracy in zip(
            report.epsilons, report.accuracy, strict=True
        )
    ]
    card = huggingface_hub.ModelCard.from_template(
        huggingface_hub.ModelCardData(
            library_name="keras",
            license=license,
            model_name=name,
            pipeline_tag="image-classification",
            tags=["adversarial-robustness", "keras_epsched"],
            eval_results=_results(report, target),
        ),
        template_path=str(_TEMPLATE),
        name=name,
        classes=classes,
        robust=robust,
        recipe=tabulate(
            [(key, str(value)) for key, value in recipe.items()],
            headers=("", "value"),
            tablefmt="github",
            disable_numparse=True,
        ),
        subject=_subject(report),
        value_range=report.value_range,
        curve=tabulate(
            rows,
            headers=("epsilon", "accuracy %", "95 % interval"),
            tablefmt="github",
            disable_numparse=True,
        ),
        expected=f"{100 * report.expected_robustness():.1f}",
        expected_interval=wording.percent_interval(
            report.expected_robustness_interval()
        ),
        target=target,
        norm=_NORMS[report.norm],
        bound=wording.bound(report),
        alarms=[each for each in report.checks if each["status"] == "fired"],
        missing=[each for each in report.checks if each["status"] == "not run"],
        notes=report.notes,
    )
    files.write(path, f"{card}\n")


def _subject(report):
    """What was evaluated, without paths: a card may be made public."""
    lines = wording.subject(report)
    _, comma, split = lines["dataset"].partition(", split")
    name = wording.dataset_name(report)
    return {**lines, "dataset": f"{name}{comma}{split}"}


def _results(report, target):
    """The results in the form that the hub lists."""
    import huggingface_hub

    dataset = wording.dataset_name(report)
    values = {
        "Clean accuracy": report.clean_accuracy,
        f"Accuracy at epsilon {target} ({report.norm})": report.accuracy_at(
            report.target_epsilon
        ),
        f"Expected robustness up to {target} ({report.norm})": (
            report.expected_robustness()
        ),
    }
    return [
        huggingface_hub.EvalResult(
            task_type="image-classification",
            dataset_type=dataset.split(":")[0].split("/")[0],
            dataset_name=dataset,
            metric_type="accuracy",
            metric_name=metric,
            metric_value=round(float(value), 4),
        )
        for metric, value in values.items()
    ]
