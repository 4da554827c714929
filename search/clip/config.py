"""The configuration of a CLIP: both towers and the preprocessing; imports no torch.

Towers are parts: any image tower with any text tower. Radford et al. 2021 (arXiv:2103.00020),
section 2.4 and tables 19 and 20, describe the published family: a Vision Transformer or a modified
ResNet beside a causal text Transformer. An EfficientNet-Lite and a BERT are fovea's additions.
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
WORDPIECE_FILES = ("vocab.txt", "vocab.txt.gz")
PACKED_VOCABULARY = "tokenizer.json"  # where newer versions of transformers keep it
PUBLISHED_VOCABULARY_SIZE = 49408

RESNET_STRIDE = 32  # pixels of the image per position of the map that attention pools
RESNET_POOL = 32  # channels of that map per unit of the tower's width


EFFICIENTNET_STEM = 32  # channels of the first convolution
EFFICIENTNET_POOLED = 1280  # of the last
BERT_NORM_EPS = 1e-12  # of every layer norm of a BERT
MOST_FACTOR = 4.0  # that an EfficientNet-Lite's width or depth is scaled by


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
class EfficientNetConfig:
    """An EfficientNet-Lite as image tower (Tan and Le 2019, arXiv:1905.11946).

    ``width_factor`` and ``depth_factor`` scale the channels and the blocks of Lite0;
    ``image_size`` is in pixels. ``classes`` is the number of classes whose names' embeddings,
    each ``class_width`` wide, help the projection head; 0 without them. ``hidden`` is the width
    of the head's hidden layer, 0 for a linear head. ``queries`` is the number of learned queries
    that look at the feature map beside the mean over it, with ``heads`` heads and as many values
    as an embedding has; 0 without them.
    """

    image_size: int
    width_factor: float = 1.0
    depth_factor: float = 1.0
    classes: int = 0
    class_width: int = 0
    hidden: int = 0
    queries: int = 0
    heads: int = 6


# kernel, blocks, stride, expansion and channels of each stage (table 1, by EfficientNet-B0)
_STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One inverted bottleneck: channels in, inside and out, the kernel's side and its stride."""

    inputs: int
    inner: int
    outputs: int
    kernel: int
    stride: int

    @property
    def expands(self) -> bool:
        """Whether a convolution expands the channels first."""
        return self.inner != self.inputs


def block_shapes(config: EfficientNetConfig) -> list[BlockShape]:
    """Return the blocks of a tower, first to last, its width and depth scaled (section 3.3)."""
    shapes, inputs = [], EFFICIENTNET_STEM
    for number, (kernel, blocks, stride, expansion, channels) in enumerate(_STAGES):
        outputs = _rounded(channels * config.width_factor)
        if 0 < number < len(_STAGES) - 1:
            blocks = math.ceil(blocks * config.depth_factor)
        for block in range(blocks):
            step = 1 if block else stride
            shapes.append(BlockShape(inputs, inputs * expansion, outputs, kernel, step))
            inputs = outputs
    return shapes


def _rounded(channels: float) -> int:
    """Round to a multiple of 8, but never down by more than a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The text tower; ``context_length`` counts token positions, the two specials included."""

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int

    @property
    def tokenizer(self) -> TokenizerKind:
        """The kind of tokenizer that the tower's tokens come from."""
        return "bpe"


