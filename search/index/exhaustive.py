"""Exhaustive search: a query is compared with every vector."""

from typing import Any

import numpy as np

from .base import Found, best, load_faiss

__all__ = ["Exhaustive", "selector"]

SMALL = 4096  # vectors; NumPy has compared so few before FAISS (75 ms) is imported


class Exhaustive:
    """Compare a query with every vector: exact, and quick up to some tens of thousands."""

    name, recall = "exhaustive", 1.0

    def __init__(self, vectors: np.ndarray) -> None:
        """``vectors`` is float16 (n, d), C-contiguous."""
        self.vectors = vectors
        self._floats: np.ndarray | None = None  # float32 (n, d), where n is small
        self._flat: Any = None  # FAISS's view of the vectors, where n is large

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Found:
        """Return the k nearest positions of each query, exactly."""
        if mask is not None and 4 * np.count_nonzero(mask) <= len(mask):
            return self._among(np.flatnonzero(mask), queries, k)
        if len(self.vectors) <= SMALL:
            return self._compare(queries, k, mask)
        params = None
        if mask is not None:
            params = load_faiss().SearchParameters(sel=selector(mask))
        scores, positions = self.flat.search(queries, min(k, len(self.vectors)), params=params)
        scores[positions < 0] = -np.inf  # FAISS pads with its lowest float
        return best(scores, positions, k)

    @property
    def flat(self) -> Any:
        """The vectors as a ``faiss.IndexScalarQuantizer``."""
        if self._flat is None:
            self._flat = _view(self.vectors)
        return self._flat

    def _among(self, chosen: np.ndarray, queries: np.ndarray, k: int) -> Found:
        """Search few positions, whose vectors are copied: that is quickest."""
        scores, places = Exhaustive(self.vectors[chosen]).search(queries, k)
        if len(chosen):
            places = np.where(places < 0, -1, chosen[places])
        return scores, places

    def _compare(self, queries: np.ndarray, k: int, mask: np.ndarray | None) -> Found:
        if self._floats is None:
            self._floats = self.vectors.astype(np.float32)
        scores = queries @ self._floats.T  # (q, n)
        if mask is not None:
            scores[:, ~mask] = -np.inf
        return best(scores, np.arange(len(self.vectors)), k)


def selector(mask: np.ndarray | None) -> Any:
    """Make FAISS's form of a mask; None for none."""
    faiss = load_faiss()
    return None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _view(vectors: np.ndarray) -> Any:
    """Make a FAISS index over float16 vectors (n, d) that reads them where they are.

    FAISS keeps codes in a vector that may be a view of memory it does not own; Python can only set
    that field by field. Where a release of FAISS lacks these fields, the vectors are copied. The
    caller must keep the vectors.
    """
    faiss = load_faiss()
    n, dim = vectors.shape
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
    raw = np.asarray(vectors).view(np.uint8).reshape(n, -1)  # (n, 2 d)
    codes: Any = getattr(index, "codes", None)
    if hasattr(codes, "view_data"):
        codes.is_owned = False
        codes.view_data = codes.c_ptr = faiss.swig_ptr(raw.reshape(-1))
        codes.view_size = codes.c_size = raw.size
        index.ntotal = n
    else:
        index.add_sa_codes(raw)
    return index
