"""An inverted file (IVF): a trained index whose queries scan a part of the vectors."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .base import Found, load_faiss
from .exhaustive import Exhaustive, selector

__all__ = ["USUAL", "WIDE", "IvfIndex", "IvfSettings"]

USUAL, WIDE = 10, 50  # neighbours at which recall is measured
THIN = 0.15  # share of the positions below which a mask is searched exhaustively


@dataclass(frozen=True, slots=True)
class IvfSettings:
    """How much of the index a query scans, and the recall that this has reached."""

    nprobe: int  # lists that are scanned
    k_factor: int  # candidates for each of 10 neighbours, compared again in float16
    recall: float  # recall@10 against exhaustive search, when it was built


class IvfIndex:
    """Inverted lists of 4-bit product codes (FAISS's fast scan), refined with the vectors.

    Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search"; André et al. 2017,
    "Accelerated Nearest Neighbor Search with Quick ADC".
    """

    name = "ivf"

    def __init__(
        self, vectors: np.ndarray, base: Any, settings: IvfSettings, exhaustive_below: int
    ) -> None:
        """``base`` is a trained FAISS index that holds the vectors in their order.

        A ``mask`` of few positions is searched exhaustively: fewer than ``exhaustive_below``, or a
        small share, which the lists near a query might not hold.
        """
        faiss = load_faiss()
        self.exhaustive = Exhaustive(vectors)
        self.base = base
        self.settings, self.recall = settings, settings.recall
        self.exhaustive_below = exhaustive_below
        self._refined = faiss.IndexRefine(base, self.exhaustive.flat)

    def search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> Found:
        """Return the k nearest positions of each query, never fewer than there are.

        A query whose scanned lists hold fewer is searched exhaustively.
        """
        total = self.base.ntotal
        there = total if mask is None else int(np.count_nonzero(mask))
        if there < max(self.exhaustive_below, THIN * total) or 20 * k > there:
            return self.exhaustive.search(queries, k, mask)
        spread = (
            max(1.0, k / WIDE) * total / there
        )  # the nearest are spread over so many more lists
        settings = replace(self.settings, nprobe=int(np.ceil(self.settings.nprobe * spread)))
        scores, positions = self.scan(queries, k, settings, mask)
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
        faiss = load_faiss()
        nprobe = min(settings.nprobe, self.base.nlist)
        lists = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector(mask))
        asked = max(k, USUAL)
        factor = max(2.0, settings.k_factor * float(np.sqrt(USUAL / asked)))
        params = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=lists)
        scores, positions = self._refined.search(queries, asked, params=params)
        return scores[:, :k], positions[:, :k]
