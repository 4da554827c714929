"""What callers may expect of an encoder or a tokenizer of any kind; imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .preprocess import Preprocess

__all__ = ["ImageEncoder", "ImageTextEncoder", "IndexingEncoder", "TextEncoder", "TextTokenizer"]


class TextTokenizer(Protocol):
    """Turns texts into token ids."""

    vocab_size: int
    start_id: int
    end_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end."""
        ...

    def tokenize(self, texts: Sequence[str], context_length: int) -> np.ndarray:
        """Return int64 (n, context_length): start, the text, end, then padding."""
        ...

    def lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Count the positions of each row (n, l) up to and including its end, as int64 (n,)."""
        ...

    def save(self, folder: Path) -> Path:
        """Write the vocabulary into a model's folder; return the file."""
        ...


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
