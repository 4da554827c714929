"""Pack images of any shape, as patches, into squares of bytes.

NaFlex (Tschannen et al. 2025, arXiv:2502.14786, section 2.4.2) keeps an image's aspect ratio: its
sides become multiples of the patch's, as large as a limit on the number of patches allows. So that
such images travel like other pixels, a square of bytes carries them: the numbers of rows and
columns, 16 bits each, then patch after patch.
"""

import math

import numpy as np
from PIL import Image

__all__ = ["grid_of", "packed", "side_for", "unpacked"]

SHAPE_BYTES = 4
PRECISION = 1e-5  # of the scale
LARGEST_SCALE = 100.0


def side_for(patch: int, patches: int) -> int:
    """Return the side of the square that holds ``patches`` patches of ``patch`` pixels a side."""
    return math.isqrt(-(-(patches * patch * patch * 3 + SHAPE_BYTES) // 3) - 1) + 1


def grid_of(width: int, height: int, patch: int, patches: int) -> tuple[int, int]:
    """Return the rows and columns of patches that an image becomes: as many as fit, at least 1."""

    def grid(scale: float) -> tuple[int, int]:
        return (max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch)))

    low, high = PRECISION / 10, LARGEST_SCALE
    while high - low >= PRECISION:
        middle = (low + high) / 2
        rows, columns = grid(middle)
        if rows * columns <= patches:
            low = middle
        else:
            high = middle
    rows, columns = grid(low)
    return min(rows, patches), min(columns, patches)


def packed(
    image: Image.Image, patch: int, patches: int, resampling: Image.Resampling
) -> np.ndarray:
    """Resize an RGB image to its grid of patches; return uint8 (s, s, 3), s from ``side_for``."""
    rows, columns = grid_of(*image.size, patch, patches)
    resized = np.asarray(image.resize((columns * patch, rows * patch), resampling))
    cut = resized.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)  # (rows, columns, p, p, 3)
    side = side_for(patch, patches)
    out = np.zeros(side * side * 3, np.uint8)
    out[:SHAPE_BYTES] = np.array([rows, columns], "<u2").view(np.uint8)
    out[SHAPE_BYTES : SHAPE_BYTES + cut.size] = cut.reshape(-1)
    return out.reshape(side, side, 3)


def unpacked(pixels: np.ndarray, patch: int, patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Unpack (n, s, s, 3) into patches, uint8 (n, patches, p * p * 3), and grids, int64 (n, 2).

    A grid is an image's rows and columns of patches; patches beyond it are 0.
    """
    flat = pixels.reshape(len(pixels), -1)
    length = patches * patch * patch * 3
    shapes = np.ascontiguousarray(flat[:, :SHAPE_BYTES]).view("<u2").astype(np.int64)
    cut = flat[:, SHAPE_BYTES : SHAPE_BYTES + length].reshape(len(pixels), patches, -1)
    return cut, shapes
