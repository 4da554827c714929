"""Prepare a model for fine-tuning: choose the trainable parameters and the input size."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.search.clip.config import checked
from fovea.search.clip.model import CLIP, AttentionPool2d, VisionTransformer


def choose_trainable(model: CLIP, tune: str) -> None:
    """Make "all" trainable, or the last ``tune`` blocks of each tower and the projections."""
    if tune == "all":
        return
    for tensor in model.parameters():
        tensor.requires_grad_(False)
    count = int(tune)
    visual = model.visual
    parts: list[nn.Module] = [model.ln_final]
    for blocks in (list(model.transformer.resblocks), visual.blocks):
        parts += blocks[first_tuned(len(blocks), count) :]
    if isinstance(visual, VisionTransformer):
        parts.append(visual.ln_post)
        visual.proj.requires_grad_(True)
    else:
        parts.append(visual.attnpool)
    for part in parts:
        part.requires_grad_(True)
    model.text_projection.requires_grad_(True)
    model.logit_scale.requires_grad_(True)


def first_tuned(blocks: int, count: int) -> int:
    """Return the number of the first trainable block if the last ``count`` of ``blocks`` are."""
    return max(0, blocks - count)


def freeze_batch_norm(model: CLIP, tune: str) -> None:
    """Keep the statistics of a partly tuned tower, which a small data set would spoil."""
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
