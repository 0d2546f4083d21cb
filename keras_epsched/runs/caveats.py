"""What a reader must know about numbers, at the end of a run."""

from collections.abc import Callable, Mapping

from keras_epsched import reports
from keras_epsched.configs.config import Comparison, Config, Settings
from keras_epsched.reports import wording
from keras_epsched.runs import outcome

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
_LOOSE = "too high: a stronger attack breaks more images"
_PAPER = " and the protocol nested"
# With 75 %, and 0 % at the target, a training still gained by more epochs.
_NEARLY_ALL = 0.9
# Attacks of one step, whatever `train_steps` says.
_ONE_STEP = ("fgsm", "nfgsm")


def as_python(name: str, value: object) -> str:
    """Returns a value of a config as Python has it."""
    return f"{name}={value!r}"


def text(
    found: Mapping[str, reports.Report],
    config: Settings,
    spell: Callable[[str, object], str] = as_python,
    histories: Mapping[str, dict] | None = None,
) -> str:
    """Returns notes, self-checks that found a problem, and what to do.

    Args:
        found: Mapping from names, as tables have them, to `Report`s.
        config: `Settings` that they were made by.
        spell: Function from the name and value of a config to how the reader
            writes it. Defaults to Python.
        histories: Mapping from names to histories of the trainings, where there
            was one.
    """
    what, counts = {}, {"passed": 0, "fired": 0, "not run": 0}
    nested = any(report.protocol == "nested" for report in found.values())
    for name, report in found.items():
        for note in report.notes:
            what.setdefault((note, "", ""), []).append((name, ""))
        for check in report.checks:
            counts[check["status"]] += 1
            if check["status"] != "fired":
                continue
            if (
                nested
                and check["name"] in _TOO_WEAK
                and wording.is_paper_protocol(report)
            ):
                # The stronger attack was made as well.
                key = _LOOSE, "", ""
            else:
                remedy = _remedy(check["name"], report, config, spell)
                key = "", check["name"], remedy
            what.setdefault(key, []).append((name, check["message"]))
    total = sum(counts.values())
    first = f"Self-checks: {counts['fired']} of {total} found a problem"
    if counts["not run"]:
        first += f"; {counts['not run']} not run (the reports say why)"
    lines = [f"{first}."]
    remedies = False
    for (note, check, remedy), where in what.items():
        names = ", ".join(name for name, _ in where[:3])
        if len(where) > 3:
            names += f" and {len(where) - 3} more"
        if check:
            note = f"self-check '{check}': {_sentence(where[0][1])}"
        # Some messages say it themselves.
        if remedy and "command line" not in note:
            note += f" Measure again with {remedy}."
            remedies = True
        lines.append(outcome.wrapped(f"- {names}: {note}"))
    lines += _where_the_target_breaks_all(found, config, spell, histories or {})
    if remedies:
        model = spell("model", ".../model.keras")
        lines.append(
            outcome.wrapped(
                f"To measure a saved model again, pass this and {model} to "
                "launch/evaluate.py, or in Python to "
                "keras_epsched.runs.evaluate."
            )
        )
    return "\n".join(lines)


def _where_the_target_breaks_all(found, config, spell, histories):
    """Lines with what to change in trainings that withstand nothing there."""
    lines = []
    broken = _broken_at_the_target(found, config)
    shares = {
        name: _withstood(
            histories.get(name), config, found[name].target_epsilon
        )
        for name in broken
    }
    misled = {k: share for k, share in shares.items() if share >= _NEARLY_ALL}
    if misled:
        stronger = (
            spell("train_attack", "pgd")
            if config.train_attack in _ONE_STEP
            else spell("train_steps", max(7, 2 * config.train_steps))
        )
        lines.append(
            outcome.wrapped(
                f"- {', '.join(misled)}: accuracy at the target is 0 %, but "
                f"{100 * min(misled.values()):.0f} % of the training images or "
                "more withstood the training attack in the last epoch. The "
                "network may have learned to withstand that attack only. Train "
                f"with a stronger one: {stronger}."
            )
        )
    if weak := [name for name in broken if name not in misled]:
        lines.append(
            outcome.wrapped(
                f"- {', '.join(weak)}: accuracy at the target is 0 %. Choose "
                "a smaller epsilon, an earlier ramp_end or more epochs."
            )
        )
    return lines


def _broken_at_the_target(found, config):
    """Names of what was trained with an attack, and withstands none there."""
    schedule = getattr(config, "schedule", None)
    if schedule == "standard" or not isinstance(config, (Config, Comparison)):
        return []
    return [
        name
        for name, report in found.items()
        if report.protocol == "nested"
        and report.accuracy_at(report.target_epsilon) == 0
        and not name.startswith("standard")
    ]


def _withstood(history, config, target):
    """Share of training images that withstood the last epoch, if at target."""
    if not history or not history.get("accuracy") or not history.get("epsilon"):
        return 0.0
    # A monitor may have ended it with the weights of an earlier epoch.
    ended = len(history["accuracy"]) < config.epochs
    if ended or history["epsilon"][-1] < target * (1 - 1e-6):
        return 0.0
    return history["accuracy"][-1]


def _sentence(text):
    """A text that ends with a full stop."""
    return text if text.endswith((".", "`")) else f"{text}."


def _remedy(check, report, config, spell):
    """What to pass where a check has found a problem, or nothing."""
    if check in _REMEDIES:
        return spell("eval_attack", _REMEDIES[check])
    if check not in _TOO_WEAK:
        return ""
    if wording.is_paper_protocol(report):
        return spell("eval_attack", "margin_ensemble") + _PAPER
    stronger = _STRONGER.get(config.eval_attack, "margin_ensemble")
    return spell("eval_attack", stronger)
