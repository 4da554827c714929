"""Find pictures that are copies of each other, resized or stored anew."""

import numpy as np
from PIL import Image

SIDE = 8  # pixels of the thumbnails that are compared
ALIKE = 8.0  # of 255: the root mean square of their differences up to which two are copies
BLOCK = 1024  # rows compared at a time


def thumbnail(square: np.ndarray) -> np.ndarray:
    """Return uint8 (192,): a thumbnail of a picture, uint8 (s, s, 3), independent of its size."""
    small = Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small).reshape(-1)


def groups(thumbnails: np.ndarray) -> np.ndarray:
    """Return int (n,): for each of the thumbnails, uint8 (n, 192), the first one of its copies.

    A copy of a copy is a copy.
    """
    rows = thumbnails.astype(np.float32)
    squares = (rows**2).sum(axis=1)
    most = ALIKE**2 * rows.shape[1]
    leaders = np.arange(len(rows))
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        distances = squares[start : start + BLOCK, None] + squares - 2 * block @ rows.T
        for row, column in np.argwhere(distances <= most):
            if start + row < column:
                _join(leaders, start + row, column)
    return np.array([_leader(leaders, number) for number in range(len(rows))], np.int64)


def _join(leaders: np.ndarray, one: int, two: int) -> None:
    first, second = sorted((_leader(leaders, one), _leader(leaders, two)))
    leaders[second] = first


def _leader(leaders: np.ndarray, number: int) -> int:
    while leaders[number] != number:
        leaders[number] = leaders[leaders[number]]
        number = leaders[number]
    return int(number)