@dataclass(frozen=True, slots=True)
class BertConfig:
    """A BERT as text tower (Devlin et al. 2018, arXiv:1810.04805), mean-pooled.

    ``context_length`` counts token positions, the two specials included; ``segments`` the rows of
    the table of segments, of which a text uses the first. The padding token has id 0.
    """

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int
    segments: int = 2

    @property
    def tokenizer(self) -> TokenizerKind:
        """The kind of tokenizer that the tower's tokens come from."""
        return "wordpiece"


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Both towers and their preprocessing; ``embed_dim`` is the width d of an embedding.

    For ``fit``, ``resize`` and ``resampling`` see ``preprocess.Preprocess``.
    """

    embed_dim: int
    vision: VisionConfig | EfficientNetConfig
    text: TextConfig | BertConfig
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
                "vision_cfg": _tower_dict(self.vision),
                "text_cfg": _tower_dict(self.text),
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
            vision = _vision(model["vision_cfg"])
            config = cls(
                embed_dim=int(model["embed_dim"]),
                vision=vision,
                text=_text(model["text_cfg"]),
                activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
                **_pixels(pixels, vision.image_size),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise ModelError(f"the model's configuration is not a CLIP's: {exc!r}") from exc
        return checked(config)


# the names of towers that open_clip's layout has no room for
_KINDS: dict[type, str] = {EfficientNetConfig: "efficientnet_lite", BertConfig: "bert"}


def checked(config: ClipConfig) -> ClipConfig:
    """Return the configuration; raise ``ModelError`` if no model can have these numbers."""
    vision, text = config.vision, config.text
    if isinstance(vision, EfficientNetConfig):
        _check_efficientnet(vision)
        if vision.queries:
            _check_heads("image", config.embed_dim, vision.heads)
    else:
        _check_published(vision)
    _check_heads("text", text.width, text.heads)
    if min(config.embed_dim, text.layers, text.vocab_size, text.context_length - 2) < 1:
        raise ModelError("the model's configuration has a width, depth or length below 1")
    if isinstance(text, BertConfig) and text.segments < 1:
        raise ModelError(f"the text tower has {text.segments} segments; it should have 1 or more")
    return config


def _check_published(vision: VisionConfig) -> None:
    """Check a Vision Transformer or a modified ResNet."""
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
    _check_heads("image", vision.width * (RESNET_POOL if vision.is_resnet else 1), vision.heads)


def _check_heads(tower: str, width: int, heads: int) -> None:
    if heads < 1 or width < 1 or width % heads:
        raise ModelError(
            f"the {tower} tower's width, {width}, is not divisible by its {heads} heads"
        )


def _check_efficientnet(vision: EfficientNetConfig) -> None:
    """Check an EfficientNet-Lite; its largest published factors are 1.4 and 1.8."""
    for name in ("width_factor", "depth_factor"):
        value = getattr(vision, name)
        if not 0 < value <= MOST_FACTOR:
            raise ModelError(f"the image tower's {name} is {value}, not from 0 to {MOST_FACTOR}")
    if vision.image_size < 1:
        raise ModelError(f"the image_size is {vision.image_size}; it should be 1 or more")
    if min(vision.classes, vision.class_width, vision.hidden, vision.queries) < 0:
        raise ModelError("the image tower's head has a width below 0")
    if bool(vision.classes) != bool(vision.class_width):
        raise ModelError("the image tower has classes without class_width, or the reverse")


def _tower_dict(
    tower: VisionConfig | EfficientNetConfig | TextConfig | BertConfig,
) -> dict[str, Any]:
    """Return a tower's fields that are not None, with its ``kind`` if open_clip lacks it."""
    fields = {name: value for name, value in asdict(tower).items() if value is not None}
    return ({"kind": _KINDS[type(tower)]} if type(tower) in _KINDS else {}) | fields


def _kind(data: Mapping[str, Any], known: type) -> bool:
    """Whether a tower is of the one ``kind`` that has a name; raise ``ValueError`` for others."""
    kind = data.get("kind")
    if kind not in (None, _KINDS[known]):
        raise ValueError(f"kind {kind!r} of a tower is unknown")
    return kind is not None


def _vision(data: Mapping[str, Any]) -> VisionConfig | EfficientNetConfig:
    size = data["image_size"]
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise ValueError(f"image_size {size} is not square")
        size = size[0]
    if _kind(data, EfficientNetConfig):
        return EfficientNetConfig(
            image_size=int(size),
            width_factor=float(data.get("width_factor", 1)),
            depth_factor=float(data.get("depth_factor", 1)),
            classes=int(data.get("classes", 0)),
            class_width=int(data.get("class_width", 0)),
            hidden=int(data.get("hidden", 0)),
            queries=int(data.get("queries", 0)),
            heads=int(data.get("heads", 6)),
        )
    layers = data["layers"]
    width, head_width = int(data["width"]), int(data.get("head_width", 64))
    if isinstance(layers, list | tuple):
        if len(layers) != 4:
            raise ValueError(f"a ResNet has 4 stages, not {len(layers)}")
        stages = (int(layers[0]), int(layers[1]), int(layers[2]), int(layers[3]))
        heads = int(data.get("heads", width * RESNET_POOL // head_width))
        return VisionConfig(int(size), stages, width, heads)
    heads = int(data.get("heads", width // head_width))
    return VisionConfig(int(size), int(layers), width, heads, int(data["patch_size"]))


def _text(data: Mapping[str, Any]) -> TextConfig | BertConfig:
    sizes = {name: int(data[name]) for name in ("width", "heads", "layers")}
    if _kind(data, BertConfig):
        return BertConfig(
            context_length=int(data["context_length"]),
            vocab_size=int(data["vocab_size"]),
            segments=int(data.get("segments", 2)),
            **sizes,
        )
    return TextConfig(
        context_length=int(data.get("context_length", 77)),
        vocab_size=int(data.get("vocab_size", PUBLISHED_VOCABULARY_SIZE)),
        **sizes,
    )


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
