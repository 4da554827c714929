"""A small grey version of a picture, in which copies can be told from look-alikes.

Light: worker processes import it.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from fovea.search.library.facts.signatures import StoredSignature

__all__ = ["SIDE", "VERSION", "grey_of", "hashes", "mirrored", "signature_of", "unsigned"]

VERSION = "1"  # of how signatures are made; others are made again
SIDE = 64
SHARP = 256  # pixels of the long side at which sharpness is measured
QUALITY = 80  # of the stored WebP: about 1.3 KB, off by 3.5 of 255 on average
LOW = 8  # of the lowest frequencies in both directions, which the hash has the signs of


def signature_of(image: Image.Image) -> StoredSignature:
    """Return the signature of a decoded picture, RGB or L, turned as it is shown.

    The whole picture is squeezed into a square. Sharpness is the standard deviation of the
    Laplacian at 256 pixels, of 255.
    """
    grey = image if image.mode == "L" else _smaller(image).convert("L")
    grey = _smaller(grey)
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    packed = BytesIO()
    small.save(packed, "WEBP", quality=QUALITY, method=0)
    [found] = hashes(np.asarray(small, np.uint8)[None])
    signed = int(np.uint64(found).astype(np.int64))
    return StoredSignature(VERSION, signed, _sharpness(np.asarray(grey)), packed.getvalue())


def _smaller(image: Image.Image) -> Image.Image:
    scale = SHARP / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)


def _sharpness(grey: np.ndarray) -> float:
    """Return the deviation of the Laplacian of uint8 (h, w); 0 for what is too small."""
    if min(grey.shape) < 3:
        return 0.0
    wide = grey.astype(np.int16)
    around = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    return round(float((around - 4 * wide[1:-1, 1:-1]).std()), 3)


def grey_of(stored: bytes) -> np.ndarray | None:
    """Return a stored grey version, uint8 (64, 64), or None for what is not one."""
    try:
        with Image.open(BytesIO(stored), formats=("WEBP",)) as image:
            if image.size != (SIDE, SIDE):
                return None
            return np.asarray(image.convert("L"), np.uint8)
    except Exception:  # Pillow raises many kinds for broken bytes
        return None


def hashes(greys: np.ndarray) -> np.ndarray:
    """Return uint64 (n,): a perceptual hash of each grey version, uint8 (n, 64, 64).

    The signs of the lowest frequencies of a two-dimensional discrete cosine transform, after
    Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions".
    """
    steps = np.arange(SIDE)
    waves = np.cos(np.pi * np.outer(np.arange(LOW), steps + 0.5) / SIDE).astype(np.float32)
    found = np.zeros(len(greys), np.uint64)
    for start in range(0, len(greys), 4096):
        block = greys[start : start + 4096].astype(np.float32)
        low = (waves @ block @ waves.T).reshape(len(block), -1)
        low[:, 0] = 0  # the mean brightness says nothing
        found[start : start + len(block)] = np.packbits(low > 0, axis=1).view(">u8")[:, 0]
    return found


_ODD = np.uint64(int("01010101" * LOW, 2))  # the waves that change their sign in a mirror


def mirrored(found: np.ndarray) -> np.ndarray:
    """Return uint64 (n,): the hashes of the pictures seen in a mirror."""
    return found ^ _ODD


def unsigned(stored: np.ndarray) -> np.ndarray:
    """Return uint64 (n,) of hashes as they are stored, int64."""
    return stored.astype(np.int64).view(np.uint64)
