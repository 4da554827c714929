"""Toy encoders, small enough to reason about, and the colours that they know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageColor

from fovea.indexer.switching.switch import switch_model
from fovea.search.clip.preprocess import Preprocess
from fovea.search.models.lazy import LazyEncoder

COLOURS = ("red", "lime", "blue", "yellow", "cyan", "magenta", "white", "maroon")
FORMER, NEW, THIRD = "c0" * 32, "d1" * 32, "e2" * 32  # models to change from and to
DIMS = {FORMER: 3, NEW: 4, THIRD: 4}


@dataclass(frozen=True)
class ColourPreprocess:
    """Shrink an image to ``size`` × ``size`` RGB pixels."""

    size: int = 8
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def draft_size(self) -> tuple[int, int]:
        return self.size, self.size

    def draft(self, image: Image.Image) -> None:
        image.draft(None, self.draft_size)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The image as uint8 (size, size, 3)."""
        return np.asarray(image.convert("RGB").resize((self.size, self.size)), dtype=np.uint8)


class ColourEncoder:
    """A toy encoder: an image's embedding is its mean red, green and blue; a text names a colour.

    It counts the images that it has embedded in ``encoded``.
    """

    name, identity, dim = "colour", "c0" * 32, 3
    logit_scale = 100.0
    device, dtype = "cpu", "float32"

    def __init__(self) -> None:
        self.preprocess = ColourPreprocess()
        self.encoded = 0

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, s, s, 3) -> float32 (n, 3), unit rows."""
        self.encoded += len(pixels)
        means = np.asarray(pixels, dtype=np.float32).mean(axis=(1, 2)) + 1.0  # black has a length
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.encode_pixels(np.stack([self.preprocess.pixels(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """The colour whose name is a text's last word: "a photo of something red"."""
        colours = [ImageColor.getrgb(text.split()[-1]) for text in texts]
        rows = np.array(colours, dtype=np.float32)[:, :3] + 1.0
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class TolerantEncoder(ColourEncoder):
    """The toy encoder for whatever anybody may type: what names no colour is grey."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.concatenate([self._row(text) for text in texts])

    def _row(self, text: str) -> np.ndarray:
        try:
            return super().encode_texts([text])
        except (ValueError, IndexError):
            return super().encode_texts(["grey"])


def described(identity):
    return SimpleNamespace(
        name=f"model-{identity[:2]}", identity=identity, dim=DIMS[identity],
        preprocess=Preprocess(8), source="test", folder=Path("no"),
    )  # fmt: skip


class WideEncoder(TolerantEncoder):
    """Red, green, blue, and how bright; ``before`` is called with the number of each batch."""

    dim = 4

    def __init__(self, before=None):
        super().__init__()
        self.before, self.batches = before, 0

    def encode_pixels(self, pixels):
        self.batches += 1
        if self.before:
            self.before(self.batches)
        return widened(super().encode_pixels(pixels))

    def encode_texts(self, texts):
        return widened(super().encode_texts(texts))


def widened(rows):
    """Rows of one more column: their sum."""
    rows = np.concatenate([rows, rows.sum(axis=1, keepdims=True)], axis=1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def switch(library, identity=NEW, encoder=None, **options):
    encoder = encoder or (TolerantEncoder() if identity == FORMER else WideEncoder())
    options = {"batch_size": 3, "model": described(identity), "workers": 1} | options
    return switch_model(library, load_encoder=lambda: encoder, **options)


def lazily(encoder):
    """The lazy encoder of a server, around a toy."""
    return LazyEncoder(
        encoder.name,
        encoder.identity,
        encoder.dim,
        encoder.preprocess,
        open_words=lambda: encoder,
        load=lambda: encoder,
    )
