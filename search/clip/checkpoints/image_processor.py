"""Read the preprocessing of a ``transformers`` model from its folder.

It is in ``preprocessor_config.json``, or under ``image_processor`` in ``processor_config.json``.
Nothing here imports ``transformers``: indexing workers do the same with Pillow.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from fovea.search.clip.config import PUBLISHED_MEAN, PUBLISHED_STD, Colour, colour
from fovea.search.clip.errors import ModelError
from fovea.search.clip.patches import side_for
from fovea.search.clip.preprocess import Preprocess

__all__ = ["preprocess_of", "has_preprocessing", "read_json"]

_HALF = (0.5, 0.5, 0.5)
_CROPPING: dict[str, Any] = {
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": PUBLISHED_MEAN,
    "image_std": PUBLISHED_STD,
}
_SQUASHING: dict[str, Any] = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": _HALF,
    "image_std": _HALF,
}
# The defaults of each kind of image processor.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIP": _CROPPING,
    "ChineseCLIP": _CROPPING,
    "Bit": _CROPPING,
    "Siglip": _SQUASHING | {"resample": 3},
    "ViT": _SQUASHING | {"resample": 2},
    "Siglip2": {
        "patch_size": 16,
        "max_num_patches": 256,
        "resample": 2,
        "image_mean": _HALF,
        "image_std": _HALF,
    },
}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise ``ModelError`` if the file is anything else."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelError(f"{path} is damaged: {exc}; fetch it again") from exc
    if not isinstance(data, dict):
        raise ModelError(f"{path} is not a JSON object; fetch it again")
    return data


def preprocess_of(folder: Path, side: int = 224) -> Preprocess:
    """Return the preprocessing of the model in a folder; ``side`` is the default size in pixels.

    Raise ``ModelError`` if the folder does not describe it, or fovea does not support it.
    """
    found = _description(folder)
    if found is None:
        raise ModelError(f"{folder} has no preprocessor_config.json; put the model's own there")
    path, options = found
    kind = options.get("image_processor_type") or options.get("feature_extractor_type") or "CLIP"
    kind = str(kind)
    for ending in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind not in _DEFAULTS:
        raise ModelError(f"{path} asks for {kind}, which fovea does not support")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return _preprocess(kind, {**_sized(_DEFAULTS[kind], side), **given})
    except ModelError as exc:
        raise ModelError(f"{path} cannot be used: {exc}") from exc
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise ModelError(f"{path} cannot be used: {type(exc).__name__}: {exc}") from exc


def _sized(usual: Mapping[str, Any], side: int) -> dict[str, Any]:
    """Return a processor's defaults with each size replaced by ``side`` pixels."""
    return {
        name: dict.fromkeys(value, side) if name in ("size", "crop_size") else value
        for name, value in usual.items()
    }


def has_preprocessing(folder: Path) -> bool:
    """Whether the folder describes its model's preprocessing."""
    return _description(folder) is not None


def _description(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    whole = folder / "processor_config.json"
    if whole.is_file():
        part = read_json(whole).get("image_processor")
        if isinstance(part, dict):
            return whole, part
    return None


def _preprocess(kind: str, options: Mapping[str, Any]) -> Preprocess:
    if not options.get("do_resize", True):
        raise ModelError("it does not resize images (do_resize), so they differ in size")
    if options.get("do_pad"):
        raise ModelError("it pads images (do_pad), which fovea does not support")
    mean, std = _colours(options)
    resampling = Image.Resampling(int(options["resample"])).name
    if kind == "Siglip2":
        patch, most = int(options["patch_size"]), int(options["max_num_patches"])
        if patch < 1 or not 1 <= most < 1 << 16:
            raise ModelError(f"invalid patch_size {patch} or max_num_patches {most}")
        side = side_for(patch, most)
        return Preprocess(side, mean, std, "patches", 0, resampling, patch=patch, patches=most)
    squashes, side = _size(options["size"], squashes_numbers=kind in ("Siglip", "ViT"))
    if not options.get("do_center_crop", False):
        if not squashes:
            raise ModelError("it keeps each image's aspect ratio; fovea needs squares")
        return Preprocess(side, mean, std, "squash", resampling=resampling)
    squares, crop = _size(options["crop_size"], squashes_numbers=True)
    if not squares or crop > side or (squashes and crop < side):
        raise ModelError(
            f"fovea does not support a crop of {options['crop_size']} from {options['size']}"
        )
    if squashes:
        return Preprocess(side, mean, std, "squash", resampling=resampling)
    resize = 0 if crop == side else side
    return Preprocess(crop, mean, std, "crop", resize, resampling, rounds_down=True)


def _size(value: Any, *, squashes_numbers: bool) -> tuple[bool, int]:
    """Return whether a size makes a square, and the pixels of its (short) side."""
    if isinstance(value, Mapping):
        given = {name: int(side) for name, side in value.items() if side is not None}
        squashes = set(given) == {"height", "width"}
        if len(set(given.values())) != 1 or not (squashes or set(given) == {"shortest_edge"}):
            raise ModelError(f"a size of {dict(value)} is not square")
        side = next(iter(given.values()))
    else:
        squashes, side = squashes_numbers, int(value)
    if not 1 <= side <= 4096:
        raise ModelError(f"a size of {side} pixels is not from 1 to 4096")
    return squashes, side


def _colours(options: Mapping[str, Any]) -> tuple[Colour, Colour]:
    """Return the mean and deviation for pixels from 0 to 1, whatever they are rescaled to."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if options.get("do_normalize", True):
        mean, std = colour(options["image_mean"]), colour(options["image_std"])
    rescales = options.get("do_rescale", True)
    factor = float(options.get("rescale_factor", 1 / 255)) if rescales else 1.0
    if abs(factor * 255 - 1) > 1e-6:
        mean, std = (colour([v / (255 * factor) for v in values]) for values in (mean, std))
    if min(std) <= 0:
        raise ModelError(f"invalid image_std {std}; each value should be above 0")
    return mean, std
