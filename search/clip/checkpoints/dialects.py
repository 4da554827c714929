"""Translate the three dialects of CLIP checkpoints into the published names; imports no torch.

The dialects are the original release (OpenAI's, whose names are used throughout), Hugging Face
``transformers`` folders, and open_clip's files, some with the text tower under ``text.``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fovea.search.clip.config import Activation, ClipConfig, TextConfig, VisionConfig, checked
from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import Preprocess

from .int8 import SCALE
from .shapes import Shape, Shapes

# Entries that are not weights: the original release's sizes, and buffers of the other two.
_NO_WEIGHTS = re.compile(
    r"(input_resolution|context_length|vocab_size|(text\.)?attn_mask|.*\.position_ids)$"
)

_HUB_NAMES = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # the published name has this slip
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.post_layernorm.": "visual.ln_post.",
}
_HUB_BLOCK_NAMES = {
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
_TRANSPOSED = {  # of transformers, and open_clip's where it is a module
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_QUERY = re.compile(r"\.self_attn\.q_proj\.(weight|bias)$")
_KEY_OR_VALUE = re.compile(r"\.self_attn\.[kv]_proj\.(weight|bias)$")

# Defaults of transformers' CLIPConfig.
_HUB_TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_HUB_VISION: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


# Options of open_clip's towers that the weights' shapes confirm, or that only training uses.
_OPEN_CLIP_SIZES = {
    *("image_size", "patch_size", "layers", "width", "head_width", "heads", "mlp_ratio"),
    *("context_length", "vocab_size", "patch_dropout", "output_tokens"),
}
# Those of the towers that have a ``kind``, which open_clip lacks.
_KIND_SIZES = {
    *("kind", "width_factor", "depth_factor", "classes", "class_width", "hidden", "queries"),
    "segments",
}
# Its defaults.
_OPEN_CLIP_DEFAULTS: dict[tuple[str, str], Any] = {
    ("vision_cfg", "pool_type"): "tok",
    ("vision_cfg", "pos_embed_type"): "learnable",
    ("vision_cfg", "norm_kwargs"): {"eps": 1e-5},
    ("text_cfg", "pool_type"): "argmax",
    ("text_cfg", "proj_type"): "linear",
    ("text_cfg", "norm_kwargs"): {"eps": 1e-5},
}


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """How to make one published tensor: concatenate ``sources`` by rows, or transpose one.

    ``scales`` are those of sources stored as int8 (``int8.py``).
    """

    sources: tuple[str, ...]
    shape: Shape
    is_transposed: bool = False
    scales: tuple[str, ...] = ()

    @property
    def stored(self) -> tuple[str, ...]:
        """The names of all tensors to read."""
        return self.sources + self.scales


def tensor_plans(stored: Mapping[str, Shape]) -> dict[str, TensorPlan]:
    """Plan how to make each published tensor from the ``stored`` ones.

    Names of no known dialect stay as they are, for the caller to refuse.
    """
    # DistributedDataParallel puts every name under "module."
    prefix = "module." if stored and all(name.startswith("module.") for name in stored) else ""
    plain = {name: name.removeprefix(prefix) for name in stored}
    paired = {name + SCALE for name in stored}
    plain = {
        name: short
        for name, short in plain.items()
        if not _NO_WEIGHTS.match(short) and name not in paired
    }
    is_hub = any(short.startswith(("text_model.", "vision_model.")) for short in plain.values())
    plans: dict[str, TensorPlan] = {}
    sources: tuple[str, ...]
    for name, short in plain.items():
        shape, sources = stored[name], (name,)
        if is_hub and _KEY_OR_VALUE.search(short):
            continue  # comes with its query
        if is_hub and _QUERY.search(short):
            sources = tuple(name.replace(".q_proj.", f".{kind}_proj.") for kind in "qkv")
            shape = (sum(stored[each][0] for each in sources if each in stored), *shape[1:])
            short = _QUERY.sub(r".attn.in_proj_\1", short)
        short = _hub_name(short) if is_hub else short.removeprefix("text.")
        if is_transposed := short in _TRANSPOSED:
            short, shape = _TRANSPOSED[short], shape[::-1]
        scales = tuple(each + SCALE for each in sources if each + SCALE in stored)
        plans[short] = TensorPlan(sources, shape, is_transposed, scales)
    return plans


def shapes_of(plan: Mapping[str, TensorPlan]) -> Shapes:
    """Return the shapes that the published tensors will have."""
    return {name: part.shape for name, part in plan.items()}


def _hub_name(name: str) -> str:
    for theirs, ours in _HUB_NAMES.items():
        if name.startswith(theirs):
            name = ours + name[len(theirs) :]
            break
    for theirs, ours in _HUB_BLOCK_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def config_from_json(data: Mapping[str, Any]) -> ClipConfig:
    """Read a ``config.json`` of fovea, open_clip or ``transformers``.

    Raise ``ModelError`` if it is not a CLIP, or one with parts that fovea does not support.
    """
    if is_open_clip(data):
        _check_open_clip(data.get("model_cfg", data))
        return ClipConfig.from_dict(data)
    if data.get("model_type") == "clip" or "vision_config" in data:
        return checked(_hub_config(data))
    kind = data.get("model_type", "an unnamed model")
    raise ModelError(f"its configuration describes {kind}, not a CLIP")


def is_open_clip(data: Mapping[str, Any]) -> bool:
    """Whether a configuration has the layout of open_clip, which fovea shares."""
    return "model_cfg" in data or "vision_cfg" in data


def with_preprocessing(config: ClipConfig, pixels: Preprocess) -> ClipConfig:
    """Add to a ``transformers`` configuration the preprocessing described beside it.

    Raise ``ModelError`` if the two disagree.
    """
    if pixels.fit == "patches" or pixels.size != config.vision.image_size:
        raise ModelError(
            f"its preprocessing makes images of {pixels.size} pixels a side, but its image tower "
            f"takes {config.vision.image_size}"
        )
    return replace(
        config,
        mean=pixels.mean,
        std=pixels.std,
        fit=pixels.fit,
        resize=pixels.resize,
        resampling=pixels.resampling,
    )


def _check_open_clip(data: Mapping[str, Any]) -> None:
    """Refuse options of open_clip that change the embedding without changing a tensor's name.

    Those are all but the sizes, which the weights are checked against, and options of training.
    """
    towers = {tower: dict(data.get(tower) or {}) for tower in ("vision_cfg", "text_cfg")}
    odd = [
        f"{name} {value}" if isinstance(value, str | dict) else name
        for tower, options in towers.items()
        for name, value in options.items()
        if value
        and name not in _OPEN_CLIP_SIZES
        and not ("kind" in options and name in _KIND_SIZES)
        and value != _OPEN_CLIP_DEFAULTS.get((tower, name))
    ]
    if odd:
        raise ModelError(
            f"its configuration asks for {', '.join(odd)}, which fovea does not support"
        )


def _hub_config(data: Mapping[str, Any]) -> ClipConfig:
    if data.get("model_type", "clip") != "clip":
        raise ModelError(f"its configuration describes {data['model_type']}, not a CLIP")
    text = _HUB_TEXT | dict(data.get("text_config") or {})
    vision = _HUB_VISION | dict(data.get("vision_config") or {})
    try:
        for tower in (text, vision):
            if float(tower["layer_norm_eps"]) != 1e-5:
                raise ModelError(f"its layer_norm_eps is {tower['layer_norm_eps']}, not 1e-05")
        activation: Activation = text["hidden_act"]
        if activation != vision["hidden_act"]:
            other = vision["hidden_act"]
            raise ModelError(f"its towers differ in hidden_act: {activation} and {other}")
        if activation not in ("quick_gelu", "gelu"):
            raise ModelError(f"its hidden_act is {activation}; fovea supports quick_gelu and gelu")
        return ClipConfig(
            embed_dim=int(data.get("projection_dim", 512)),
            vision=VisionConfig(
                image_size=int(vision["image_size"]),
                layers=int(vision["num_hidden_layers"]),
                width=int(vision["hidden_size"]),
                heads=int(vision["num_attention_heads"]),
                patch_size=int(vision["patch_size"]),
            ),
            text=TextConfig(
                context_length=int(text["max_position_embeddings"]),
                vocab_size=int(text["vocab_size"]),
                width=int(text["hidden_size"]),
                heads=int(text["num_attention_heads"]),
                layers=int(text["num_hidden_layers"]),
            ),
            activation=activation,
        )
    except (TypeError, ValueError, OverflowError) as exc:
        raise ModelError(f"its configuration is not a CLIP's: {exc}") from exc
