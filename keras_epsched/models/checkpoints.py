"""Reads and checks local checkpoints."""

import json
import os
import pathlib
import struct
import warnings
from collections.abc import Sequence

import keras


def check_folder(folder: str | os.PathLike) -> dict:
    """Reads the configuration of a checkpoint and refuses corrupt files.

    Args:
        folder: Folder of a KerasHub preset, or of a Hugging Face or timm
            checkpoint.

    Returns:
        The contents of its config.json.

    Raises:
        ValueError: If a file is corrupt, or only PyTorch weights are found.
        ImportError: If safetensors is needed and not installed.
    """
    folder = pathlib.Path(folder)
    for path in sorted(folder.glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _corrupt(path, error) from error
        if not isinstance(value, (dict, list)):
            raise _corrupt(path, f"it holds {value!r}")
    for path in sorted(folder.glob("*.h5")):
        check_weights_file(path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise _corrupt(folder / "config.json", "it holds a list")
    if "registered_name" in config:
        return config
    tensors = sorted(folder.glob("*.safetensors"))
    if not tensors:
        raise ValueError(
            "Expected weights in `model.safetensors` beside config.json. "
            f"Received: {folder}. PyTorch weight files are not read. Load "
            "them in PyTorch and save them with `save_pretrained(folder)` "
            "(transformers) or `safetensors.torch.save_file`."
        )
    for path in tensors:
        _check_safetensors(path)
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Hugging Face and timm checkpoints need safetensors: "
            "`pip install safetensors`."
        ) from error
    return config


def check_weights_file(path: str | os.PathLike):
    """Refuses a path that is not a readable HDF5 file.

    Args:
        path: Path of a `.weights.h5` or `.h5` file.

    Raises:
        ValueError: If the file does not exist or is corrupt.
    """
    import h5py

    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(
            "Expected `weights` to be 'pretrained', None or the path of a "
            "`.weights.h5` file. "
            f"Received: {str(path)!r}, resolved to {path.resolve()}"
        )
    try:
        with h5py.File(path) as file:
            # Visits every entry without reading its weights.
            file.visititems(lambda name, entry: None)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise _corrupt(path, error) from error


def normalisation(
    folder: str | os.PathLike,
) -> tuple[list[float], list[float]] | None:
    """Reads the normalisation from a Hugging Face preprocessor_config.json.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        Scale and offset for each channel, on pixels in 0..255. `None` if the
        file does not exist or has no mean and standard deviation.

    Example:
    ```python
    scale, offset = normalisation("google/vit-base-patch16-224")
    ```
    """
    path = pathlib.Path(folder) / "preprocessor_config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    factor = config.get("rescale_factor", 1 / 255)
    factor = factor if config.get("do_rescale", True) else 1.0
    if not config.get("do_normalize", True):
        return [factor] * 3, [0.0] * 3
    mean, std = config.get("image_mean"), config.get("image_std")
    if mean is None or std is None:
        return None
    return (
        [factor / s for s in std],
        [-m / s for m, s in zip(mean, std, strict=True)],
    )


def load_weights(
    path: str | os.PathLike, models: Sequence[keras.Model], num_classes: int
):
    """Loads a file of weights into the first model that it fits.

    Args:
        path: A `.weights.h5` file, or an `.h5` file of keras.applications.
        models: Models that share layers: the backbone, the whole classifier.
        num_classes: Number of classes of the classifier, for the error
            message.

    Raises:
        ValueError: If the file does not exist, is corrupt, or fits no model.
    """
    check_weights_file(path)
    errors = []
    for model in models:
        # Keras warns about every layer that does not fit, then raises. The
        # warnings are repeated only if the file fits.
        with warnings.catch_warnings(record=True) as said:
            try:
                model.load_weights(os.fspath(path))
            except (ValueError, KeyError, OSError) as error:
                errors.append(str(error).strip().split("\n")[0])
                continue
        for warning in said:
            warnings.warn(warning.message, stacklevel=2)
        return
    classes = _classes_in(path)
    raise ValueError(
        f"The weights in {os.fspath(path)!r} fit neither the backbone nor the "
        f"classifier with its head of {num_classes} classes. "
        + (
            f"The file holds a classifier of {classes} classes. Pass "
            f"num_classes={classes} to load it; or, for a new head, pass the "
            "`.keras` file of that classifier as the source, or the weights "
            "of its backbone. "
            if classes not in (None, num_classes)
            else "Check that the file comes from the same architecture at "
            "the same image size. "
        )
        + f"Keras says: {'; '.join(dict.fromkeys(errors))}"
    )


def _classes_in(path):
    """Returns the number of classes of the head in a file of weights."""
    import h5py

    with h5py.File(path) as file:
        # The head is the only Dense layer of a classifier of this package.
        bias = file.get("layers/dense/vars/1")
        return None if bias is None else int(bias.shape[0])


def _check_safetensors(path):
    """Refuses a safetensors file whose header or length is wrong."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [tensor["data_offsets"][1] for tensor in header.values()]
        if 8 + length + max(ends, default=0) != path.stat().st_size:
            raise ValueError("it is cut off")
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise _corrupt(path, error) from error


def _corrupt(path, error):
    return ValueError(
        f"The file {str(path)!r} is corrupt ({error}). Download or copy it "
        "again."
    )
