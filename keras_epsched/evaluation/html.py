"""A report as a web page: one file that shows everything it holds."""

import base64
import io
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from keras_epsched.epsilons import SAME_EPSILON, format_epsilon
from keras_epsched.evaluation import plots, report_files, report_text
from keras_epsched.evaluation.headline import comparisons, headline
from keras_epsched.evaluation.report import Report

_TEMPLATE = "report.html.jinja"

# Images narrower than this are enlarged with their pixels left visible.
_SMALL = 160

# In this order the outcomes of self-checks are listed.
_STATUSES = ("fired", "not run", "passed")


def write_html(
    reports: Mapping[str, Report],
    path: str | os.PathLike,
    title: str | None = None,
    target_epsilon: float | None = None,
) -> None:
    """Writes evaluations as one web page, to be read or sent to somebody.

    The page begins with the result in a sentence. It shows what was evaluated,
    the self-checks and notes, the curves, the accuracies with their 95 %
    intervals, paired comparisons of the first model with each other one, the
    cost, and a gallery of adversarial images. It is self-contained: a single
    file without scripts that loads nothing, neither from the network nor from
    beside it.

    Args:
        reports: Dict from the name of a model to its `Report`. All must be
            of the same norm; their grids may differ.
        path: Path of the file, whose name should end in `.html`. Folders are
            created if need be; an older file is replaced in one step.
        title: Optional string. Defaults to the names of the models.
        target_epsilon: Optional float, on the [0, 1] scale. Epsilon to mark
            in the picture, and upper end of the expected robustness.
            Defaults to the smallest target of the reports.

    Raises:
        ValueError: If there is no report, if a value is no `Report`, if the
            reports differ in norm, or if `target_epsilon` is beyond a grid.

    Example:
    ```python
    write_html({"fixed": fixed, "scheduled": scheduled}, "robustness.html")
    ```
    """
    import jinja2

    wrong = [n for n, r in reports.items() if not isinstance(r, Report)]
    if wrong or not reports:
        raise ValueError(
            "`reports` must be a dict from the names of models to one "
            "`Report` each, and not empty. Received "
            + (f"something else for the names {wrong}." if wrong else "none.")
        )
    path = pathlib.Path(path)
    target = target_epsilon
    if target is None:
        target = min(report.target_epsilon for report in reports.values())
    # Names come from users: none may be taken for markup.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_epsched", "evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(_TEMPLATE).render(
        title=title or f"Robustness of {', '.join(reports)}",
        names=list(reports),
        subject=_subject(reports),
        alarms=_alarms(reports),
        verdict=_verdict(reports),
        curves=_curves(reports, target_epsilon),
        headline=_unbroken(headline(reports, target)),
        bounds=_shared(
            {n: {"": report_text.bound(r)} for n, r in reports.items()}
        )[""],
        **_accuracies(reports, target),
        comparisons=_comparisons(reports, target),
        breakers=_breakers(reports),
        checks=_checks(reports),
        cost=_shared(
            {n: report_text.cost(report) for n, report in reports.items()}
        ),
        galleries=_galleries(reports),
        footer=_footer(reports),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    report_files.replace(path, page.encode())


def _shared(lines: Mapping[str, dict]) -> dict[str, list]:
    """Lines of all models: pairs of model and text.

    The model is an empty string where all models say the same.
    """
    merged = {}
    for name, texts in lines.items():
        for line, text in texts.items():
            merged.setdefault(line, []).append((name, text))
    for line, pairs in merged.items():
        said = {text for _, text in pairs}
        if len(pairs) == len(lines) and len(said) == 1:
            merged[line] = [("", said.pop())]
    return merged


def _subject(reports) -> dict:
    lines = {n: report_text.subject(report) for n, report in reports.items()}
    models = ", ".join(
        name
        if report.model_name in (None, name)
        else f"{name} ({report.model_name})"
        for name, report in reports.items()
    )
    return _shared(
        {n: {**texts, "model": models} for n, texts in lines.items()}
    )


def _alarms(reports) -> list[dict]:
    """Everything that casts doubt on the figures: fired checks and notes."""
    alarms = []
    for name, report in reports.items():
        alarms += [
            {"model": name, "name": check["name"], "text": check["message"]}
            for check in report.checks
            if check["status"] == "fired"
        ]
    for name, report in reports.items():
        alarms += [
            {"model": name, "name": "", "text": note} for note in report.notes
        ]
    return alarms


def _verdict(reports) -> str:
    """The self-checks in one sentence, empty if one fired."""
    checks = [check for report in reports.values() for check in report.checks]
    count = {
        status: sum(check["status"] == status for check in checks)
        for status in _STATUSES
    }
    unchecked = [name for name, report in reports.items() if not report.checks]
    if count["fired"]:
        return ""
    if not checks:
        return "No self-checks were run."
    if unchecked:
        return f"No self-checks were run for {', '.join(unchecked)}."
    if count["not run"]:
        return (
            f"Self-checks: {count['passed']} passed, {count['not run']} not "
            "run, none fired."
        )
    return "All self-checks passed."


def _unbroken(text: str) -> str:
    """A sentence in which no line ends between a number and its unit."""
    return text.replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0")


def _curves(reports, target_epsilon) -> str:
    figure = plots.plot_curves(reports, target_epsilon=target_epsilon)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri(buffer.getvalue(), "image/svg+xml")


