"""List a CLIP's tensors and their shapes from its configuration, and the reverse; no torch.

Names are those of the published checkpoints. Those with ``visual.`` belong to the image tower, all
others but ``logit_scale`` to the text tower.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

from fovea.search.clip.config import (
    EFFICIENTNET_POOLED,
    EFFICIENTNET_STEM,
    BertConfig,
    ClipConfig,
    EfficientNetConfig,
    TextConfig,
    VisionConfig,
    block_shapes,
)
from fovea.search.clip.errors import ModelError

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

HEAD_WIDTH = 64  # of every published model (Radford et al. 2021, tables 19 and 20)
EXPANSION = 4  # of a bottleneck's last convolution


def tower_of(name: str) -> str | None:
    """Return ``image`` or ``text``, or None for ``logit_scale``, which belongs to both."""
    if name == "logit_scale":
        return None
    return "image" if name.startswith("visual.") else "text"


def is_projection(name: str) -> bool:
    """Whether a tensor leads from a tower to the embeddings of both.

    Such tensors are new where pretrained towers are joined.
    """
    top = ("logit_scale", "text_projection", "visual.proj", "visual.querypool.")
    return name.startswith((*top, "visual.attnpool.c_proj."))


def expected_shapes(config: ClipConfig) -> Shapes:
    """Return the shape of every tensor in the state dict of ``CLIP(config)``."""
    vision, text, d = config.vision, config.text, config.embed_dim
    shapes: Shapes = {"logit_scale": (), "text_projection": (text.width, d)}
    shapes |= _bert(text) if isinstance(text, BertConfig) else _causal_transformer(text)
    if isinstance(vision, EfficientNetConfig):
        return shapes | _efficientnet(vision, d)
    if isinstance(vision.layers, int):
        return shapes | _vision_transformer(vision, vision.layers, d)
    return shapes | _resnet(vision, vision.layers, d)


def config_from_shapes(shapes: Mapping[str, Shape]) -> ClipConfig:
    """Infer the configuration of an original checkpoint from its tensors' shapes.

    What shapes do not show is assumed to be as published: heads of 64, QuickGELU, the mean and
    deviation. Raise ``ModelError`` if a tower is missing or out of shape.
    """
    try:
        vocabulary, width = shapes["token_embedding.weight"]
        context = shapes["positional_embedding"][0]
        embed_dim = shapes["text_projection"][1]
        layers = _count(shapes, r"transformer\.resblocks\.(\d+)\.")
        text = TextConfig(context, vocabulary, width, max(1, width // HEAD_WIDTH), layers)
        return ClipConfig(embed_dim, _vision_config(shapes), text)
    except (KeyError, ValueError, IndexError) as exc:
        raise ModelError(f"the weights are not a CLIP's: {exc} is missing or out of shape") from exc


def _vision_config(shapes: Mapping[str, Shape]) -> VisionConfig:
    if "visual.proj" in shapes:
        width, _, patch, _ = shapes["visual.conv1.weight"]
        grid = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
        layers = _count(shapes, r"visual\.transformer\.resblocks\.(\d+)\.")
        return VisionConfig(grid * patch, layers, width, max(1, width // HEAD_WIDTH), patch)
    width = shapes["visual.layer1.0.conv1.weight"][0]
    one, two, three, four = (_count(shapes, rf"visual\.layer{n}\.(\d+)\.") for n in (1, 2, 3, 4))
    side = round((shapes["visual.attnpool.positional_embedding"][0] - 1) ** 0.5)
    heads = max(1, width * 32 // HEAD_WIDTH)
    return VisionConfig(side * 32, (one, two, three, four), width, heads)


def _count(names: Iterable[str], pattern: str) -> int:
    found = (re.match(pattern, name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _pair(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _blocks(name: str, width: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(layers):
        block = f"{name}.resblocks.{layer}"
        shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
        shapes |= _linear(f"{block}.attn.out_proj", width, width)
        shapes |= _pair(f"{block}.ln_1", width) | _pair(f"{block}.ln_2", width)
        shapes |= _linear(f"{block}.mlp.c_fc", width, 4 * width)
        shapes |= _linear(f"{block}.mlp.c_proj", 4 * width, width)
    return shapes


def _causal_transformer(config: TextConfig) -> Shapes:
    return {
        "token_embedding.weight": (config.vocab_size, config.width),
        "positional_embedding": (config.context_length, config.width),
        **_pair("ln_final", config.width),
        **_blocks("transformer", config.width, config.layers),
    }


def _bert(config: BertConfig) -> Shapes:
    width, tables = config.width, "bert.embeddings"
    shapes: Shapes = {
        f"{tables}.word_embeddings.weight": (config.vocab_size, width),
        f"{tables}.position_embeddings.weight": (config.context_length, width),
        f"{tables}.token_type_embeddings.weight": (config.segments, width),
        **_pair(f"{tables}.LayerNorm", width),
    }
    for number in range(config.layers):
        layer = f"bert.encoder.layer.{number}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{name}", width, width)
        shapes |= _linear(f"{layer}.attention.output.dense", width, width)
        shapes |= _pair(f"{layer}.attention.output.LayerNorm", width)
        shapes |= _linear(f"{layer}.intermediate.dense", width, 4 * width)
        shapes |= _linear(f"{layer}.output.dense", 4 * width, width)
        shapes |= _pair(f"{layer}.output.LayerNorm", width)
    return shapes


def _vision_transformer(config: VisionConfig, layers: int, embed_dim: int) -> Shapes:
    width, patch = config.width, config.patch_size or 1
    return {
        "visual.class_embedding": (width,),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.positional_embedding": ((config.image_size // patch) ** 2 + 1, width),
        "visual.proj": (width, embed_dim),
        **_pair("visual.ln_pre", width),
        **_pair("visual.ln_post", width),
        **_blocks("visual.transformer", width, layers),
    }


def _resnet(config: VisionConfig, stages: Shape, embed_dim: int) -> Shapes:
    width, half = config.width, config.width // 2
    shapes: Shapes = {}
    for number, (inputs, outputs) in enumerate(pairwise((3, half, half, width)), start=1):
        shapes |= _convolution("visual.", number, inputs, outputs, 3)
    inputs = width
    for stage, blocks in enumerate(stages):
        planes = width << stage
        for block in range(blocks):
            shapes |= _bottleneck(f"visual.layer{stage + 1}.{block}.", inputs, planes, block == 0)
            inputs = planes * EXPANSION
    pool, wide = "visual.attnpool", width * 32
    shapes[f"{pool}.positional_embedding"] = ((config.image_size // 32) ** 2 + 1, wide)
    for name in ("q_proj", "k_proj", "v_proj"):
        shapes |= _linear(f"{pool}.{name}", wide, wide)
    return shapes | _linear(f"{pool}.c_proj", wide, embed_dim)


def _bottleneck(name: str, inputs: int, planes: int, first: bool) -> Shapes:
    outputs = planes * EXPANSION
    shapes = _convolution(name, 1, inputs, planes, 1) | _convolution(name, 2, planes, planes, 3)
    shapes |= _convolution(name, 3, planes, outputs, 1)
    if first:
        shapes[f"{name}downsample.0.weight"] = (outputs, inputs, 1, 1)
        shapes |= _norm(f"{name}downsample.1", outputs)
    return shapes


def _convolution(name: str, number: int, inputs: int, outputs: int, side: int) -> Shapes:
    weight = {f"{name}conv{number}.weight": (outputs, inputs, side, side)}
    return weight | _norm(f"{name}bn{number}", outputs)


def _norm(name: str, width: int) -> Shapes:
    running = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return _pair(name, width) | running | {f"{name}.num_batches_tracked": ()}


def _efficientnet(config: EfficientNetConfig, embed_dim: int) -> Shapes:
    stem, pooled = EFFICIENTNET_STEM, EFFICIENTNET_POOLED
    shapes: Shapes = {"visual.conv_stem.weight": (stem, 3, 3, 3)} | _norm("visual.bn0", stem)
    last = stem
    for number, shape in enumerate(block_shapes(config)):
        name, inner, last = f"visual.blocks.{number}", shape.inner, shape.outputs
        if shape.expands:
            shapes[f"{name}.expand_conv.weight"] = (inner, shape.inputs, 1, 1)
            shapes |= _norm(f"{name}.bn0", inner)
        shapes[f"{name}.depthwise_conv.weight"] = (inner, 1, shape.kernel, shape.kernel)
        shapes[f"{name}.project_conv.weight"] = (shape.outputs, inner, 1, 1)
        shapes |= _norm(f"{name}.bn1", inner) | _norm(f"{name}.bn2", shape.outputs)
    shapes["visual.conv_head.weight"] = (pooled, last, 1, 1)
    shapes |= _norm("visual.bn1", pooled)
    inputs = pooled + (config.class_width if config.classes else 0)
    if config.classes:
        shapes |= _linear("visual.fc", pooled, config.classes)
        shapes["visual.class_embedding"] = (config.classes, config.class_width)
    shapes["visual.projection.proj"] = (inputs, embed_dim)
    if config.hidden:
        shapes |= _linear("visual.projection.c_fc", inputs, config.hidden)
        shapes |= _linear("visual.projection.c_proj", config.hidden, embed_dim)
    if config.queries:
        pool = "visual.querypool"
        shapes[f"{pool}.queries"] = (config.queries, embed_dim)
        shapes |= _linear(f"{pool}.inputs", last, embed_dim) | _pair(f"{pool}.norm", embed_dim)
        for name in ("key", "value"):
            shapes |= _linear(f"{pool}.{name}", embed_dim, embed_dim)
        shapes |= _linear(f"{pool}.c_proj", config.queries * embed_dim, embed_dim)
    return shapes
