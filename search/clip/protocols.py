"""What callers may expect of an encoder, whichever library computes it; imports no torch."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .preprocess import Preprocess

__all__ = ["ImageEncoder", "ImageTextEncoder", "IndexingEncoder", "TextEncoder"]


class TextEncoder(Protocol):
    """Embeds texts."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d)."""
        ...


class ImageEncoder(Protocol):
    """Embeds preprocessed images."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed uint8 (n, s, s, 3) as float32 unit rows (n, d)."""
        ...


class IndexingEncoder(TextEncoder, ImageEncoder, Protocol):
    """Embeds what is indexed, and knows its scale."""

    @property
    def logit_scale(self) -> float:
        """The factor of cosines in zero-shot logits."""


class ImageTextEncoder(TextEncoder, ImageEncoder, Protocol):
    """Embeds images and texts in one space."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the pixels that the image tower takes."""
