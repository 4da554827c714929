"""The kinds of index over unit vectors: exhaustive, and a trained one that looks at a part.

Both compare float16 vectors (n, d) with float32 queries (q, d) by inner product and answer with
``(scores, positions)``, float32 and int64 (q, k), best first, padded with -inf and -1. ``mask``,
bool (n,), limits an answer to some positions. Neither copies the vectors: they may be a
memory-mapped file, and both kinds share them.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

__all__ = [
    "SMALL",
    "USUAL",
    "WIDE",
    "Effort",
    "Exhaustive",
    "Kind",
    "Trained",
    "best",
    "load_faiss",
]

SMALL = 4096  # vectors; numpy compares so few sooner than FAISS (75 ms) is imported
USUAL, WIDE = 10, 50  # neighbours for which a trained index proves itself
THIN = 0.15  # share of the positions below which a mask is searched exhaustively

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


class Exhaustive:
    """Compare a query with every vector: exact, and quick up to some tens of thousands."""

    def __init__(self, vectors: np.ndarray) -> None:
        """``vectors`` is float16 (n, d), C-contiguous."""
        self.vectors = vectors
        self._floats: np.ndarray | None = None  # float32 (n, d), where n is small
        self._flat: Any = None  # FAISS's view of the vectors, where n is large

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Answer:
        """The k nearest positions of each query, exactly."""
        if mask is not None and 4 * np.count_nonzero(mask) <= len(mask):
            return self._among(np.flatnonzero(mask), queries, k)
        if len(self.vectors) <= SMALL:
            return self._compare(queries, k, mask)
        params = None
        if mask is not None:
            params = load_faiss().SearchParameters(sel=_selector(mask))
        scores, positions = self.flat.search(queries, min(k, len(self.vectors)), params=params)
        scores[positions < 0] = -np.inf  # FAISS pads with its lowest float
        return best(scores, positions, k)

    @property
    def flat(self) -> Any:
        """The vectors as a ``faiss.IndexScalarQuantizer``."""
        if self._flat is None:
            self._flat = _view(self.vectors)
        return self._flat

    def _among(self, chosen: np.ndarray, queries: np.ndarray, k: int) -> Answer:
        """The nearest of few positions: to copy their vectors together is soonest."""
        scores, places = Exhaustive(self.vectors[chosen]).search(queries, k)
        if len(chosen):
            places = np.where(places < 0, -1, chosen[places])
        return scores, places

    def _compare(self, queries: np.ndarray, k: int, mask: np.ndarray | None) -> Answer:
        if self._floats is None:
            self._floats = self.vectors.astype(np.float32)
        scores = queries @ self._floats.T  # (q, n)
        if mask is not None:
            scores[:, ~mask] = -np.inf
        return best(scores, np.arange(len(self.vectors)), k)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of a trained index a query looks at, and how good that proved to be."""

    nprobe: int  # lists that are scanned
    k_factor: int  # candidates for each of 10 neighbours that are compared again in float16
    recall: float  # recall@10 against exhaustive search, when it was built


class Trained:
    """Inverted lists of 4-bit product codes (FAISS's fast scan), refined with the vectors.

    Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search"; André et al. 2017,
    "Accelerated Nearest Neighbor Search with Quick ADC".
    """

    def __init__(
        self, vectors: np.ndarray, base: Any, effort: Effort, exhaustive_below: int
    ) -> None:
        """``base`` is a trained FAISS index that holds the vectors in their order.

        A ``mask`` of few positions is searched exhaustively: fewer than ``exhaustive_below``, or
        a small share, which lists near a query might not hold.
        """
        faiss = load_faiss()
        self.exhaustive = Exhaustive(vectors)
        self.base = base
        self.effort = effort
        self.exhaustive_below = exhaustive_below
        self._refined = faiss.IndexRefine(base, self.exhaustive.flat)

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Answer:
        """The k nearest positions of each query; never fewer than there are.

        An answer that the scanned lists cannot fill is searched exhaustively.
        """
        total = self.base.ntotal
        there = total if mask is None else int(np.count_nonzero(mask))
        if there < max(self.exhaustive_below, THIN * total) or 20 * k > there:
            return self.exhaustive.search(queries, k, mask)
        spread = max(1.0, k / WIDE) * total / there  # the nearest lie in so many more lists
        effort = replace(self.effort, nprobe=int(np.ceil(self.effort.nprobe * spread)))
        scores, positions = self.look(queries, k, effort, mask)
        padded = (positions < 0).any(axis=1)
        if padded.any():
            scores[padded], positions[padded] = self.exhaustive.search(queries[padded], k, mask)
        return scores, positions

    def look(
        self, queries: np.ndarray, k: int, effort: Effort, mask: np.ndarray | None = None
    ) -> Answer:
        """What the index finds with this effort; an answer may be padded.

        Candidates grow with the square root of k: ranks blur less the deeper they lie.
        """
        faiss = load_faiss()
        nprobe = min(effort.nprobe, self.base.nlist)
        lists = faiss.SearchParametersIVF(nprobe=nprobe, sel=_selector(mask))
        asked = max(k, USUAL)
        factor = max(2.0, effort.k_factor * float(np.sqrt(USUAL / asked)))
        params = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=lists)
        scores, positions = self._refined.search(queries, asked, params=params)
        return scores[:, :k], positions[:, :k]


def _selector(mask: np.ndarray | None) -> Any:
    faiss = load_faiss()
    return None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _view(vectors: np.ndarray) -> Any:
    """A FAISS index over float16 vectors (n, d) that reads them where they are.

    FAISS keeps codes in a vector that may be a view of memory that it does not own; Python
    reaches that only field by field. Should a release of FAISS ever mean something else by
    these fields, the vectors are copied into the index instead. The caller keeps the vectors.
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
