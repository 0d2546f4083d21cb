"""Draws the pictures of the documentation: python docs/pictures/draw.py."""

import pathlib
import sys

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np

import keras_epsched as ke

# The same bytes each time.
matplotlib.rcParams["svg.hashsalt"] = "keras_epsched"


def schedules(path):
    """The shapes that `keras_epsched.schedules` has."""
    s = ke.schedules
    shapes = {
        "Constant": s.Constant(1.0),
        "TwoHinge (12/50, 37/50)": s.TwoHinge(1.0, 12 / 50, 37 / 50),
        "Peak": s.Peak(1.0),
        "LinearWarmup": s.LinearWarmup(1.0),
        "CosineRamp": s.CosineRamp(1.0),
        "RandomUniform": s.RandomUniform(1.0, 20, seed=0),
    }
    progress = np.linspace(0, 1, 400)
    figure, axes = plt.subplots(
        2, 3, figsize=(8, 3.6), sharex=True, sharey=True, layout="constrained"
    )
    for place, (name, schedule) in zip(axes.flat, shapes.items(), strict=True):
        place.plot(progress, schedule(progress), color="#3f51b5")
        place.set_title(name, fontsize=9)
        place.set_ylim(-0.05, 1.3)
    figure.supxlabel("share of the training", fontsize=9)
    figure.supylabel("epsilon, share of the target", fontsize=9)
    figure.savefig(path, facecolor="white", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    here = pathlib.Path(__file__).parent
    schedules(
        (pathlib.Path(sys.argv[1]) if sys.argv[1:] else here) / "schedules.svg"
    )
