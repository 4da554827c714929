"""Decode what is certain of a damaged picture, and find out which pixels that are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from fovea.search.clip.preprocess import orientation, turned, upright

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


Grids = tuple[tuple[int, int], ...]

# The steps, in x and y, between the pixels that are there once a pass of an interlaced picture is
# whole, the last pass first (PNG specification, third edition, section 8; GIF89a, appendix E).
_GRIDS: dict[str | None, Grids] = {
    "PNG": ((1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8)),
    "GIF": ((1, 2), (1, 4), (1, 8)),
}

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
    image = opened()
    grids = _GRIDS.get(image.format, ()) if _is_interlaced(image) else ()
    stored = _decode_over(image, 0)
    _decode_over(other := opened(), 1)
    missing = differing(image, other)
    if grids and missing.any():
        spread, missing = _spread(image, missing, grids)
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


def _is_interlaced(image: Image.Image) -> bool:
    if image.format == "GIF":
        tiles = image.tile  # type: ignore[attr-defined]
        return bool(tiles and tiles[0][1] == (0, 0, *image.size) and tiles[0][3][1])
    return bool(image.info.get("interlace"))


def _spread(
    image: Image.Image, missing: np.ndarray, grids: Grids
) -> tuple[Image.Image, np.ndarray]:
    """Spread what an interlaced picture has over the pixels that it lacks.

    ``missing`` is bool (height, width). Return the picture, and the pixels that even its first pass
    lacks.
    """
    x, y = next(((x, y) for x, y in grids if not missing[::y, ::x].any()), grids[-1])
    known = missing[::y, ::x]
    height, width = known.shape
    corner = (x, 0, 0.5 - x / 2, 0, y, 0.5 - y / 2)  # the upper left pixel of each block
    small = image.transform((width, height), Image.Transform.AFFINE, corner)
    spread = small.transform(image.size, Image.Transform.AFFINE, (1 / x, 0, 0, 0, 1 / y, 0))
    rest = known.repeat(y, 0).repeat(x, 1)
    return spread, rest[: image.height, : image.width]


def _decode_over(image: Image.Image, which: int) -> int:
    """Decode an opened image leniently, over one of the fills; return its orientation."""
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
        return orientation(image) if image.format == "PNG" else stored


@contextmanager
def _tolerant() -> Iterator[None]:
    """Let Pillow's decoders keep what they have decoded where the data end or are wrong."""
    module: Any = ImageFile
    before, module.LOAD_TRUNCATED_IMAGES = module.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        module.LOAD_TRUNCATED_IMAGES = before
