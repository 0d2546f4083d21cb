"""Prints the table of backbones: `python -m keras_epsched.models.table`."""

import json
import pathlib
import re

import numpy as np

from keras_epsched.models import applications, names, presets

# Number of parameters without the head, and image size. They are stored,
# because building all models takes minutes; a slow test compares them.
_APPLICATIONS = {
    "ConvNeXtBase": (87_566_464, 224),
    "ConvNeXtLarge": (196_230_336, 224),
    "ConvNeXtSmall": (49_454_688, 224),
    "ConvNeXtTiny": (27_820_128, 224),
    "ConvNeXtXLarge": (348_147_968, 224),
    "DenseNet121": (7_037_504, 224),
    "DenseNet169": (12_642_880, 224),
    "DenseNet201": (18_321_984, 224),
    "EfficientNetB0": (4_049_571, 224),
    "EfficientNetB1": (6_575_239, 240),
    "EfficientNetB2": (7_768_569, 260),
    "EfficientNetB3": (10_783_535, 300),
    "EfficientNetB4": (17_673_823, 380),
    "EfficientNetB5": (28_513_527, 456),
    "EfficientNetB6": (40_960_143, 528),
    "EfficientNetB7": (64_097_687, 600),
    "EfficientNetV2B0": (5_919_312, 224),
    "EfficientNetV2B1": (6_931_124, 240),
    "EfficientNetV2B2": (8_769_374, 260),
    "EfficientNetV2B3": (12_930_622, 300),
    "EfficientNetV2L": (117_746_848, 480),
    "EfficientNetV2M": (53_150_388, 480),
    "EfficientNetV2S": (20_331_360, 384),
    "InceptionResNetV2": (54_336_736, 299),
    "InceptionV3": (21_802_784, 299),
    "MobileNet": (3_228_864, 224),
    "MobileNetV2": (2_257_984, 224),
    "MobileNetV3Large": (2_996_352, None),
    "MobileNetV3Small": (939_120, None),
    "NASNetLarge": (84_887_922, 331),
    "NASNetMobile": (4_269_716, 224),
    "ResNet101": (42_658_176, 224),
    "ResNet101V2": (42_626_560, 224),
    "ResNet152": (58_370_944, 224),
    "ResNet152V2": (58_331_648, 224),
    "ResNet50": (23_587_712, 224),
    "ResNet50V2": (23_564_800, 224),
    "VGG16": (14_714_688, 224),
    "VGG19": (20_024_384, 224),
    "Xception": (20_861_480, 299),
}
_SIZES = re.compile(r"_r?(224|240|256|288|336|378|384|448|512|518|1024)(?:_|$)")
_HEADER = (
    "name",
    "parameters",
    "input size",
    "value range",
    "normalisation",
    "source",
)
_CONVERTER = "that of the preset's image converter"


def rows() -> list[tuple[str, ...]]:
    """Returns a row for every name that `classifier` takes.

    Handles (`"hf://..."`), folders and files have no row.

    Returns:
        Tuples of name, number of parameters (without the head; those of CLIP,
        SigLIP and MetaCLIP 2 include the text encoder), input size, value
        range, normalisation and source.

    Example:
    ```python
    rows = keras_epsched.models.table.rows()
    print(markdown(rows))
    ```
    """
    found: list[tuple[str, ...]] = []
    for name in presets.bundled_presets():
        folder = pathlib.Path(presets.bundled_folder(name))
        metadata = json.loads((folder / "metadata.json").read_text("utf-8"))
        parameters = _millions(metadata["parameter_count"])
        found.append((name, parameters, "any", "0..255", _CONVERTER, "bundled"))
    for name, preset in sorted(names.image_presets().items()):
        size = _SIZES.search(name)
        found.append(
            (
                name,
                _millions(preset["metadata"]["params"]),
                size.group(1) if size else "the converter's",
                "0..255",
                _CONVERTER,
                "KerasHub",
            )
        )
    for name in applications.names():
        parameters, side = _APPLICATIONS[name]
        found.append(
            (
                f"{applications.PREFIX}{name}",
                _millions(parameters),
                "any" if side is None else str(side),
                "0..255",
                _words(*applications.normalisation(name)),
                "Keras",
            )
        )
    return found


def paper_rows() -> list[tuple[str, ...]]:
    """Returns a row for each of the paper's six backbones.

    Returns:
        Tuples as from `rows`. The source also says how the weights differ
        from the paper's.
    """
    known = {row[0]: row for row in rows()}
    found = []
    for backbone in names.PAPER_BACKBONES:
        title = f"{backbone.title}, `{backbone.short}`"
        if backbone.source is None:
            found.append((title, *["-"] * 4, backbone.weights))
            continue
        _, *middle, library = known[backbone.source]
        source = f"{library} `{backbone.source}`; {backbone.weights}"
        found.append((title, *middle, source))
    return found


def markdown(table: list[tuple[str, ...]]) -> str:
    """Writes rows as a Markdown table.

    Args:
        table: Rows from `rows` or `paper_rows`.

    Returns:
        The text, with one line for each row and no newline at the end.
    """
    lines = [_HEADER, ("---",) * len(_HEADER), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _millions(parameters):
    return f"{parameters / 1e6:.1f} M"


def _words(scale, offset, reverse):
    """Returns a normalisation in words."""
    if reverse:
        return "BGR, minus the ImageNet mean"
    if np.allclose(scale, 1.0):
        return "inside the model"
    if np.allclose(scale, 1 / 127.5) and np.allclose(offset, -1.0):
        return "x / 127.5 - 1"
    return "ImageNet mean and std"


if __name__ == "__main__":
    print(f"{markdown(paper_rows())}\n\n{markdown(rows())}")
