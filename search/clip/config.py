"""The configuration of a CLIP: both towers and the preprocessing; imports no torch.

Radford et al. 2021 (arXiv:2103.00020), section 2.4 and tables 19 and 20, describe the family: a
Vision Transformer or a modified ResNet beside a causal text Transformer.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .errors import ModelError

Activation = Literal["quick_gelu", "gelu"]
Colour = tuple[float, float, float]
Squaring = Literal["crop", "squash"]
TokenizerKind = Literal["bpe", "wordpiece"]

# Mean and standard deviation of the pixels (0 to 1, red, green, blue) that the published models
# were trained with.
PUBLISHED_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
PUBLISHED_STD: Colour = (0.26862954, 0.26130258, 0.27577711)

# open_clip's names for how an image becomes a square
_SQUARINGS: dict[str, Squaring] = {"shortest": "crop", "squash": "squash"}

VOCABULARY_FILES = ("bpe_simple_vocab_16e6.txt.gz", "bpe.txt.gz", "merges.txt")
PACKED_VOCABULARY = "tokenizer.json"  # where newer versions of transformers keep it
PUBLISHED_VOCABULARY_SIZE = 49408

RESNET_STRIDE = 32  # pixels of the image per position of the map that attention pools
RESNET_POOL = 32  # channels of that map per unit of the tower's width


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The image tower.

    A whole number of ``layers`` means a Vision Transformer, four of them the stages of a modified
    ResNet. ``image_size`` and ``patch_size`` are in pixels; ``patch_size`` is None for a ResNet.
    """

    image_size: int
    layers: int | tuple[int, int, int, int]
    width: int
    heads: int
    patch_size: int | None = None

    @property
    def is_resnet(self) -> bool:
        """Whether the tower is a modified ResNet."""
        return not isinstance(self.layers, int)


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The text tower; ``context_length`` counts token positions, the two specials included."""

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Both towers and their preprocessing; ``embed_dim`` is the width d of an embedding.

    For ``fit``, ``resize`` and ``resampling`` see ``preprocess.Preprocess``.
    """

    embed_dim: int
    vision: VisionConfig
    text: TextConfig
    activation: Activation = "quick_gelu"
    mean: Colour = field(default=PUBLISHED_MEAN)
    std: Colour = field(default=PUBLISHED_STD)
    fit: Squaring = "crop"
    resize: int = 0
    resampling: str = "BICUBIC"

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration in open_clip's layout, ready for ``json.dump``.

        Preprocessing is given where it differs from open_clip's defaults.
        """
        vision = {name: value for name, value in asdict(self.vision).items() if value is not None}
        pixels: dict[str, Any] = {"mean": list(self.mean), "std": list(self.std)}
        if self.fit == "squash":
            pixels["resize_mode"] = "squash"
        if self.resampling != "BICUBIC":
            pixels["interpolation"] = self.resampling.lower()
        if self.resize:  # fovea's extension
            pixels["resize"] = self.resize
        return {
            "model_cfg": {
                "embed_dim": self.embed_dim,
                "quick_gelu": self.activation == "quick_gelu",
                "vision_cfg": vision,
                "text_cfg": asdict(self.text),
            },
            "preprocess_cfg": pixels,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClipConfig":
        """Read what ``to_dict`` or open_clip wrote; raise ``ModelError`` for an invalid field.

        Where heads are missing they follow from open_clip's default ``head_width`` of 64.
        """
        try:
            model = data.get("model_cfg", data)
            pixels = data.get("preprocess_cfg", {})
            vision, text = _vision(model["vision_cfg"]), model["text_cfg"]
            config = cls(
                embed_dim=int(model["embed_dim"]),
                vision=vision,
                text=TextConfig(
                    context_length=int(text.get("context_length", 77)),
                    vocab_size=int(text.get("vocab_size", PUBLISHED_VOCABULARY_SIZE)),
                    width=int(text["width"]),
                    heads=int(text["heads"]),
                    layers=int(text["layers"]),
                ),
                activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
                **_pixels(pixels, vision.image_size),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise ModelError(f"the model's configuration is not a CLIP's: {exc!r}") from exc
        return checked(config)


def checked(config: ClipConfig) -> ClipConfig:
    """Return the configuration; raise ``ModelError`` if no model can have these numbers."""
    vision, text = config.vision, config.text
    stages = [vision.layers] if isinstance(vision.layers, int) else vision.layers
    if min(stages) < 1:
        raise ModelError(f"the image tower's layers are {vision.layers}; each should be 1 or more")
    if vision.patch_size is not None and vision.patch_size < 1:
        raise ModelError(f"the image tower's patch_size is {vision.patch_size}, not 1 or more")
    least = vision.patch_size or RESNET_STRIDE
    if vision.is_resnet and vision.image_size % RESNET_STRIDE:
        raise ModelError(
            f"a ResNet takes images of {RESNET_STRIDE}, {2 * RESNET_STRIDE}, … pixels a side, not "
            f"{vision.image_size}"
        )
    if vision.image_size < least:
        raise ModelError(f"the image_size is {vision.image_size}; it should be {least} or more")
    if vision.is_resnet and vision.width < 2:  # its first convolution has half as many channels
        raise ModelError(f"the image tower's width is {vision.width}; a ResNet's is 2 or more")
    pool = RESNET_POOL if vision.is_resnet else 1
    for name, width, heads in (
        ("image", vision.width * pool, vision.heads),
        ("text", text.width, text.heads),
    ):
        if heads < 1 or width < 1 or width % heads:
            raise ModelError(
                f"the {name} tower's width, {width}, is not divisible by its {heads} heads"
            )
    if min(config.embed_dim, text.layers, text.vocab_size, text.context_length - 2) < 1:
        raise ModelError("the model's configuration has a width, depth or length below 1")
    return config


def _vision(data: Mapping[str, Any]) -> VisionConfig:
    layers = data["layers"]
    width, head_width = int(data["width"]), int(data.get("head_width", 64))
    size = data["image_size"]
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise ValueError(f"image_size {size} is not square")
        size = size[0]
    if isinstance(layers, list | tuple):
        if len(layers) != 4:
            raise ValueError(f"a ResNet has 4 stages, not {len(layers)}")
        stages = (int(layers[0]), int(layers[1]), int(layers[2]), int(layers[3]))
        heads = int(data.get("heads", width * RESNET_POOL // head_width))
        return VisionConfig(int(size), stages, width, heads)
    heads = int(data.get("heads", width // head_width))
    return VisionConfig(int(size), int(layers), width, heads, int(data["patch_size"]))


def _pixels(data: Mapping[str, Any], side: int) -> dict[str, Any]:
    """Read open_clip's ``preprocess_cfg``; raise ``ValueError`` for what fovea does not support."""
    given = {name: value for name, value in data.items() if value is not None}
    size = given.get("size", side)
    if size not in (side, [side, side], (side, side)):
        raise ValueError(f"size {size} in preprocess_cfg is not the image_size, {side}")
    fit = given.get("resize_mode", "shortest")
    if fit not in _SQUARINGS:
        raise ValueError(f"resize_mode {fit} is not one of {', '.join(_SQUARINGS)}")
    resampling = str(given.get("interpolation", "bicubic")).upper()
    if resampling == "RANDOM":
        resampling = "BICUBIC"  # as in open_clip's evaluation
    if resampling not in ("BICUBIC", "BILINEAR"):
        raise ValueError(f"interpolation {resampling.lower()} is neither bicubic nor bilinear")
    if given.get("mode", "RGB") != "RGB":
        raise ValueError(f"mode {given['mode']} is not RGB")
    mean, std = colour(given.get("mean", PUBLISHED_MEAN)), colour(given.get("std", PUBLISHED_STD))
    if min(std) <= 0:
        raise ValueError(f"invalid std {std}; each value should be above 0")
    return {
        "mean": mean,
        "std": std,
        "fit": _SQUARINGS[fit],
        "resize": int(given.get("resize", 0)),
        "resampling": resampling,
    }


def colour(values: Any) -> Colour:
    """Return red, green and blue as floats; raise ``ValueError`` for anything else."""
    numbers = [float(value) for value in values] if isinstance(values, list | tuple) else []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"a mean or std should be three numbers, not {values!r}")
    return numbers[0], numbers[1], numbers[2]
