"""Exhaustive search of vectors that are not all in memory at once."""

import numpy as np

from .base import Found, Index, best
from .exhaustive import Exhaustive
from .stored_vectors import Vectors, blocks

__all__ = ["Streamed", "compared"]

COMPARED = 1 << 13  # vectors whose scores are in memory at a time


class Streamed:
    """Compare a query with every vector, a block at a time: exact, and as slow as the disk."""

    name, recall = "exhaustive", 1.0

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Found:
        """Return the k nearest positions of each query, exactly."""
        chosen = None if mask is None else np.flatnonzero(mask)
        scores, positions = best(np.empty((len(queries), 0), np.float32), np.empty(0, np.int64), k)
        for block_places, block in blocks(self.vectors, chosen):
            for start in range(0, len(block), COMPARED):
                part = slice(start, start + COMPARED)
                places, rows = block_places[part], block[part]
                near = queries @ rows.T  # (q, m)
                near[:, ~rows.any(axis=1)] = -np.inf  # deleted meanwhile
                columns = np.flatnonzero((near > scores[:, -1:]).any(axis=0))
                if len(columns):
                    merged = np.concatenate([scores, near[:, columns]], axis=1)
                    theirs = np.broadcast_to(places[columns], (len(queries), len(columns)))
                    theirs = np.concatenate([positions, theirs], axis=1)
                    scores, positions = best(merged, theirs, k)
        return scores, positions


def compared(vectors: Vectors) -> Index:
    """Return the exhaustive search that suits these vectors."""
    return Exhaustive(vectors) if isinstance(vectors, np.ndarray) else Streamed(vectors)
