"""Reports as one web page in one file."""

import io
import os
from collections.abc import Mapping

import numpy as np

from keras_epsched import files
from keras_epsched.epsilons import SAME_EPSILON, format_epsilon
from keras_epsched.reports import curves, wording
from keras_epsched.reports.density import grid_place
from keras_epsched.reports.gallery import data_uri, galleries
from keras_epsched.reports.headline import comparisons, headline
from keras_epsched.reports.report import Report

_TEMPLATE = "report.html.jinja"

# The order in which the page lists the outcomes of self-checks.
_STATUSES = ("fired", "not run", "passed")


def write_html(
    reports: Mapping[str, Report],
    path: str | os.PathLike,
    title: str | None = None,
    target_epsilon: float | None = None,
) -> None:
    """Writes one or several reports as one web page.

    Use it to read a result in a browser or to send it to somebody. The page
    is a single file without scripts. It loads nothing from the network or
    from other files.

    The page begins with the result in words. It then shows what was
    evaluated, the self-checks and notes, the curves, the accuracies with
    their 95 % intervals, paired comparisons of the first model with each
    other model, the cost, and a gallery of adversarial images.

    Args:
        reports: Dict from the name of a model to its `Report`. All reports
            must have the same norm. Their grids may differ.
        path: Path of the file. Its name should end in `.html`. Missing
            folders are created. An existing file is replaced.
        title: Optional string. Defaults to the names of the models.
        target_epsilon: Optional float, on the [0, 1] scale: the upper end of
            expected robustness, which is also marked in the picture. Defaults
            to the smallest `target_epsilon` of the reports.

    Raises:
        ValueError: If there is no report, if a value is not a `Report`, if
            the reports differ in norm, or if `target_epsilon` is beyond a
            grid.

    Example:
    ```python
    write_html({"fixed": fixed, "scheduled": scheduled}, "robustness.html")
    ```
    """
    import jinja2

    wrong = [n for n, r in reports.items() if not isinstance(r, Report)]
    if wrong or not reports:
        raise ValueError(
            "`reports` must be a dict with at least one entry, from the name "
            "of a model to its `Report`. Received: "
            + (f"other values for the names {wrong}." if wrong else "none.")
        )
    target = target_epsilon
    if target is None:
        target = min(report.target_epsilon for report in reports.values())
    pictures = galleries(reports)
    # Names come from users. They must not be read as markup.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_epsched", "reports"),
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
        bounds=_said_by(reports, wording.bound),
        **_accuracies(reports, target),
        comparisons=_comparisons(reports, target),
        breakers=_breakers(reports),
        checks=_checks(reports),
        cost=_shared(
            {n: wording.cost(report) for n, report in reports.items()}
        ),
        galleries=pictures,
        transfers=_said_by(
            {name: reports[name] for name in pictures}, wording.transfer
        ),
        footer=_footer(reports),
    )
    files.write(path, page)


def _shared(lines: Mapping[str, dict]) -> dict[str, list]:
    """Each line as pairs of a model and its text.

    If the text is the same for all models, there is one pair, whose model is
    an empty string.
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


def _said_by(reports, sentence) -> list:
    """A sentence on each report, only once if it is the same for all."""
    said = {name: {"": sentence(report)} for name, report in reports.items()}
    return _shared(said).get("", [])


def _subject(reports) -> dict:
    lines = {n: wording.subject(report) for n, report in reports.items()}
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
    """Everything that casts doubt on the results: failed checks and notes."""
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
    """A sentence on the self-checks, empty if one failed."""
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
            "run, none failed."
        )
    return "All self-checks passed."


def _unbroken(text: str) -> str:
    """A sentence without line breaks between a number and its unit."""
    return text.replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0")


def _curves(reports, target_epsilon) -> str:
    figure = curves.plot_curves(reports, target_epsilon=target_epsilon)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "image/svg+xml")


def _accuracies(reports, target) -> dict:
    """The table of accuracies: a row per epsilon, a column per model."""
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
            {n: wording.monotony(r) for n, r in reports.items()}
        ),
    }


def _accuracy(report, epsilon) -> tuple[str, str] | None:
    """A cell of the table, `None` if the report has no such epsilon."""
    if grid_place(report.epsilons, epsilon) is None:
        return None
    return _cell(report.accuracy_at(epsilon), report.accuracy_interval(epsilon))


def _cell(value, interval) -> tuple[str, str]:
    return f"{100 * value:.2f}", wording.percent_interval(interval)


def _comparisons(reports, target) -> list[dict]:
    """The paired comparisons, each as a sentence and table rows."""
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
            f"Expected robustness of {name} minus expected robustness of "
            f"{first}: {100 * compared.difference:+.2f} points (95 % interval "
            f"{low} to {high}), p = {compared.p_value:.2g} (sign-flip test), "
            f"on the same {compared.num_images:,} images."
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
        (name, *wording.breakers(report))
        for name, report in reports.items()
        if len(report.attack_members) > 1
    ]


def _checks(reports) -> list[tuple]:
    """The checks of each model, each explained only once."""
    tables: list[tuple] = []
    explained: set[str] = set()
    for model, report in reports.items():
        outcomes = []
        for check in sorted(
            report.checks, key=lambda check: _STATUSES.index(check["status"])
        ):
            name, purpose = check["name"], ""
            if name not in explained:
                purpose = wording.check_purpose(name)
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
