"""Shows the results of frontier.py as tables, verdicts and a picture.

The results are a plain `dict`, as frontier.py saves it. For each network, it
has the norm, the grid of epsilons without 0, and a record for each attack. A
record has `correct` (images x epsilons, with 0), `passes` for each image and
`seconds`. The record of AutoAttack also has `estimate` (see
`frontier.passes_upwards`).
"""

import numpy as np

OURS = {
    "paper": "paper",
    "apgd_10_ce": "APGD-10, CE",
    "apgd_10": "APGD-10",
    "apgd_20": "APGD-20",
    "apgd_100": "APGD-100",
    "default": "default",
    "thorough": "thorough",
}
REFERENCES = {
    "autoattack_nested": "AutoAttack",
    "autoattack_bisect": "AutoAttack, bisected",
}
PEERS = {
    "torchattacks_pgd": "torchattacks PGD",
    "torchattacks_apgd": "torchattacks APGD",
    "foolbox_pgd": "Foolbox PGD",
    "art_pgd": "ART PGD",
    "art_apgd": "ART APGD",
    "torchattacks_autoattack": "torchattacks AutoAttack",
}
# Of Okabe and Ito, which the colour-blind can tell apart; and a dark grey.
_MINE, _THEIRS, _REFERENCE = "#0072B2", "#D55E00", "#333333"
_TITLES = OURS | REFERENCES | PEERS

# Points of expected robustness, of the worst epsilon, and share of the passes.
_TARGETS = {"default": (0.5, 1.5, 1 / 20), "thorough": (0.2, None, 1 / 10)}


# === Tables ===


class Curve:
    """What one attack leaves of a network, in points."""

    def __init__(self, record, images=None):
        correct = np.array(record["correct"], bool)[:images]
        self.images = len(correct)
        self.accuracy = 100 * correct.mean(axis=0)
        self.expected = _mean(self.accuracy)
        nested = np.logical_and.accumulate(correct, axis=1)
        self.nested = _mean(100 * nested.mean(axis=0))
        self.passes = record["passes"]


def _mean(curve):
    return float(np.trapezoid(curve) / (len(curve) - 1))


def reference_of(records):
    """AutoAttack's record, and its passes in a sweep that goes up.

    Returns:
        "~" if the passes are an estimate, the record, the passes.
    """
    for name in REFERENCES:
        if name in records:
            counted = name == "autoattack_nested"
            passes = records[name]["passes" if counted else "estimate"]
            return "" if counted else "~", records[name], passes
    return "", None, None


def _images(records):
    counts = [len(record["correct"]) for record in records.values()]
    return max(counts, default=0)


def show(results):
    """Prints all tables.

    Args:
        results: Dict from names of networks to what was measured.

    Returns:
        A list of the targets that are missed.
    """
    from tabulate import tabulate

    rows, missed = [], []
    for name, result in results.items():
        print_network(name, result)
        row, more = judge(name, result["records"])
        rows.append(row)
        missed += more
    headers = ["network", "AA's E", "passes"]
    for run in _TARGETS:
        headers += [f"{run}: E - AA's", "most", "of AA's passes"]
    headers.append("strongest peer: E, passes")
    print(f"\n{tabulate(rows, headers, disable_numparse=True)}")
    return missed


def print_network(name, result):
    """Prints the table of a network."""
    from tabulate import tabulate

    records = result["records"]
    sign, reference, full = reference_of(records)
    rows = []
    for run, record in records.items():
        curve, title = Curve(record), _TITLES[run]
        if curve.images < _images(records):
            title += f" ({curve.images} images)"
        row = [title, f"{curve.expected:.1f}", f"{curve.nested:.1f}"]
        share, apart = "-", ["-"] * (1 + len(result["grid"]))
        if reference:
            # On the same images, where there are few.
            other = Curve(reference, curve.images)
            share = f"{sign}{curve.passes / full:.3f}"
            gaps = (curve.accuracy - other.accuracy)[1:]
            apart = [f"{curve.expected - other.expected:+.1f}"]
            apart += [f"{gap:+.0f}" for gap in gaps]
        seconds = f"{record['seconds']:.0f}"
        rows.append([*row, *apart, f"{curve.passes:.0f}", share, seconds])
    headers = ["attack", "E", "E, nested", "E - AA's"]
    headers += [f"{epsilon:.3g}" for epsilon in result["grid"]]
    headers += ["passes", "of AA's", "seconds"]
    print(
        f"\n{name}, {result['norm']}: expected robustness (E), differences of "
        "accuracy to that\nunder AutoAttack (AA) in points, and passes for each"
        " image. Other libraries\nattack all images again at each epsilon."
    )
    print(tabulate(rows, headers, disable_numparse=True))
    counted = records.get("autoattack_nested")
    for run in REFERENCES:
        if counted and run in records:
            ratio = records[run]["estimate"] / counted["passes"]
            print(
                f"Estimated passes of {_TITLES['autoattack_nested']} (from "
                f"{run}), divided by the counted passes: {ratio:.3f}"
            )


