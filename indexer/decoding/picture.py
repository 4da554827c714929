"""A decoded picture, and the checks on its size that every decoder makes."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fovea.search.library.facts.signatures import StoredSignature
from fovea.search.library.rows import ImageMetadata

from .embedded_text import EmbeddedText
from .limits import Limits, Refused, megabytes

__all__ = ["DecodedPicture", "check_decoded", "check_pixels"]

# Bytes that Pillow uses per pixel, where that is not 4.
_WIDE = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A decoded file: its pixels, uint8 (size, size, 3), its metadata and its signature."""

    pixels: np.ndarray
    metadata: ImageMetadata
    words: EmbeddedText = EmbeddedText()
    signature: StoredSignature | None = None


def check_pixels(size: tuple[int, int], limits: Limits) -> None:
    """Raise ``Refused`` for a picture that declares more pixels than the limit."""
    width, height = size
    if width * height > limits.pixels:
        raise Refused(
            f"too large: {width:,} x {height:,} pixels are {width * height / 1e6:,.0f} megapixels;"
            f" the limit is {limits.pixels / 1e6:,.0f}"
        )


def check_decoded(image: Image.Image, limits: Limits) -> None:
    """Raise ``Refused`` for a picture that, once decoded at its scale, takes too much memory."""
    width, height = image.size
    needed = width * height * _WIDE.get(image.mode, 4)
    if needed > limits.decoded:
        limit = megabytes(limits.decoded)
        raise Refused(
            f"too large: {width:,} x {height:,} pixels take {megabytes(needed)}; "
            f"the limit is {limit}"
        )
