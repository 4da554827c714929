"""A CLIP as an encoder, on the inference towers."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from fovea.search.clip.checkpoints.checkpoint import Checkpoint
from fovea.search.clip.preprocess import Preprocess

from .base import TEXT_BATCH, TorchEncoder, Tower
from .kernels import Target
from .towers import ResNetTower, TextTower, VisionTower

if TYPE_CHECKING:
    from fovea.search.clip.tokenizer import Tokenizer

__all__ = ["ClipEncoder"]

CPU_POSITIONS = 1600  # in one pass: 32 images of a ViT-B/32; more overflow the CPU's caches
GPU_BATCH = 256  # rows in one pass


class ClipEncoder(TorchEncoder):
    """A CLIP on one device, in one precision. Safe to share between threads."""

    def __init__(
        self, checkpoint: Checkpoint, *, name: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        config = checkpoint.config
        preprocess = Preprocess.from_config(config)
        super().__init__(
            checkpoint.path, config.embed_dim, preprocess, name=name, device=device, dtype=dtype
        )
        self._checkpoint = checkpoint

    @property
    def batch_size(self) -> int:
        if self.device.type != "cpu":
            return GPU_BATCH
        vision = self._checkpoint.config.vision
        positions = (vision.image_size // (vision.patch_size or 32)) ** 2 + 1
        return max(1, min(64, CPU_POSITIONS // positions))

    @cached_property
    def logit_scale(self) -> float:
        return math.exp(float(self._checkpoint.state(())["logit_scale"]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        length = self._checkpoint.config.text.context_length
        tokens = self._tokenizer.tokenize(texts, length)
        order = tokens.argmax(axis=1).argsort(kind="stable")  # texts of similar length together
        rows = self._run(lambda: self._text_tower, tokens[order], TEXT_BATCH)
        out = np.empty_like(rows)
        out[order] = rows
        return out

    @cached_property
    def _image_tower(self) -> Tower:
        state, config = self._checkpoint.state(["image"]), self._checkpoint.config
        place = Target(self.device, self.dtype)
        return (ResNetTower if config.vision.is_resnet else VisionTower)(state, config, place)

    @cached_property
    def _text_tower(self) -> Tower:
        state, config = self._checkpoint.state(["text"]), self._checkpoint.config
        return TextTower(state, config, Target(self.device, self.dtype))

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from fovea.search.clip.tokenizer import Tokenizer

        checkpoint = self._checkpoint
        return Tokenizer.from_folder(checkpoint.path.parent, checkpoint.config.text.vocab_size)
