"""What the kinds of index over unit vectors have in common.

All compare float16 vectors (n, d) with float32 queries (q, d) by inner product and answer with
``(scores, positions)``, float32 and int64 (q, k), best first, padded with -inf and -1. ``mask``,
bool (n,), limits an answer to some positions. None copies the vectors: they may be a
memory-mapped file, which several kinds share.
"""

from typing import Any, Protocol

import numpy as np

__all__ = ["Answer", "Kind", "best", "load_faiss"]

Answer = tuple[np.ndarray, np.ndarray]


class Kind(Protocol):
    """What the kinds have in common."""

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Answer:
        """The k nearest positions of each query."""
        ...


def load_faiss() -> Any:
    """FAISS, imported on first use; its stubs miss what it adds in Python, hence no type."""
    import faiss

    return faiss


def best(scores: np.ndarray, positions: np.ndarray, k: int) -> Answer:
    """The k best of scores (q, n) with their positions (q, n) or (n,), padded if n < k.

    Equal scores come in the order of the positions.
    """
    positions = np.broadcast_to(positions, scores.shape)
    if scores.shape[1] > 4 * k:  # sort few; ties at the edge may go either way
        part = np.argpartition(-scores, k, axis=1)[:, :k]
        scores = np.take_along_axis(scores, part, axis=1)
        positions = np.take_along_axis(positions, part, axis=1)
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    short = k - order.shape[1]
    scores = np.take_along_axis(scores, order, axis=1).astype(np.float32)
    positions = np.take_along_axis(positions, order, axis=1).astype(np.int64)
    if short > 0:
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        positions = np.pad(positions, ((0, 0), (0, short)), constant_values=-1)
    positions[np.isneginf(scores)] = -1
    return scores, positions
