"""The images of `letters`, rendered with the fonts of matplotlib."""

import functools
import math
import pathlib
import string
from collections.abc import Iterator

import numpy as np

VERSION = "1.0.0"
SHAPE = (32, 32, 1)
CLASS_NAMES = tuple(string.ascii_uppercase)
SPLIT_SIZES = {"train": 400 * len(CLASS_NAMES), "test": 80 * len(CLASS_NAMES)}

_SPLIT_SEEDS = {"train": 0, "test": 1}
_SIDE = SHAPE[0]
# Letters are warped at twice the size and then averaged, for smooth edges.
_OVERSAMPLING = 2
_FONT_SIZE = 80

# A fixed list, so that a new font in matplotlib changes no image. It leaves
# out the symbol fonts (cmex, cmsy and STIXSize), which have no letters.
_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmb10",
    "cmmi10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)


def _characters(label: int) -> tuple[str, ...]:
    """Returns the characters of a class: upper-case and lower-case letter."""
    upper = CLASS_NAMES[label]
    # In many fonts, the lower-case L looks like the upper-case I.
    return (upper,) if upper == "L" else (upper, upper.lower())


@functools.cache
def _glyph(font: str, character: str):
    """Returns the character as a PIL image, white on black and cropped."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = pathlib.Path(
        matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf"
    )
    if not path.is_file():
        raise ValueError(
            f"The dataset `letters` is drawn with the font {font}, which "
            f"matplotlib {matplotlib.__version__} does not have. Install a "
            'version that has it: `pip install "matplotlib>=3.11"`'
        )
    face = ImageFont.truetype(str(path), _FONT_SIZE)
    left, top, right, bottom = face.getbbox(character)
    # A margin of one pixel, so that the warp fades to black at the edges.
    canvas = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(canvas).text(
        (1 - left, 1 - top), character, fill=255, font=face
    )
    return canvas


def _warp(glyph, generator: np.random.Generator):
    """Scales, shears, rotates and moves the glyph, and draws it."""
    from PIL import Image

    side = _SIDE * _OVERSAMPLING
    scale = generator.uniform(0.6, 0.9) * side / max(glyph.size)
    stretch = math.exp(generator.uniform(-0.15, 0.15))
    shear = generator.uniform(-0.25, 0.25)
    angle = math.radians(generator.uniform(-15, 15))
    cosine, sine = math.cos(angle), math.sin(angle)
    forward = (
        np.array([[cosine, -sine], [sine, cosine]])
        @ np.array([[1.0, shear], [0.0, 1.0]])
        @ np.diag([scale * stretch, scale / stretch])
    )
    # PIL needs the map from each pixel of the canvas to the glyph.
    backward = np.linalg.inv(forward)
    centre = side / 2 + generator.uniform(-0.06, 0.06, size=2) * side
    offset = np.array(glyph.size) / 2 - backward @ centre
    coefficients = np.column_stack([backward, offset]).ravel().tolist()
    return glyph.transform(
        (side, side),
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BILINEAR,
    )


def render(label: int, seed: tuple[int, ...]) -> np.ndarray:
    """Renders one distorted letter.

    These are random: the font, upper or lower case, an affine distortion, the
    resolution (8 to 32 pixels, then enlarged to 32, so images range from
    blurred to sharp), two grey levels, which of them is the letter, and a
    little noise.

    Args:
        label: Integer. The class, 0 (A) to 25 (Z).
        seed: Tuple of integers, the only source of randomness.

    Returns:
        A `uint8` array of shape `(32, 32, 1)`.
    """
    from PIL import Image

    generator = np.random.default_rng(seed)
    font = _FONTS[generator.integers(len(_FONTS))]
    characters = _characters(label)
    character = characters[generator.integers(len(characters))]
    canvas = _warp(_glyph(font, character), generator)
    resolution = int(generator.integers(8, _SIDE, endpoint=True))
    canvas = canvas.resize((resolution,) * 2, Image.Resampling.BOX)
    canvas = canvas.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    ink = np.asarray(canvas, dtype="float64") / 255
    dark, light = generator.uniform([0, 150], [60, 255])
    if generator.random() < 0.5:
        background, foreground = dark, light
    else:
        background, foreground = light, dark
    image = background + (foreground - background) * ink
    image += generator.uniform(0, 8) * generator.standard_normal(ink.shape)
    return np.rint(image).clip(0, 255).astype("uint8")[..., np.newaxis]


def generate(split: str) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yields the images of a split. Each takes a few milliseconds.

    Args:
        split: String, `"train"` or `"test"`.

    Yields:
        Key, `uint8` array of shape `(32, 32, 1)`, and label.
    """
    for index in range(SPLIT_SIZES[split]):
        label = index % len(CLASS_NAMES)
        yield index, render(label, seed=(_SPLIT_SEEDS[split], index)), label
