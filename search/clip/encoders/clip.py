"""A CLIP as an encoder, on the inference towers."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from fovea.search.clip.checkpoints.checkpoint import Checkpoint
from fovea.search.clip.config import EfficientNetConfig
from fovea.search.clip.preprocess import Preprocess

from .base import DTYPES, TEXT_BATCH, TorchEncoder, Tower
from .kernels import Target
from .towers import image_module, image_tower, text_tower

if TYPE_CHECKING:
    from fovea.search.clip.protocols import TextTokenizer

__all__ = ["ClipEncoder"]

CPU_POSITIONS = 1600  # in one pass: 32 images of a ViT-B/32; more overflow the CPU's caches
LITE_PIXELS = 8 * 224**2  # in one pass of an EfficientNet-Lite: as fast as more, and less memory
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
        if isinstance(vision, EfficientNetConfig):
            return max(1, LITE_PIXELS // vision.image_size**2)
        positions = (vision.image_size // (vision.patch_size or 32)) ** 2 + 1
        return max(1, min(64, CPU_POSITIONS // positions))

    @cached_property
    def logit_scale(self) -> float:
        return math.exp(float(self._checkpoint.state(())["logit_scale"]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        length = self._checkpoint.config.text.context_length
        tokens = self._tokenizer.tokenize(texts, length)
        # texts of similar length together
        order = self._tokenizer.lengths(tokens).argsort(kind="stable")
        rows = self._run(lambda: self._text_tower, tokens[order], TEXT_BATCH)
        out = np.empty_like(rows)
        out[order] = rows
        return out

    @cached_property
    def _image_tower(self) -> Tower:
        return self._tower(self.dtype)

    def _tower(self, dtype: torch.dtype) -> Tower:
        state, config = self._checkpoint.state(["image"]), self._checkpoint.config
        return image_tower(state, config, Target(self.device, dtype))

    def _tower_in(self, precision: str) -> Tower:
        dtype = DTYPES[precision]
        return self._image_tower if dtype == self.dtype else self._tower(dtype)

    def _module(self) -> Callable[[], torch.nn.Module]:
        return lambda: image_module(self._checkpoint.state(["image"]), self._checkpoint.config)

    @cached_property
    def _text_tower(self) -> Tower:
        state, config = self._checkpoint.state(["text"]), self._checkpoint.config
        return text_tower(state, config, Target(self.device, self.dtype))

    @cached_property
    def _tokenizer(self) -> "TextTokenizer":
        from fovea.search.clip.tokenizer import open_tokenizer

        text = self._checkpoint.config.text
        return open_tokenizer(self._checkpoint.path.parent, text.tokenizer, text.vocab_size)
