"""Decode what is certain of a damaged picture, and find out which pixels that are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from fovea.search.clip.preprocess import orientation, turned, upright

from .png import coarse

__all__ = ["Partial", "differing", "partly", "turned_mask"]


@dataclass(frozen=True, slots=True)
class Partial:
    """What is certain of a picture, and grey for the rest."""

    image: Image.Image  # as its file holds it
    shown: Image.Image  # upright
    stored: int  # the orientation that it was stored in, 1 to 8
    missing: np.ndarray  # bool (height, width)
    is_coarse: bool = False  # fine detail is missing instead, as of an interlaced picture
    remark: str | None = None  # what else may be said of it, in words


# For each mode, what pixels are before they are decoded: grey, and something else in every band.
_FILLS: dict[str, tuple[object, object]] = {
    "1": (0, 255),
    "P": (0, 1),
    "PA": ((0, 255), (1, 254)),
    "LA": ((128, 255), (0, 254)),
    "La": ((128, 255), (0, 254)),
    "RGBA": ((128, 128, 128, 255), (0, 0, 0, 254)),
    "RGBa": ((128, 128, 128, 255), (0, 0, 0, 254)),
    "RGBX": ((128, 128, 128, 255), (0, 0, 0, 254)),
    "CMYK": ((0, 0, 0, 127), (1, 1, 1, 128)),
    "F": (0.5, 0.0),
}
_THREE = ((128, 128, 128), (0, 0, 0))


def partly(opened: Callable[[], Image.Image]) -> Partial | None:
    """Decode a picture as far as its decoder comes; None where that is not even one row.

    ``opened`` opens it anew each time. It is decoded twice, over different pixels: those that
    differ afterwards are the missing ones.
    """
    (image, stored), (other, _) = (_decoded_over(opened(), which) for which in (0, 1))
    missing = differing(image, other)
    if image.format == "PNG" and image.info.get("interlace") and missing.any():
        spread, missing = coarse(image, missing)
        missing = turned_mask(missing, stored)
        found = Partial(image, turned(spread, stored), stored, missing, not missing.any())
    else:
        shown = upright(image)[0]
        if shown is not image:  # a TIFF has turned itself
            missing = turned_mask(missing, stored)
        found = Partial(image, shown, stored, missing)
    known = ~found.missing
    return found if known.all(0).any() or known.all(1).any() else None


def differing(one: Image.Image, other: Image.Image) -> np.ndarray:
    """Return where two images of the same size differ: bool (height, width)."""
    changed = np.asarray(one) != np.asarray(other)
    return changed.any(2) if changed.ndim == 3 else changed


def turned_mask(mask: np.ndarray, stored: int) -> np.ndarray:
    """Return the pixels of a picture that is stored in this orientation as they lie upright."""
    return np.asarray(turned(Image.fromarray(mask.astype(np.uint8)), stored)).astype(bool)


def _decoded_over(image: Image.Image, which: int) -> tuple[Image.Image, int]:
    """Decode an opened image leniently, over one of the fills; return its orientation, too."""
    prepare, tiles = image.load_prepare, getattr(image, "tile", [])  # type: ignore[attr-defined]
    boxes = [tile[1] for tile in tiles if tile[1]]

    def filled() -> None:
        prepare()
        fills = _FILLS.get(image.mode, _THREE if len(image.getbands()) == 3 else (128, 0))
        for left, top, right, bottom in boxes:
            box = (
                max(0, left),
                max(0, top),
                min(right, image.im.size[0]),
                min(bottom, image.im.size[1]),
            )
            if box[0] < box[2] and box[1] < box[3]:
                image.im.paste(fills[which], box)

    image.load_prepare = filled  # type: ignore[attr-defined]
    with _tolerant():
        stored = 1 if image.format == "PNG" else orientation(image)  # a PNG is decoded for it
        try:
            image.load()
        except OSError:  # libtiff's, after it has decoded what it can
            image.load()
        return image, orientation(image) if image.format == "PNG" else stored


@contextmanager
def _tolerant() -> Iterator[None]:
    """Let Pillow's decoders keep what they have decoded where the data end or are wrong."""
    module: Any = ImageFile
    before, module.LOAD_TRUNCATED_IMAGES = module.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        module.LOAD_TRUNCATED_IMAGES = before