def _accuracies(reports, target) -> dict:
    """The table: a row for each epsilon, and for each row one cell a model."""
    norm = next(iter(reports.values())).norm
    grid = np.unique(np.concatenate([r.epsilons for r in reports.values()]))
    same = np.isclose(grid[1:], grid[:-1], rtol=SAME_EPSILON, atol=0)
    rows = [
        (
            format_epsilon(epsilon, norm),
            [_accuracy(report, epsilon) for report in reports.values()],
        )
        for epsilon in grid[np.append(True, ~same)]
    ]
    expected = [
        _cell(
            report.expected_robustness(target_epsilon=target),
            report.expected_robustness_interval(target_epsilon=target),
        )
        for report in reports.values()
    ]
    summary = [
        ("clean accuracy", [_accuracy(r, 0.0) for r in reports.values()]),
        ("expected robustness", expected),
    ]
    return {
        "accuracies": rows,
        "summary": summary,
        "target": format_epsilon(target, norm),
        "monotony": _shared(
            {n: report_text.monotony(r) for n, r in reports.items()}
        ),
    }


def _accuracy(report, epsilon) -> tuple[str, str] | None:
    """A cell of the table, empty where the report has no such epsilon."""
    if not report_text.has_epsilon(report, epsilon):
        return None
    return _cell(report.accuracy_at(epsilon), report.accuracy_interval(epsilon))


def _cell(value, interval) -> tuple[str, str]:
    return f"{100 * value:.2f}", report_text.percent_interval(interval)


def _comparisons(reports, target) -> list[dict]:
    """The paired comparisons, each as a sentence and the rows of a table."""
    return [
        {
            "name": name,
            "first": first,
            **(
                {"text": _unbroken(compared), "notes": (), "rows": []}
                if isinstance(compared, str)
                else _comparison(name, first, compared)
            ),
        }
        for name, first, compared in comparisons(reports, target)
    ]


def _comparison(name, first, compared) -> dict:
    low, high = (f"{100 * end:+.2f}" for end in compared.interval)
    columns = zip(
        compared.epsilons,
        *compared.accuracy,
        compared.accuracy_difference,
        compared.accuracy_p_value,
        strict=True,
    )
    return {
        "text": _unbroken(
            f"Expected robustness of {name} minus that of {first}: "
            f"{100 * compared.difference:+.2f} points (95 % interval {low} to "
            f"{high}), p = {compared.p_value:.2g} (sign-flip test), on the "
            f"same {compared.num_images:,} images."
        ),
        "notes": compared.notes,
        "rows": [
            (
                format_epsilon(epsilon, compared.norm),
                f"{100 * before:.2f}",
                f"{100 * after:.2f}",
                f"{100 * difference:+.2f}",
                f"{p_value:.2g}",
            )
            for epsilon, before, after, difference, p_value in columns
        ],
    }


def _breakers(reports) -> list[tuple]:
    return [
        (name, *report_text.breakers(report))
        for name, report in reports.items()
        if len(report.attack_members) > 1
    ]


def _checks(reports) -> list[tuple]:
    """The checks of each model; the first time explained."""
    tables: list[tuple] = []
    explained: set[str] = set()
    for model, report in reports.items():
        outcomes = []
        for check in sorted(
            report.checks, key=lambda check: _STATUSES.index(check["status"])
        ):
            name, purpose = check["name"], ""
            if name not in explained:
                purpose = report_text.check_purpose(name)
            explained.add(name)
            outcomes.append({**check, "purpose": purpose})
        if outcomes:
            tables.append((model, outcomes))
    return tables


def _footer(reports) -> dict:
    return _shared(
        {
            name: {
                "evaluated": report.created,
                "attack": report.attack_name,
                "seed": str(report.seed),
                "versions": ", ".join(
                    f"{package} {version}"
                    for package, version in report.versions.items()
                ),
            }
            for name, report in reports.items()
        }
    )


# === The gallery ===


def _galleries(reports) -> list[tuple]:
    """For each model that has examples which are images, its pictures."""
    return [
        (name, [_example(report, index) for index in range(count)])
        for name, report in reports.items()
        if (count := _num_pictures(report.examples))
    ]


def _num_pictures(examples) -> int:
    if examples is None or examples.clean.ndim != 4:
        return 0
    return len(examples.clean) if examples.clean.shape[-1] in (1, 3) else 0


def _example(report, index) -> dict:
    """Pictures of one example, and its caption."""
    examples = report.examples
    low, high = report.value_range
    clean, adversarial = (
        (images[index].astype("float64") - low) / (high - low)
        for images in (examples.clean, examples.adversarial)
    )
    epsilon = float(examples.epsilon[index])
    difference = adversarial - clean
    extent = epsilon if report.norm == "linf" else np.abs(difference).max()
    # Where nothing was changed there is nothing to magnify.
    factor = 0.5 / extent if extent > 0 else 1.0
    return {
        "clean": _png(clean),
        "adversarial": _png(adversarial),
        "perturbation": _png(0.5 + factor * difference),
        "factor": f"{factor:.3g}",
        "label": int(examples.label[index]),
        "prediction": int(examples.prediction[index]),
        "epsilon": format_epsilon(epsilon, report.norm),
        "small": clean.shape[1] < _SMALL,
    }


def _png(image: np.ndarray) -> str:
    """Data URI of an image with values in [0, 1] and 1 or 3 channels."""
    from PIL import Image

    levels = np.clip(np.rint(255 * np.nan_to_num(image)), 0, 255)
    levels = levels.astype("uint8")
    if levels.shape[-1] == 1:
        levels = levels[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="png", optimize=True)
    return _data_uri(buffer.getvalue(), "image/png")


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
