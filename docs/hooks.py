"""What MkDocs puts on the site besides the pages of this folder."""

import io
import pathlib

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from mkdocs.structure import files as structure

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PAGES = {
    "index.md": "README.md",
    "reproduction.md": "REPRODUCTION.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}


def on_files(files, config):
    """Adds the pages that stand at the top of the repository, and pictures."""

    def add(uri, content):
        files.append(
            structure.File.generated(config, src_uri=uri, content=content)
        )

    for uri, name in _PAGES.items():
        text = (_ROOT / name).read_text(encoding="utf-8")
        # From the top of the repository to the top of the site.
        text = text.replace("](docs/", "](")
        for page, other in _PAGES.items():
            text = text.replace(f"]({other})", f"]({page})")
        # No page: a folder of the repository.
        text = text.replace("[colab](colab)", "`colab`")
        add(uri, text)
    for path in sorted((_ROOT / "reproduction").glob("*.png")):
        add(f"reproduction/{path.name}", path.read_bytes())
    add("pictures/schedules.svg", _schedules())
    return files


def _schedules():
    """The shapes that `keras_epsched.schedules` has."""
    import keras_epsched as ke

    s = ke.schedules
    shapes = {
        "Constant": s.Constant(1.0),
        "TwoHinge (12/50, 37/50)": s.TwoHinge(1.0, 12 / 50, 37 / 50),
        "LinearWarmup": s.LinearWarmup(1.0),
        "CosineRamp": s.CosineRamp(1.0),
        "SmoothRamp": s.SmoothRamp(1.0),
        "RandomUniform": s.RandomUniform(1.0, 20, seed=0),
    }
    progress = np.linspace(0, 1, 400)
    figure, axes = plt.subplots(
        2, 3, figsize=(8, 3.6), sharex=True, sharey=True, layout="constrained"
    )
    for place, (name, schedule) in zip(axes.flat, shapes.items(), strict=True):
        place.plot(progress, schedule(progress), color="#3f51b5")
        place.set_title(name, fontsize=9)
        place.set_ylim(-0.05, 1.05)
    figure.supxlabel("share of the training", fontsize=9)
    figure.supylabel("epsilon, share of the target", fontsize=9)
    picture = io.StringIO()
    figure.savefig(picture, format="svg", facecolor="white")
    plt.close(figure)
    return picture.getvalue()
