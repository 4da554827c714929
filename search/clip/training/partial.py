"""Prepare a model for fine-tuning: choose the trainable parameters and the input size."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.search.clip.config import EfficientNetConfig, checked
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.model import CLIP, AttentionPool2d, VisionTransformer


def choose_trainable(model: CLIP, image: str, text: str) -> None:
    """Make "all" of a tower trainable, or only its last N blocks and what lies above them.

    "0" locks it but for its projection: with that go a Vision Transformer's last layer norm, a
    ResNet's attention pool and a causal Transformer's last layer norm. Of an EfficientNet, the last
    convolution is trained with one block or more. The classifier that helps its head, and the
    embeddings of the class names, always stay as they are.
    """
    for tensor in model.parameters():
        tensor.requires_grad_(False)
    for chosen in (*_image_tensors(model, image), *_text_tensors(model, text), model.logit_scale):
        chosen.requires_grad_(True)


def _image_tensors(model: CLIP, tune: str) -> list[Tensor]:
    visual = model.visual
    if tune == "all":
        locked: list[Tensor] = []
        if isinstance(visual, EfficientNetLite):
            locked = visual.class_tensors()
        return [t for t in visual.parameters() if not any(t is other for other in locked)]
    blocks = list(visual.blocks)
    parts = blocks[first_tuned(len(blocks), int(tune)) :]
    alone: list[Tensor] = []
    if isinstance(visual, EfficientNetLite):
        parts += [visual.projection, *([visual.querypool] if visual.querypool else ())]
        parts += [visual.conv_head, visual.bn1] if tune != "0" else []
    elif isinstance(visual, VisionTransformer):
        parts.append(visual.ln_post)
        alone.append(visual.proj)
    else:
        parts.append(visual.attnpool)
    return [*(tensor for part in parts for tensor in part.parameters()), *alone]


def _text_tensors(model: CLIP, tune: str) -> list[Tensor]:
    if tune == "all":
        return [t for name, t in model.named_parameters() if not name.startswith("visual.")]
    blocks = model.text_blocks
    parts = blocks[first_tuned(len(blocks), int(tune)) :]
    if model.bert is None:
        parts.append(model.ln_final)
    return [*(tensor for part in parts for tensor in part.parameters()), model.text_projection]


def first_tuned(blocks: int, count: int) -> int:
    """Return the number of the first trainable block if the last ``count`` of ``blocks`` are."""
    return max(0, blocks - count)


def freeze_batch_norm(model: CLIP, tune: str) -> None:
    """Keep the statistics of a partly tuned image tower, which a small data set would spoil."""
    if tune == "all":
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def resized(model: CLIP, image_size: int) -> CLIP:
    """Return the model for another input size, in pixels, its position embeddings resampled.

    The grid is interpolated bicubically (Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.2);
    the first row, for the class token or the mean, is kept. Raise ``ModelError`` for a size that
    the image tower cannot take.
    """
    old = model.config
    new = CLIP(checked(replace(old, vision=replace(old.vision, image_size=image_size))))
    state = model.state_dict()
    if isinstance(old.vision, EfficientNetConfig):  # takes any size
        new.load_state_dict(state)
        return new.train(model.training)
    pool = isinstance(getattr(model.visual, "attnpool", None), AttentionPool2d)
    name = f"visual.{'attnpool.' if pool else ''}positional_embedding"
    state[name] = _resampled(state[name], len(new.state_dict()[name]))
    new.load_state_dict(state)
    return new.train(model.training)


def _resampled(rows: Tensor, wanted: int) -> Tensor:
    """Resample the grid in rows 1 onward of (1 + side², w) to ``wanted`` rows in all."""
    if len(rows) == wanted:
        return rows
    first, grid = rows[:1], rows[1:]
    side, new = math.isqrt(len(grid)), math.isqrt(wanted - 1)
    square = grid.T.reshape(1, -1, side, side).float()  # (1, w, side, side)
    square = F.interpolate(square, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([first, square.flatten(2)[0].T.to(rows.dtype)])
