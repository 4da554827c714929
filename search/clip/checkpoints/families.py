"""Families of models other than CLIP that ``transformers`` computes; imports no torch.

Like CLIP they map images and texts into one space, by other towers: Chinese-CLIP (Yang et al. 2022,
arXiv:2211.01335), SigLIP (Zhai et al. 2023, arXiv:2303.15343) and SigLIP 2 (Tschannen et al. 2025,
arXiv:2502.14786), AltCLIP (Chen et al. 2022, arXiv:2211.06679), MetaCLIP 2 (Chuang et al. 2025,
arXiv:2507.22062), and any two towers joined as a ``VisionTextDualEncoderModel``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import Preprocess

from .checkpoint import find_weights, stored_shapes
from .dialects import is_open_clip
from .image_processor import preprocess_of, read_json

__all__ = [
    "FAMILIES",
    "TOKENIZER_FILES",
    "Family",
    "FamilyModel",
    "check_usable",
    "family_of",
    "kind_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What fovea needs to know of a family; a new one is a row of ``FAMILIES``."""

    model: str  # the class of ``transformers`` with get_image_features and get_text_features
    width_tensor: str = "visual_projection.weight"  # has a row for each value of an embedding
    pads_texts: bool = False  # its text tower was trained with texts padded to one length
    offsets_positions: bool = False  # its text positions count from the pad id on, as RoBERTa's


_SIGLIP_HEAD = "text_model.head.weight"

FAMILIES: dict[str, Family] = {  # by the ``model_type`` of config.json
    "altclip": Family(model="AltCLIPModel", offsets_positions=True),
    "chinese_clip": Family(model="ChineseCLIPModel"),
    "metaclip_2": Family(model="MetaClip2Model"),
    "siglip": Family(model="SiglipModel", width_tensor=_SIGLIP_HEAD, pads_texts=True),
    "siglip2": Family(model="Siglip2Model", width_tensor=_SIGLIP_HEAD, pads_texts=True),
    "vision-text-dual-encoder": Family(model="VisionTextDualEncoderModel"),
}
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
    *("tokenizer.model", "vocab.json"),
)


@dataclass(frozen=True, slots=True)
class FamilyModel:
    """A model on disk: its family, the width of its embeddings, and the pixels it takes."""

    kind: str  # as its configuration calls it
    dim: int
    preprocess: Preprocess


def kind_of(config: Mapping[str, Any]) -> str | None:
    """Return the family named in a ``config.json``; None for a CLIP or anything unknown."""
    if is_open_clip(config):
        return None
    kind = config.get("model_type")
    return kind if isinstance(kind, str) and kind in FAMILIES else None


def family_of(path: Path) -> FamilyModel | None:
    """Describe the model in a folder (or of a weights file); None if it is not of another family.

    Raise ``ModelError`` if it is but cannot be used.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / "config.json"
    if not file.is_file():
        return None
    config = read_json(file)
    kind = kind_of(config)
    if kind is None:
        return None
    if any(_asks_for_code(part) for part in config.values()):
        raise ModelError(f"{file} asks to run its own code (auto_map), which fovea never runs")
    weights = find_weights(path)
    if not weights.name.removesuffix(".index.json").endswith(".safetensors"):
        raise ModelError(
            f"{folder} has its weights as {weights.name}; fovea reads a {kind} only from "
            "safetensors: convert it with save_pretrained"
        )
    name = FAMILIES[kind].width_tensor
    shape = stored_shapes(weights).get(name)
    if shape is None or len(shape) != 2:
        raise ModelError(f"{weights} lacks {name}; it is damaged or not a {kind}")
    preprocess = preprocess_of(folder)
    _check_size(file, config, preprocess)
    return FamilyModel(kind, shape[0], preprocess)


def check_usable(kind: str, folder: Path) -> None:
    """Raise ``ModelError`` if ``transformers`` or the model's tokenizer is missing."""
    if find_spec("transformers") is None:
        raise ModelError(
            f"{folder.name} is a {kind}, which needs an extra: pip install 'fovea[transformers]'"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer; put the model's own tokenizer.json there")


def _asks_for_code(part: Any) -> bool:
    """Whether some part of a configuration names a class that would have to be downloaded."""
    if not isinstance(part, Mapping):
        return False
    return "auto_map" in part or any(map(_asks_for_code, part.values()))


def _check_size(path: Path, config: Mapping[str, Any], preprocess: Preprocess) -> None:
    """Raise ``ModelError`` if the image tower takes another size than the preprocessing makes."""
    vision = config.get("vision_config")
    name = "patch_size" if preprocess.fit == "patches" else "image_size"
    made = preprocess.patch if preprocess.fit == "patches" else preprocess.size
    wanted = vision.get(name) if isinstance(vision, Mapping) else None
    if isinstance(wanted, int) and wanted != made:
        raise ModelError(
            f"{path} gives the image tower {name} {wanted}, but its preprocessing makes {made}; "
            "put the model's own preprocessor_config.json there"
        )
