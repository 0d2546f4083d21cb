"""A report whose figures are known."""

import numpy as np

from keras_epsched.reports import Report

GRID = np.arange(5) / 255

# Each row is an image; accuracies are 4/5, 3/5, 2/5, 2/5, 1/5.
CORRECT = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ],
    bool,
)


def make_report(**overrides):
    arguments = {
        "epsilons": GRID,
        "correct": CORRECT,
        "labels": [0, 1, 2, 3, 4],
        "predictions": [0, 1, 2, 3, 0],
        "image_ids": [7, 5, 11, 2, 3],
        "norm": "linf",
        "protocol": "nested",
        "attack": {"class_name": "APGD", "config": {"steps": np.int64(10)}},
        "attack_name": "APGD(steps=10)",
        "dataset": {
            "dataset": "stanford_dogs:0.2.0",
            "split": "test",
            "base": "test",
            "start": 0,
            "stop": 8580,
            "num_examples": 8580,
        },
        "forward_passes": 110,
        "backward_passes": 90,
        "naive_forward_passes": 260,
        "naive_backward_passes": 240,
        "seconds": 1.25,
        "model_name": "tiny",
    }
    return Report(**{**arguments, **overrides})
