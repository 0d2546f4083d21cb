"""What a reader must know about numbers, at the end of a launcher."""

from absl import flags

FLAGS = flags.FLAGS

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


def text(reports) -> str:
    """The self-checks that fired and the notes, and what to type for each.

    Args:
        reports: Dict from names, as tables have them, to `Report`s.
    """
    found, counts = {}, {"passed": 0, "fired": 0, "not run": 0}
    for name, report in reports.items():
        for note in report.notes:
            found.setdefault((note, "", ""), []).append((name, ""))
        for check in report.checks:
            counts[check["status"]] += 1
            if check["status"] == "fired":
                key = "", check["name"], _flag(check["name"], report)
                found.setdefault(key, []).append((name, check["message"]))
    total = sum(counts.values())
    lines = [f"Self-checks: {counts['fired']} of {total} fired"]
    if counts["not run"]:
        lines[0] += f", {counts['not run']} not run (the reports say why)"
    if found:
        lines += ["", "What to know about these numbers"]
    for (note, check, flag), where in found.items():
        names = ", ".join(name for name, _ in where[:3])
        if len(where) > 3:
            names += f" and {len(where) - 3} more"
        if check:
            note = f"the self-check '{check}' fired. {where[0][1]}"
        lines.append(f"- {names}: {note}")
        if flag:
            lines.append(f"  Type {flag}")
    if any(flag for _, _, flag in found):
        lines.append(
            "launch/evaluate.py with --model=.../model.keras and such a flag "
            "measures a saved model again."
        )
    return "\n".join(lines)


def _flag(check, report):
    """What to type where a check has fired, or nothing."""
    from keras_epsched.reports import wording as report_text

    if check in _REMEDIES:
        return f"--eval_attack={_REMEDIES[check]}"
    if check not in _TOO_WEAK:
        return ""
    if report_text.is_paper_protocol(report):
        return "--eval_attack=margin_ensemble, with the protocol nested"
    stronger = _STRONGER.get(FLAGS.eval_attack, "margin_ensemble")
    return f"--eval_attack={stronger}"
