"""Train an index on a library's vectors, and prove it against exhaustive search."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from .ivf import USUAL, WIDE, Effort, Trained
from .kinds import load_faiss

__all__ = ["fill", "prove", "train"]

log = logging.getLogger(__name__)

POINTS = 150  # sampled vectors for each list that k-means places; with 48, lists run together
ROUNDS = 6  # of k-means; more improve the lists less than more points do
LEAST = 39  # sampled vectors a list, below which FAISS warns
MARGIN = 64  # lists
RECALL = {USUAL: 0.99, WIDE: 0.95}  # recall@k that an index must reach
PROBES = (8, 16, 32, 64, 128, 256, 512)
FACTORS = (8, 16, 32, 64, 128, 256, 512)
QUERIES = 100  # sampled of each sort
CHUNK = 1 << 16  # vectors added at a time


def train(vectors: np.ndarray, seed: int = 0) -> Any:
    """A trained, empty FAISS index for vectors like these, float16 (n, d).

    About √n lists, rounded to a power of two, since scanning them costs less than choosing
    among more; 4-bit codes of parts of about 8 dimensions.
    """
    faiss = load_faiss()
    n, dim = vectors.shape
    lists = min(1 << int(np.log2(np.sqrt(n)) + 0.5), n // LEAST)
    index = faiss.index_factory(dim, f"IVF{lists},PQ{_parts(dim)}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = ROUNDS
    index.cp.max_points_per_centroid = POINTS
    index.cp.seed = seed
    rows = np.random.default_rng(seed).choice(n, min(n, POINTS * lists), replace=False)
    index.train(vectors[np.sort(rows)].astype(np.float32))
    return index


def fill(index: Any, vectors: np.ndarray) -> None:
    """Add the vectors that a trained index does not hold yet; their order is their position."""
    for start in range(index.ntotal, len(vectors), CHUNK):
        index.add(vectors[start : start + CHUNK].astype(np.float32))


def prove(vectors: np.ndarray, index: Any, seed: int = 0) -> Effort | None:
    """The least effort at which the index equals exhaustive search, ``None`` if none does.

    Twice the lists that suffice, or some more, are a margin for queries of another sort.
    """
    trained = Trained(vectors, index, Effort(1, 1, 0.0), 0)
    queries, itself = _sample(vectors, np.random.default_rng(seed))
    _, truth = trained.exhaustive.search(queries, WIDE + 1)

    def recall(effort: Effort) -> float | None:
        """recall@10, if it and recall@50 are high enough."""
        recalls = {}
        for k in RECALL:
            _, found = trained.look(queries, k + 1, effort)
            recalls[k] = _recall(found, truth, itself, k)
        return recalls[USUAL] if all(recalls[k] >= RECALL[k] for k in RECALL) else None

    for nprobe in (probe for probe in PROBES if probe <= index.nlist):
        if recall(Effort(nprobe, FACTORS[-1], 0.0)) is None:
            continue
        wide = min(2 * nprobe, nprobe + MARGIN, index.nlist)
        for factor in FACTORS:
            effort = Effort(wide, factor, 0.0)
            if (reached := recall(effort)) is not None:
                log.info("index of %d: %s, recall@10 %.4f", len(vectors), effort, reached)
                return replace(effort, recall=reached)
    return None


def _sample(vectors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Queries, float32 (q, d), and which position each one is, -1 for none.

    Half are vectors of the index. The others are pulled away from one by the difference of two
    others, as a text or a sum of pictures lies away from any picture.
    """
    own = rng.choice(len(vectors), min(2 * QUERIES, len(vectors)), replace=False)
    queries = vectors[own].astype(np.float32)
    pulled = len(own) // 2
    ends = vectors[rng.choice(len(vectors), 2 * pulled)].astype(np.float32)
    queries[:pulled] += 0.5 * (ends[:pulled] - ends[pulled:])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True) + 1e-12
    return queries, np.where(np.arange(len(own)) < pulled, -1, own)


def _recall(found: np.ndarray, truth: np.ndarray, itself: np.ndarray, k: int) -> float:
    """recall@k of the worse half of the queries, a query itself left out of its answer."""
    shares = np.empty(len(found))
    for row, (mine, theirs, own) in enumerate(zip(found, truth, itself, strict=True)):
        wanted = theirs[theirs != own][:k]
        shares[row] = np.isin(wanted, mine[mine != own][:k]).mean()
    return float(min(shares[half].mean() for half in (itself < 0, itself >= 0) if half.any()))


def _parts(dim: int) -> int:
    """How many parts a code has: 64 for 512 dimensions; the width must divide into them."""
    wanted = max(1, round(dim / 8))
    divisors = [parts for parts in range(1, dim + 1) if dim % parts == 0]
    return min(divisors, key=lambda parts: abs(parts - wanted))
