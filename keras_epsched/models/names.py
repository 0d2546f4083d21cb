"""Resolves the names of backbones, and suggests names that are similar."""

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
    """A backbone of the paper, and the nearest one in Keras.

    Args:
        title: The usual name.
        short: The paper's name.
        checkpoint: The paper's checkpoint on Hugging Face.
        source: Name for `classifier`. `None` if Keras has no such model.
        weights: How the weights in Keras differ from the paper's.
    """

    title: str
    short: str
    checkpoint: str
    source: str | None
    weights: str

    @property
    def aliases(self) -> tuple[str, ...]:
        """All names of the backbone, in lower case."""
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
    """Translates a name of the paper into a name of Keras.

    Args:
        name: Any name. The case of the paper's names does not matter.

    Returns:
        The name in KerasHub or keras.applications. Names that are not the
        paper's are returned unchanged.

    Raises:
        ValueError: If the backbone exists in no Keras library.

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
                f"{backbone.weights}. The nearest available are "
                "'clip_vit_base_patch16' (another network with CLIP's "
                "training) and 'keras.applications.ConvNeXtBase' (the same "
                "kind of network, trained on ImageNet). "
                f"Received: source={name!r}"
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
    """Imports KerasHub, to look for a name in it.

    Args:
        name: The name.

    Returns:
        The module.

    Raises:
        ImportError: If KerasHub is not installed. The message lists what is
            available without it.
    """
    bundled = presets.bundled_presets()
    near = _near(name, [*applications.names(), *bundled])
    return optional.package(
        "keras_hub",
        f"{name!r} is neither a bundled preset nor a model of "
        "keras.applications. To look for it in KerasHub, `classifier`",
        "Without KerasHub, `classifier` takes bundled presets, names of "
        "keras.applications, Keras models and `.keras` files. "
        f"Bundled presets: {', '.join(bundled) or 'none'}."
        + (f" Near matches: {near}." if near else ""),
    )


def unknown(name: str) -> ValueError:
    """Returns the error for an unknown name, with similar names.

    Args:
        name: The name.

    Returns:
        The error, for the caller to raise.
    """
    hub = keras_hub(name)
    bundled = presets.bundled_presets()
    paper = {alias for b in PAPER_BACKBONES if b.source for alias in b.aliases}
    near = _near(
        name, [*image_presets(), *applications.names(), *bundled, *paper]
    )
    mistaken = name in hub.models.Backbone.presets
    return ValueError(
        f"No classifier can be made from source={name!r}"
        + (", which takes no images. " if mistaken else ". ")
        + (f"Near matches: {near}. " if near else "")
        + "Expected a name (of KerasHub, keras.applications, the paper, or a "
        "bundled preset), a folder with a checkpoint, or a `.keras` file. "
        f"Bundled presets: {', '.join(bundled) or 'none'}. "
        "`python -m keras_epsched.models.table` lists all names."
    )


def _near(name, names):
    """Returns up to five names that are similar, separated by commas."""
    known = {each.lower(): each for each in names}
    wanted = name.lower().removeprefix(applications.PREFIX)
    near = difflib.get_close_matches(wanted, known, n=5)
    return ", ".join(known[match] for match in near)


def image_presets() -> dict[str, dict]:
    """Returns the KerasHub presets that `classifier` takes.

    Returns:
        A `dict` from each name to KerasHub's description of the preset.
    """
    import keras_hub

    found = dict(keras_hub.models.ImageClassifier.presets)
    for tower in _TOWERS:
        # Older versions of KerasHub do not have all of them.
        backbone = getattr(keras_hub.models, f"{tower}Backbone", None)
        found.update(backbone.presets if backbone else {})
    return found
