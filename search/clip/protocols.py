"""What callers may expect of an encoder, whichever library computes it; imports no torch."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .preprocess import Preprocess

__all__ = ["ImageEncoder", "ImageTextEncoder", "TextEncoder"]


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


class ImageTextEncoder(TextEncoder, ImageEncoder, Protocol):
    """Embeds images and texts in one space."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the pixels that the image tower takes."""
