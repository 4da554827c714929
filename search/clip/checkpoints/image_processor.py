"""Read how a model of ``transformers`` wants its pictures, from the file that it keeps about that.

That is ``preprocessor_config.json``, or the part ``image_processor`` of ``processor_config.json``.
Nothing here imports ``transformers``: indexing workers do the same with Pillow alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from fovea.search.clip.config import PUBLISHED_MEAN, PUBLISHED_STD, Colour, colour
from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import Preprocess

__all__ = ["preprocess_of", "says_preprocessing", "read_json"]

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
# What each kind of image processor means where its file is silent.
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
    """Read a JSON object; raise ``ModelError`` for a file that is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelError(f"{path} is damaged: {exc}; fetch it again") from exc
    if not isinstance(data, dict):
        raise ModelError(f"{path} is not a JSON object; fetch it again")
    return data


def preprocess_of(folder: Path, side: int = 224) -> Preprocess:
    """Return what the model in a folder wants to see; ``side`` pixels where no size is told.

    Raise ``ModelError`` where the folder does not say, or asks for what fovea does not do.
    """
    found = _description(folder)
    if found is None:
        raise ModelError(f"{folder} has no preprocessor_config.json; put the model's own there")
    path, said = found
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "CLIP")
    for ending in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind not in _DEFAULTS:
        raise ModelError(f"{path} asks for {kind}, which fovea does not have")
    given = {name: value for name, value in said.items() if value is not None}
    try:
        return _preprocess(kind, {**_sized(_DEFAULTS[kind], side), **given})
    except ModelError as exc:
        raise ModelError(f"{path} cannot be used: {exc}") from exc
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise ModelError(f"{path} cannot be used: {type(exc).__name__}: {exc}") from exc


def _sized(usual: Mapping[str, Any], side: int) -> dict[str, Any]:
    """The defaults of a processor with each of their sizes in pixels replaced by ``side``."""
    return {
        name: dict.fromkeys(value, side) if name in ("size", "crop_size") else value
        for name, value in usual.items()
    }


def says_preprocessing(folder: Path) -> bool:
    """Whether the model in a folder says what it wants to see."""
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


def _preprocess(kind: str, said: Mapping[str, Any]) -> Preprocess:
    if not said.get("do_resize", True):
        raise ModelError("it resizes no picture (do_resize), so that no two are of one size")
    if said.get("do_pad"):
        raise ModelError("it pads pictures (do_pad), which fovea does not do")
    mean, std = _colours(said)
    resampling = Image.Resampling(int(said["resample"])).name
    if kind == "Siglip2":
        patch, most = int(said["patch_size"]), int(said["max_num_patches"])
        if patch < 1 or not 1 <= most < 1 << 16:
            raise ModelError(f"patch_size {patch} and max_num_patches {most} make no picture")
        return Preprocess.of_patches(patch, most, mean, std, resampling)
    squashes, side = _size(said["size"], squashes_numbers=kind in ("Siglip", "ViT"))
    if not said.get("do_center_crop", False):
        if not squashes:
            raise ModelError("it keeps each picture's shape, where fovea needs one for all")
        return Preprocess(side, mean, std, "squash", resampling=resampling)
    squares, crop = _size(said["crop_size"], squashes_numbers=True)
    if not squares or crop > side or (squashes and crop < side):
        raise ModelError(f"a crop of {said['crop_size']} from {said['size']} is not one of fovea's")
    if squashes:
        return Preprocess(side, mean, std, "squash", resampling=resampling)
    resize = 0 if crop == side else side
    return Preprocess(crop, mean, std, "crop", resize, resampling, rounds_down=True)


def _size(value: Any, *, squashes_numbers: bool) -> tuple[bool, int]:
    """Whether a size is that of a square, and how many pixels its (short) side has."""
    if isinstance(value, Mapping):
        given = {name: int(side) for name, side in value.items() if side is not None}
        squashes = set(given) == {"height", "width"}
        if len(set(given.values())) != 1 or not (squashes or set(given) == {"shortest_edge"}):
            raise ModelError(f"a size of {dict(value)} is not a square's")
        side = next(iter(given.values()))
    else:
        squashes, side = squashes_numbers, int(value)
    if not 1 <= side <= 4096:
        raise ModelError(f"a size of {side} pixels is not one of fovea's")
    return squashes, side


def _colours(said: Mapping[str, Any]) -> tuple[Colour, Colour]:
    """Mean and deviation of pixels from 0 to 1, whatever range they are rescaled to."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if said.get("do_normalize", True):
        mean, std = colour(said["image_mean"]), colour(said["image_std"])
    factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    if abs(factor * 255 - 1) > 1e-6:
        mean, std = _scaled(mean, 1 / (255 * factor)), _scaled(std, 1 / (255 * factor))
    if min(std) <= 0:
        raise ModelError(f"an image_std of {std} is none")
    return mean, std


def _scaled(values: Colour, factor: float) -> Colour:
    return values[0] * factor, values[1] * factor, values[2] * factor
