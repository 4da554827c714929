"""An inverted file: a trained index that looks at a part of the vectors."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .exhaustive import Exhaustive, selector
from .kinds import Answer, load_faiss

__all__ = ["USUAL", "WIDE", "Effort", "Trained"]

USUAL, WIDE = 10, 50  # neighbours for which a trained index proves itself
THIN = 0.15  # share of the positions below which a mask is searched exhaustively


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
        lists = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector(mask))
        asked = max(k, USUAL)
        factor = max(2.0, effort.k_factor * float(np.sqrt(USUAL / asked)))
        params = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=lists)
        scores, positions = self._refined.search(queries, asked, params=params)
        return scores[:, :k], positions[:, :k]
