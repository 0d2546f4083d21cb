"""The adversarial images of reports, as pictures for a web page."""

import base64
import io
from collections.abc import Mapping

import numpy as np

from keras_epsched.epsilons import format_epsilon
from keras_epsched.reports.examples import Examples
from keras_epsched.reports.report import Report

# Images narrower than this are enlarged without smoothing.
_SMALL = 160


def galleries(reports: Mapping[str, Report]) -> dict[str, list[dict]]:
    """Returns the pictures of each model that has adversarial images.

    Args:
        reports: Dict from the name of a model to its `Report`.

    Returns:
        Dict from the name of a model to a list of examples. Each example is a
        dict of pictures, as data URIs, and of the values in the caption.
    """
    return {
        name: [_example(report, index) for index in range(count)]
        for name, report in reports.items()
        if (count := _num_pictures(report.examples))
    }


def data_uri(content: bytes, media_type: str) -> str:
    """Returns a data URI that contains a file.

    Args:
        content: Bytes, the content of the file.
        media_type: String, for example `"image/png"`.
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _num_pictures(examples: Examples | None) -> int:
    if examples is None or examples.clean.ndim != 4:
        return 0
    return len(examples.clean) if examples.clean.shape[-1] in (1, 3) else 0


def _example(report, index) -> dict:
    """The pictures of one example, and the values in its caption."""
    examples = report.examples
    low, high = report.value_range
    clean, adversarial = (
        (images[index].astype("float64") - low) / (high - low)
        for images in (examples.clean, examples.adversarial)
    )
    epsilon = float(examples.epsilon[index])
    difference = adversarial - clean
    extent = epsilon if report.norm == "linf" else np.abs(difference).max()
    # A perturbation of zero needs no amplification.
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
    """The data URI of an image with values in [0, 1] and 1 or 3 channels."""
    from PIL import Image

    levels = np.clip(np.rint(255 * np.nan_to_num(image)), 0, 255)
    levels = levels.astype("uint8")
    if levels.shape[-1] == 1:
        levels = levels[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="png", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")
