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

from fovea.search.clip.config import BertConfig, ClipConfig, EfficientNetConfig

from .base import Tower
from .bert_tower import BertTower
from .convolutional_towers import EfficientNetTower, ResNetTower
from .kernels import State, Target
from .transformer_towers import TextTower, VisionTower

__all__ = ["image_tower", "text_tower"]


def image_tower(state: State, config: ClipConfig, target: Target) -> Tower:
    """Return the function from uint8 (n, s, s, 3) to features (n, d), not of unit length."""
    if isinstance(config.vision, EfficientNetConfig):
        return EfficientNetTower(state, config, target)
    return (ResNetTower if config.vision.is_resnet else VisionTower)(state, config, target)


def text_tower(state: State, config: ClipConfig, target: Target) -> Tower:
    """Return the function from token ids (n, l) to features (n, d), not of unit length."""
    return (BertTower if isinstance(config.text, BertConfig) else TextTower)(state, config, target)
