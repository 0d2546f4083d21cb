"""What a reader must know about numbers, at the end of a run."""

from collections.abc import Callable, Mapping

from keras_epsched import reports
from keras_epsched.configs.config import Settings
from keras_epsched.reports import wording

# Attacks that need no gradients, or average them: what helps where more of
# the same does not.
_REMEDIES = {
    "random outputs": "autoattack-rand",
    "unbounded attack": "autoattack",
    "attack without gradients": "autoattack",
    "zero gradients": "autoattack",
}
_TOO_WEAK = ("accuracy against epsilon", "stronger attack")
_STRONGER = {
    "margin_ensemble": "margin_ensemble-thorough",
    "margin_ensemble-thorough": "autoattack",
    "autoattack": "autoattack-plus",
}
_PAPER = "; the protocol must be nested"


def as_python(name: str, value: str) -> str:
    """Returns a value of a config as Python has it."""
    return f"{name}={value!r}"


def text(
    found: Mapping[str, reports.Report],
    config: Settings,
    spell: Callable[[str, str], str] = as_python,
) -> str:
    """Returns the notes and the self-checks that fired, and what to do.

    Args:
        found: Mapping from names, as tables have them, to `Report`s.
        config: `Settings` that they were made by.
        spell: Function from the name and value of a config to how the reader
            writes it. Defaults to Python.
    """
    what, counts = {}, {"passed": 0, "fired": 0, "not run": 0}
    for name, report in found.items():
        for note in report.notes:
            what.setdefault((note, "", ""), []).append((name, ""))
        for check in report.checks:
            counts[check["status"]] += 1
            if check["status"] == "fired":
                remedy = _remedy(check["name"], report, config, spell)
                key = "", check["name"], remedy
                what.setdefault(key, []).append((name, check["message"]))
    total = sum(counts.values())
    lines = [f"Self-checks: {counts['fired']} of {total} fired"]
    if counts["not run"]:
        lines[0] += f", {counts['not run']} not run (the reports say why)"
    if what:
        lines += ["", "What to know about these numbers"]
    for (note, check, remedy), where in what.items():
        names = ", ".join(name for name, _ in where[:3])
        if len(where) > 3:
            names += f" and {len(where) - 3} more"
        if check:
            note = f"the self-check '{check}' fired. {where[0][1]}"
        lines.append(f"- {names}: {note}")
        if remedy:
            lines.append(f"  Type {remedy}")
    if any(remedy for _, _, remedy in what):
        lines.append(
            "To measure a saved model again: launch/evaluate.py, in Python "
            "keras_epsched.runs.evaluate, with that and "
            f"{spell('model', '.../model.keras')}."
        )
    return "\n".join(lines)


def _remedy(check, report, config, spell):
    """What to type where a check has fired, or nothing."""
    if check in _REMEDIES:
        return spell("eval_attack", _REMEDIES[check])
    if check not in _TOO_WEAK:
        return ""
    if wording.is_paper_protocol(report):
        return spell("eval_attack", "margin_ensemble") + _PAPER
    stronger = _STRONGER.get(config.eval_attack, "margin_ensemble")
    return spell("eval_attack", stronger)
