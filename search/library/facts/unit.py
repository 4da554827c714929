"""Stored vectors: what must hold of their bytes."""

import numpy as np

__all__ = ["are_moments", "are_unit"]

OFF = 1e-2  # the length of a vector may differ from 1 by so much, as when it is written


def are_moments(times: object, vectors: object, dim: int) -> bool:
    """Return whether a row of moments has as many unit vectors as times."""
    if not isinstance(times, bytes) or not isinstance(vectors, bytes) or len(times) % 8:
        return False
    rows = [vectors[at : at + 2 * dim] for at in range(0, len(vectors), 2 * dim)]
    return 0 < len(times) // 8 * 2 * dim == len(vectors) and bool(are_unit(rows, dim).all())


def are_unit(stored: list[bytes], dim: int) -> np.ndarray:
    """Return which vectors, each ``dim`` float16 in bytes, have unit length: bool (n,)."""
    table = np.frombuffer(b"".join(stored), "<f2").reshape(-1, dim).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        near: np.ndarray = np.abs(np.linalg.norm(table, axis=1) - 1) < OFF  # not for nan either
    return near
