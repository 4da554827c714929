"""The towers for inference: the same results as ``model.py`` in less time.

What differs from ``model.py``, which is written to be read and trained:

- bytes go in: the pixels' normalisation is folded into the first layer;
- the first layer of a ViT is one matrix product over the patches;
- QuickGELU becomes SiLU, with its 1.702 folded into the layers around it;
- the queries' scale is folded into their projection;
- where one position is read out, the last block computes only that;
- batch normalisation is folded into the convolutions before it;
- weights are packed for the machine (``kernels.py``).
"""

import torch
from torch import Tensor, nn

from fovea.search.clip.config import BertConfig, ClipConfig, EfficientNetConfig
from fovea.search.clip.model import CLIP

from .base import Tower
from .bert_tower import BertTower
from .convolutional_towers import EfficientNetTower, ResNetTower
from .kernels import State, Target
from .transformer_towers import TextTower, VisionTower

__all__ = ["image_module", "image_tower", "text_tower"]


def image_tower(state: State, config: ClipConfig, target: Target) -> Tower:
    """Return the function from uint8 (n, s, s, 3) to features (n, d), not of unit length."""
    if isinstance(config.vision, EfficientNetConfig):
        return EfficientNetTower(state, config, target)
    return (ResNetTower if config.vision.is_resnet else VisionTower)(state, config, target)


def text_tower(state: State, config: ClipConfig, target: Target) -> Tower:
    """Return the function from token ids (n, l) to features (n, d), not of unit length."""
    return (BertTower if isinstance(config.text, BertConfig) else TextTower)(state, config, target)


def image_module(state: State, config: ClipConfig) -> nn.Module:
    """Return the same function in float32 as a module of plain operators, to be converted."""
    with torch.device("meta"):
        visual = CLIP(config).visual
    own = {
        name.removeprefix("visual."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if name.startswith("visual.")
    }
    for name in visual.state_dict():
        if name.endswith("num_batches_tracked"):
            own.setdefault(name, torch.tensor(0))
    visual.load_state_dict(own, assign=True)
    return FromBytes(visual.eval(), config.mean, config.std)


class FromBytes(nn.Module):
    """An image tower that takes bytes: it normalises them first."""

    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed uint8 (n, s, s, 3) as (n, d), not yet of unit length."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        out: Tensor = self.tower(x)
        return out
