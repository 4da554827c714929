"""An inverted file (IVF): a trained index whose queries scan a part of the vectors."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .base import Found, best, load_faiss
from .exhaustive import Exhaustive, selector
from .stored_vectors import Vectors
from .streamed import compared

__all__ = ["USUAL", "WIDE", "IvfIndex", "IvfSettings"]

USUAL, WIDE = 10, 50  # neighbours at which recall is measured
THIN = 0.15  # share of the positions below which a mask is searched exhaustively
MOSTLY = 0.9  # share of the positions from which a mask need not be seen by FAISS,
ENOUGH = 0.75  # if it leaves so many of the candidates


@dataclass(frozen=True, slots=True)
class IvfSettings:
    """How much of the index a query scans, and the recall that this has reached."""

    nprobe: int  # lists that are scanned
    k_factor: int  # candidates for each of 10 neighbours, compared again in float16
    recall: float  # recall@10 against exhaustive search, when it was measured
    measured_on: int = 0  # vectors then


class IvfIndex:
    """Inverted lists of 4-bit product codes (FAISS's fast scan), refined with the vectors.

    Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search"; André et al. 2017,
    "Accelerated Nearest Neighbor Search with Quick ADC".
    """

    name = "ivf"

    def __init__(
        self, vectors: Vectors, base: Any, settings: IvfSettings, exhaustive_below: int
    ) -> None:
        """``base`` is a trained FAISS index that holds the vectors in their order.

        A ``mask`` of few positions is searched exhaustively: fewer than ``exhaustive_below``, or a
        small share, which the lists near a query might not hold; of vectors that stay in the
        database, a small share is looked for in all lists instead, since it takes long to read.
        """
        self.vectors = vectors
        self.exhaustive = compared(vectors)
        self.base = base
        self.settings, self.recall = settings, settings.recall
        self.exhaustive_below = exhaustive_below
        self._refined: Any = None
        if isinstance(self.exhaustive, Exhaustive):
            self._refined = load_faiss().IndexRefine(base, self.exhaustive.flat)

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Found:
        """Return the k nearest positions of each query, never fewer than there are.

        A query whose scanned lists hold fewer is searched exhaustively.
        """
        total = self.base.ntotal
        there = total if mask is None else int(np.count_nonzero(mask))
        thin = 0.0 if self._refined is None else THIN * total
        if there < max(self.exhaustive_below, thin) or 20 * k > there:
            return self.exhaustive.search(queries, k, mask)
        spread = (
            max(1.0, k / WIDE) * total / there
        )  # the nearest are spread over so many more lists
        settings = replace(self.settings, nprobe=int(np.ceil(self.settings.nprobe * spread)))
        scores, positions = self.scan(queries, k, settings, mask)
        padded = (positions < 0).any(axis=1)
        if padded.any() and self._refined is None:
            settings = replace(self.settings, nprobe=self.base.nlist)
            found = self._scan_stored(queries[padded], k, settings, mask)
            scores[padded], positions[padded] = found
            padded = (positions < 0).any(axis=1)
        if padded.any():
            scores[padded], positions[padded] = self.exhaustive.search(queries[padded], k, mask)
        return scores, positions

    def scan(
        self, queries: np.ndarray, k: int, settings: IvfSettings, mask: np.ndarray | None = None
    ) -> Found:
        """Search with these settings; the result may be padded.

        Candidates grow with the square root of k: deeper ranks are confused less.
        """
        if self._refined is None:
            return self._scan_stored(queries, k, settings, mask)
        faiss = load_faiss()
        asked = max(k, USUAL)
        params = faiss.IndexRefineSearchParameters(
            k_factor=_factor(asked, settings),
            base_index_params=self._lists(settings, selector(mask)),
        )
        scores, positions = self._refined.search(queries, asked, params=params)
        return scores[:, :k], positions[:, :k]

    def candidates(
        self, queries: np.ndarray, k: int, settings: IvfSettings, sel: Any = None
    ) -> np.ndarray:
        """Return the positions that are compared again, int64 (q, c), padded with -1.

        Those of the k nearest that are among them are what a search finds, since comparing again
        is exact.
        """
        asked = max(k, USUAL)
        count = int(asked * _factor(asked, settings))
        lists = self._lists(settings, sel)
        positions: np.ndarray = self.base.search(queries, count, params=lists)[1]
        return positions

    def _lists(self, settings: IvfSettings, sel: Any) -> Any:
        nprobe = min(settings.nprobe, self.base.nlist)
        return load_faiss().SearchParametersIVF(nprobe=nprobe, sel=sel)

    def _scan_stored(
        self, queries: np.ndarray, k: int, settings: IvfSettings, mask: np.ndarray | None
    ) -> Found:
        """Search vectors that stay in the database, reading those of each query's candidates."""
        positions = self._allowed(queries, k, settings, mask)
        scores = np.full(positions.shape, -np.inf, np.float32)
        for query, near, theirs in zip(queries, positions, scores, strict=True):
            places = np.flatnonzero(near >= 0)
            places = places[np.argsort(near[places])]  # as they lie on the disk
            rows = self.vectors[near[places]].astype(np.float32)
            theirs[places] = np.where(rows.any(axis=1), rows @ query, -np.inf)
        return best(scores, positions, k)

    def _allowed(
        self, queries: np.ndarray, k: int, settings: IvfSettings, mask: np.ndarray | None
    ) -> np.ndarray:
        """Return the candidates that a mask includes, int64 (q, c), padded with -1.

        Making FAISS's form of a mask of millions takes longer than a search, so of one that
        includes nearly all, the others are dropped afterwards; but not where that leaves a query
        too few, since what a mask excludes may be just what is near.
        """
        if mask is None:
            return self.candidates(queries, k, settings)
        if np.count_nonzero(mask) < MOSTLY * len(mask):
            return self.candidates(queries, k, settings, selector(mask))
        found = self.candidates(queries, k, settings)
        kept = np.where((found >= 0) & mask[found], found, -1)
        few = (kept >= 0).sum(axis=1) < ENOUGH * (found >= 0).sum(axis=1)
        if few.any():
            kept[few] = self.candidates(queries[few], k, settings, selector(mask))
        return kept


def _factor(asked: int, settings: IvfSettings) -> float:
    return max(2.0, settings.k_factor * float(np.sqrt(USUAL / asked)))