def judge(name, records):
    """A row of the summary, and which targets are missed."""
    row, missed = [name, "-", "-"], []
    sign, reference, full = reference_of(records)
    if reference:
        base = Curve(reference)
        row[1:] = [f"{base.expected:.1f}", f"{sign}{full:.0f}"]
    for run, (points, at_each, share) in _TARGETS.items():
        if run not in records or not reference:
            row += ["-"] * 3
            print(f"NOT JUDGED, because it was not measured: {name}, {run}")
            continue
        curve = Curve(records[run])
        gap = curve.expected - base.expected
        most = (curve.accuracy - base.accuracy).max()
        part = curve.passes / full
        row += [f"{gap:+.2f}", f"{most:+.1f}", f"{sign}{part:.3f}"]
        for what, value, bound in (
            ("points of expected robustness above AutoAttack", gap, points),
            ("points above AutoAttack at one epsilon", most, at_each),
            ("of AutoAttack's passes", part, share),
        ):
            if bound is not None and value > bound + 1e-9:
                missed.append(f"{name}, {run}: {value:.3f} {what} > {bound}")
    peers = [
        (Curve(records[peer]).expected, records[peer]["passes"], PEERS[peer])
        for peer in PEERS
        if peer in records and len(records[peer]["correct"]) == _images(records)
    ]
    expected, passes, title = min(peers, default=(0, 0, ""))
    row.append(f"{title}: {expected:.1f}, {passes:.0f}" if peers else "-")
    return row, missed


# === The picture ===


def draw(results, paths):
    """Expected robustness against passes, a panel for each network."""
    from matplotlib.figure import Figure

    rows = -(-len(results) // 2)
    figure = Figure((8, 0.6 + 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    labels = []
    for axes, (name, result) in zip(panels, results.items(), strict=False):
        labels += [(axes, *each) for each in draw_points(axes, result)]
        axes.set_title(f"{name}, {result['norm']}", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(10, 2e5)
        axes.margins(y=0.15)
        axes.grid(True, color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7, labelbottom=True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    figure.supxlabel("forward and backward passes per image", fontsize=8)
    figure.supylabel("expected robustness (%), lower is stronger", fontsize=8)
    figure.draw_without_rendering()
    place_labels(labels)
    # Placed labels are not to change the layout that they were placed in.
    figure.set_layout_engine("none")
    for path in paths:
        figure.savefig(path, dpi=150)


def draw_points(axes, result):
    """Draws one network; yields each point, its name and its colour."""
    records = result["records"]
    curves = {run: Curve(record) for run, record in records.items()}
    points = {run: (x.passes, x.expected) for run, x in curves.items()}
    ours = [points[run] for run in OURS if run in points]
    line = [
        point
        for point in sorted(ours)
        if all(x > point[0] or y >= point[1] for x, y in ours)
    ]
    if line:
        axes.plot(*zip(*line, strict=True), color=_MINE, linewidth=1.5)
    for run, title in OURS.items():
        if run in points:
            fill = _MINE if points[run] in line else "white"
            axes.plot(*points[run], "o", color=_MINE, mfc=fill, ms=4)
            yield points[run], title, _MINE
    for run, title in PEERS.items():
        # Few images say too little.
        if run in points and curves[run].images == _images(records):
            axes.plot(*points[run], "s", color=_THEIRS, ms=4)
            yield points[run], title, _THEIRS
    _, reference, passes = reference_of(records)
    if reference:
        point = passes, Curve(reference).expected
        axes.axhline(point[1], color=_REFERENCE, linestyle="--", linewidth=1)
        axes.plot(*point, "D", color=_REFERENCE, ms=4)
        yield point, "AutoAttack", _REFERENCE


def place_labels(labels):
    """Writes beside each point what it is, where there is room."""
    from matplotlib import patheffects

    places = [
        (3, 4, "left", "bottom"),
        (6, 0, "left", "center"),
        (3, -4, "left", "top"),
        (-3, -4, "right", "top"),
        (-6, 0, "right", "center"),
        (-3, 4, "right", "bottom"),
        (0, 5, "center", "bottom"),
        (0, -5, "center", "top"),
    ]
    # So that lines do not cross them out.
    halo = [patheffects.withStroke(linewidth=2, foreground="white")]
    taken = [axes.transData.transform(point) for axes, point, _, _ in labels]
    boxes = []
    for axes, point, text, color in labels:
        options = []
        for x, y, horizontal, vertical in places:
            note = axes.annotate(
                text,
                point,
                (x, y),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=6,
                color=color,
                path_effects=halo,
            )
            box = note.get_window_extent().padded(2)
            frame = axes.get_window_extent()
            bad = sum(box.overlaps(each) for each in boxes)
            bad += sum(box.contains(*each) for each in taken)
            bad += box.x0 < frame.x0 or box.x1 > frame.x1
            options.append((bad, len(options), note, box))
        best = min(options, key=lambda option: option[:2])
        boxes.append(best[3])
        for option in options:
            if option is not best:
                option[2].remove()
