"""Names of backbones: the paper's, KerasHub's, keras.applications'."""

import dataclasses
import difflib
import os

from keras_epsched import optional
from keras_epsched.models import applications, presets

# Backbones without an image classifier that have an image encoder.
_TOWERS = (
    "CLIP",
    "DINOV2",
    "DINOV3",
    "DeepLabV3",
    "DepthAnything",
    "MetaCLIP2",
    "RetinaNet",
    "SAM",
    "SigLIP",
)


@dataclasses.dataclass(frozen=True)
class PaperBackbone:
    """One of the six backbones of the paper, and its like in Keras.

    Args:
        title: The usual name.
        short: The paper's name.
        checkpoint: The paper's checkpoint, on Hugging Face.
        source: Name for `classifier`; `None` where Keras has no such model.
        weights: How the weights in Keras relate to the paper's.
    """

    title: str
    short: str
    checkpoint: str
    source: str | None
    weights: str

    @property
    def aliases(self) -> tuple[str, ...]:
        """All names that it goes by, in lower case."""
        timm = self.checkpoint.removeprefix("timm/")
        names = (self.title, self.short, self.checkpoint, timm)
        return tuple(name.lower() for name in names)


PAPER_BACKBONES = (
    PaperBackbone(
        "ViT-B/16",
        "ViT",
        "timm/vit_base_patch16_224.augreg_in1k",
        "vit_base_patch16_224_imagenet",
        "not the paper's: these saw ImageNet-21k first, the paper's "
        "ImageNet-1k only",
    ),
    PaperBackbone(
        "Swin-B",
        "SWIN",
        "timm/swin_base_patch4_window7_224.ms_in22k_ft_in1k",
        "swin_base_patch4_window7_224",
        "not the paper's: these saw ImageNet-1k only, the paper's "
        "ImageNet-22k first",
    ),
    PaperBackbone(
        "ConvNeXt-B",
        "CNX",
        "timm/convnext_base.fb_in22k_ft_in1k",
        "keras.applications.ConvNeXtBase",
        "the paper's, as Keras converted them: ImageNet-22k, then 1k",
    ),
    PaperBackbone(
        "ResNet-50",
        "R50",
        "timm/resnet50.a1_in1k",
        "resnet_50_imagenet",
        "the paper's, as KerasHub converted them",
    ),
    PaperBackbone(
        "CLIP ViT-B/16",
        "ClipViT",
        "timm/vit_base_patch16_clip_224.laion2b",
        "clip_vit_base_patch16",
        "not the paper's: OpenAI's, the paper's saw LAION-2B",
    ),
    PaperBackbone(
        "CLIP ConvNeXt-B",
        "ClipCNX",
        "laion/CLIP-convnext_base_w-laion2B-s13B-b82K",
        None,
        "in no Keras library",
    ),
)


def resolved(name: str) -> str:
    """Returns the name in Keras of a name in the paper; others unchanged.

    Args:
        name: Any name. Case does not matter for those of the paper.

    Returns:
        The name that KerasHub or keras.applications knows.

    Raises:
        ValueError: There is no such backbone in Keras.

    Example:
    ```python
    resolved("ViT-B/16")  # "vit_base_patch16_224_imagenet"
    resolved("timm/resnet50.a1_in1k")  # "resnet_50_imagenet"
    ```
    """
    for backbone in PAPER_BACKBONES:
        if name.lower() not in backbone.aliases:
            continue
        if backbone.source is None:
            raise ValueError(
                f"{backbone.title} ({backbone.checkpoint}) is "
                f"{backbone.weights}. The nearest that are: "
                "'clip_vit_base_patch16' (trained likewise, another network) "
                "and 'keras.applications.ConvNeXtBase' (the same kind of "
                f"network, trained on ImageNet). Received: source={name!r}"
            )
        return backbone.source
    return name


def check(name: str) -> None:
    """Checks that `classifier` knows a name, without loading anything.

    Args:
        name: A name, or the path of a file or folder.

    Raises:
        ValueError: There is no such backbone, or no such file. Says which
            names are like it.
        ImportError: Only KerasHub may have it, and that is not installed.
    """
    plain = resolved(name)
    if (
        plain.removeprefix(applications.PREFIX) in applications.names()
        or plain in presets.bundled_presets()
        or os.path.exists(plain)
        # A handle of Hugging Face or Kaggle, which only they know.
        or "://" in plain
    ):
        return
    if plain.endswith(".keras"):
        raise ValueError(
            "Expected the path of an existing `.keras` file. Received: "
            f"{name!r}, resolved to {os.path.abspath(plain)}"
        )
    keras_hub(plain)
    if plain not in image_presets():
        raise unknown(name)


def keras_hub(name: str):
    """KerasHub, to look for a name in it.

    Args:
        name: The name.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed. Says what there is without it.
    """
    bundled = presets.bundled_presets()
    near = _near(name, [*applications.names(), *bundled])
    return optional.package(
        "keras_hub",
        f"The network {name!r}, which neither keras.applications nor this "
        "package has,",
        "Without it, `classifier` takes those two, Keras models and `.keras` "
        f"files. Bundled presets: {', '.join(bundled) or 'none'}."
        + (f" Near matches: {near}." if near else ""),
    )


def unknown(name: str) -> ValueError:
    """The error for a name that nothing knows, with the nearest names.

    Args:
        name: The name.

    Returns:
        The error, to be raised.
    """
    hub = keras_hub(name)
    bundled = presets.bundled_presets()
    paper = {alias for b in PAPER_BACKBONES if b.source for alias in b.aliases}
    near = _near(
        name, [*image_presets(), *applications.names(), *bundled, *paper]
    )
    mistaken = name in hub.models.Backbone.presets
    return ValueError(
        "Expected the name of an image backbone of KerasHub, of "
        "keras.applications or of the paper, a bundled preset, a folder with "
        "a checkpoint or a `.keras` file. "
        f"Received: source={name!r}"
        + (", which takes no images. " if mistaken else ". ")
        + (f"Near matches: {near}. " if near else "")
        + f"Bundled presets: {', '.join(bundled) or 'none'}. All names: "
        "`python -m keras_epsched.models.table`."
    )


def _near(name, names):
    """Those of the names that are like one, separated by commas."""
    known = {each.lower(): each for each in names}
    wanted = name.lower().removeprefix(applications.PREFIX)
    near = difflib.get_close_matches(wanted, known, n=5)
    return ", ".join(known[match] for match in near)


def image_presets() -> dict[str, dict]:
    """Returns the KerasHub presets that `classifier` takes.

    Returns:
        Dictionary from names to KerasHub's description of the preset.
    """
    import keras_hub

    found = dict(keras_hub.models.ImageClassifier.presets)
    for tower in _TOWERS:
        # Older versions of KerasHub lack some.
        backbone = getattr(keras_hub.models, f"{tower}Backbone", None)
        found.update(backbone.presets if backbone else {})
    return found
