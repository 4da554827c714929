"""What every kind of index over unit vectors has in common.

An index compares float16 vectors (n, d) with float32 queries (q, d) by inner product and returns
``(scores, positions)``, float32 and int64 (q, k), best first, padded with -inf and -1. ``mask``,
bool (n,), limits the search to some positions. No index copies the vectors, which several may
share, and which may be so many that they stay in the database (``stored_vectors.py``).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .stored_vectors import Vectors

__all__ = ["Built", "Found", "Index", "IndexKind", "best", "load_faiss"]

Found = tuple[np.ndarray, np.ndarray]  # scores and positions


class Index(Protocol):
    """Vectors that can be searched."""

    @property
    def name(self) -> str:
        """The kind: ``exhaustive``, or a key of ``kinds.KINDS``."""

    @property
    def recall(self) -> float:
        """recall@10 against exhaustive search, measured when the index was built."""

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Found:
        """Return the k nearest positions of each query, never fewer than there are."""


@dataclass(frozen=True, slots=True)
class Built:
    """An index as a snapshot stores it, without the vectors."""

    form: np.ndarray  # uint8 (bytes,)
    settings: dict[str, Any]  # JSON


class IndexKind(Protocol):
    """How a kind of index is built, kept up to date, and opened from a snapshot."""

    def build(self, vectors: Vectors) -> Built | None:
        """Index float16 vectors (n, d); None where that would not equal exhaustive search."""

    def extend(
        self, index: Any, vectors: Vectors, *, kept: np.ndarray | None, measure: bool
    ) -> Built | None:
        """Update an index of this kind to other vectors, quickly; None where it must be rebuilt.

        The vectors are those it has, of which ``kept``, bool (n,), are left if it is given, and
        then more. ``measure``: recall must be measured.
        """

    def open(self, vectors: Vectors, built: Built, exhaustive_below: int) -> Index:
        """Open a stored index over its vectors. Raise ``ValueError`` if this cannot be done.

        A mask of fewer positions than ``exhaustive_below`` is searched exhaustively.
        """


def load_faiss() -> Any:
    """Import FAISS on first use; its stubs lack what it adds in Python, hence no type."""
    import faiss

    return faiss


def best(scores: np.ndarray, positions: np.ndarray, k: int) -> Found:
    """Return the k best of scores (q, n) and their positions (q, n) or (n,), padded if n < k.

    Equal scores are in the order of their positions.
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
