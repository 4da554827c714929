"""Matrices stored as int8, a scale beside each: a quarter of their size in float32.

A tensor NAME of int8 (m, k), from -127 to 127, times NAME_scale of float32 (m,), row by row, is the
matrix: symmetric quantisation per output channel (Krishnamoorthi 2018, arXiv:1806.08342, section
3). Imports no torch.
"""

from pathlib import Path

import numpy as np

from fovea.search.clip.errors import ModelError

from .shapes import tower_of

__all__ = ["SCALE", "check_pair", "dequantise", "is_stored_as_int8", "quantise"]

SCALE = "_scale"  # ends the name of the scales
MOST = 127  # the magnitude that a row's largest value is stored as

_SMALL_TABLES = ("position_embeddings.weight", "token_type_embeddings.weight")


def is_stored_as_int8(name: str, matrix: np.ndarray) -> bool:
    """Whether a published tensor is one of the text tower's products, or its table of tokens."""
    return (
        tower_of(name) == "text"
        and matrix.ndim == 2
        and name.endswith("weight")
        and not name.endswith(_SMALL_TABLES)
    )


def quantise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a float matrix (m, k) as int8 (m, k) and scales, float32 (m,)."""
    matrix = matrix.astype(np.float32)
    scale = abs(matrix).max(axis=1) / np.float32(MOST)
    steps = matrix / np.where(scale > 0, scale, 1)[:, None]  # a row of zeros has scale 0
    return steps.round().clip(-MOST, MOST).astype(np.int8), scale


def dequantise(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the float32 matrix (m, k) of int8 (m, k) and its scales (m,)."""
    matrix = values.astype(np.float32)
    matrix *= scale[:, None]
    return matrix


def check_pair(path: Path, name: str, kinds: tuple[str, str], scale: np.ndarray) -> None:
    """Raise ``ModelError`` unless a matrix and its scales are sound.

    ``kinds`` are the names of both types.
    """
    if kinds != ("int8", "float32"):
        found = f"{kinds[0]} with scales of {kinds[1]}, not int8 with float32"
    elif not (np.isfinite(scale) & (scale >= 0)).all():
        found = "int8 with scales that are below 0 or not finite"
    else:
        return
    raise ModelError(f"{path} is damaged: {name} is {found}; fetch it again")
