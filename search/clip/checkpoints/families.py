"""Which models of ``transformers`` are CLIPs of another family, and what they need; no torch.

Two towers into one space, as CLIP has, but other towers: Chinese-CLIP (Yang et al. 2022,
arXiv:2211.01335), SigLIP (Zhai et al. 2023, arXiv:2303.15343) and SigLIP 2 (Tschannen et al. 2025,
arXiv:2502.14786), AltCLIP (Chen et al. 2022, arXiv:2211.06679), MetaCLIP 2 (Chuang et al. 2025,
arXiv:2507.22062), and any two towers joined as a ``VisionTextDualEncoderModel``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import Preprocess

from .checkpoint import find_weights, stored_shapes
from .image_processor import preprocess_of, read_json

__all__ = ["FAMILIES", "TOKENIZER_FILES", "Family", "check_usable", "family_of", "kind_of"]

_VISUAL = "visual_projection.weight"
_HEAD = "text_model.head.weight"

# The configuration's model_type -> the class of ``transformers``, and the tensor that has as many
# rows as an embedding has values.
FAMILIES: dict[str, tuple[str, str]] = {
    "altclip": ("AltCLIPModel", _VISUAL),
    "chinese_clip": ("ChineseCLIPModel", _VISUAL),
    "metaclip_2": ("MetaClip2Model", _VISUAL),
    "siglip": ("SiglipModel", _HEAD),
    "siglip2": ("Siglip2Model", _HEAD),
    "vision-text-dual-encoder": ("VisionTextDualEncoderModel", _VISUAL),
}
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "vocab.json",
)


@dataclass(frozen=True, slots=True)
class Family:
    """A model of another family: its kind, the width of its embeddings, what pixels it takes."""

    kind: str  # as its configuration calls it
    dim: int
    preprocess: Preprocess


def kind_of(config: Mapping[str, Any]) -> str | None:
    """The family that a ``config.json`` describes; None for a CLIP and whatever else."""
    if "model_cfg" in config or "vision_cfg" in config:
        return None  # open_clip's, or fovea's own
    kind = config.get("model_type")
    return kind if isinstance(kind, str) and kind in FAMILIES else None


def family_of(place: Path) -> Family | None:
    """Look at a model's folder or weights file; None where it is no other family's.

    Raise ``ModelError`` for one that is, and cannot be used.
    """
    folder = place if place.is_dir() else place.parent
    path = folder / "config.json"
    if not path.is_file():
        return None
    config = read_json(path)
    kind = kind_of(config)
    if kind is None:
        return None
    if any(_asks_for_code(part) for part in config.values()):
        raise ModelError(f"{path} asks for a program of its own (auto_map), which fovea never runs")
    weights = find_weights(place)
    if not weights.name.removesuffix(".index.json").endswith(".safetensors"):
        raise ModelError(
            f"{folder} has its weights as {weights.name}; fovea reads a {kind} from safetensors "
            "alone: save it with save_pretrained"
        )
    name = FAMILIES[kind][1]
    shape = stored_shapes(weights).get(name)
    if shape is None or len(shape) != 2:
        raise ModelError(f"{weights} lacks {name}; it is damaged or no {kind}")
    preprocess = preprocess_of(folder)
    _check_size(path, config, preprocess)
    return Family(kind, shape[0], preprocess)


def check_usable(kind: str, folder: Path) -> None:
    """Raise ``ModelError`` where this machine or the folder lacks what a family needs."""
    if find_spec("transformers") is None:
        raise ModelError(
            f"{folder.name} is a {kind}, which needs an extra: pip install 'fovea[transformers]'"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer; put the model's own tokenizer.json there")


def _asks_for_code(part: Any) -> bool:
    """Whether some part of a configuration names a class that would have to be downloaded."""
    return any("auto_map" in found for found in _mappings(part))


def _mappings(part: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, Mapping):
        yield part
        for value in part.values():
            yield from _mappings(value)


def _check_size(path: Path, config: Mapping[str, Any], preprocess: Preprocess) -> None:
    """Raise ``ModelError`` where the image tower takes other pictures than are made for it."""
    vision = config.get("vision_config")
    name = "patch_size" if preprocess.fit == "patches" else "image_size"
    made = preprocess.patch if preprocess.fit == "patches" else preprocess.size
    wanted = vision.get(name) if isinstance(vision, Mapping) else None
    if isinstance(wanted, int) and wanted != made:
        raise ModelError(
            f"{path} has an image tower of {name} {wanted}, where its pictures are made for {made}"
        )
