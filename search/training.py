"""Train an index on a library's vectors, and prove it against exhaustive search."""

import logging
from typing import Any

import numpy as np

from .kinds import WIDEST, Effort, Exhaustive, Trained, load_faiss

__all__ = ["fill", "prove", "train"]

log = logging.getLogger(__name__)

POINTS = 64  # sampled vectors for each list that k-means places
ROUNDS = 8  # of k-means; more improve the lists very little
RECALL = 0.99  # recall@10 and recall@50 that an index must reach
PROBES = (8, 16, 32, 64, 128, 256, 512)
FACTORS = (8, 16, 32, 64, 128)
QUERIES = 128  # sampled of each sort
CHUNK = 1 << 16  # vectors added at a time


def train(vectors: np.ndarray, seed: int = 0) -> Any:
    """A trained, empty FAISS index for vectors like these, float16 (n, d).

    About 2 √n lists, rounded to a power of two; 4-bit codes of parts of at most 8 dimensions.
    """
    faiss = load_faiss()
    n, dim = vectors.shape
    lists = min(1 << int(np.log2(2 * np.sqrt(n)) + 0.5), n // POINTS)
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

    Queries are sampled vectors, each without itself as an answer, and vectors pulled some way
    towards other pictures, as a text's or a sum of pictures may lie. Twice the lists that
    suffice are kept as a margin for queries of another sort.
    """
    rng = np.random.default_rng(seed)
    own = rng.choice(len(vectors), min(2 * QUERIES, len(vectors)), replace=False)
    queries = vectors[own].astype(np.float32)
    pulled = len(own) // 2
    ends = vectors[rng.choice(len(vectors), 2 * pulled)].astype(np.float32)
    queries[:pulled] += ends[:pulled] - ends[pulled:]
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    itself = np.where(np.arange(len(own)) < pulled, -1, own)
    _, truth = Exhaustive(vectors).search(queries, WIDEST + 1)

    trained = Trained(vectors, index, Effort(1, 1, 0.0), 0)
    for nprobe in (probe for probe in PROBES if probe <= index.nlist):
        if not _passes(trained, queries, truth, itself, Effort(nprobe, FACTORS[-1], 0.0)):
            continue
        wide = min(2 * nprobe, index.nlist)
        for factor in FACTORS:
            effort = Effort(wide, factor, 0.0)
            if recalls := _passes(trained, queries, truth, itself, effort):
                log.info("trained index: %s, recall@10 %.4f", effort, recalls[0])
                return Effort(wide, factor, recalls[0])
    return None


def _passes(
    trained: Trained, queries: np.ndarray, truth: np.ndarray, itself: np.ndarray, effort: Effort
) -> tuple[float, float] | None:
    """recall@10 and recall@50 if both, for both sorts of queries, are high enough."""
    _, found = trained.look(queries, WIDEST + 1, effort)
    _, found_10 = trained.look(queries, 11, effort)  # fewer candidates than for 50
    worst = [
        min(_recall(found_10[part], truth[part], itself[part], 10) for part in _halves(itself)),
        min(_recall(found[part], truth[part], itself[part], WIDEST) for part in _halves(itself)),
    ]
    return (worst[0], worst[1]) if min(worst) >= RECALL else None


def _halves(itself: np.ndarray) -> list[np.ndarray]:
    halves = [itself < 0, itself >= 0]
    return [half for half in halves if half.any()]


def _recall(found: np.ndarray, truth: np.ndarray, itself: np.ndarray, k: int) -> float:
    """The mean share of the k true neighbours that were found, a query itself left out."""
    shares = []
    for mine, theirs, own in zip(found, truth, itself, strict=True):
        wanted = [int(position) for position in theirs if position != own][:k]
        got = {int(position) for position in mine if position != own and position >= 0}
        shares.append(sum(position in got for position in wanted) / max(1, len(wanted)))
    return float(np.mean(shares))


def _parts(dim: int) -> int:
    """How many parts a code has: 64 for 512 dimensions; the width must divide into them."""
    wanted = max(1, round(dim / 8))
    divisors = [parts for parts in range(1, dim + 1) if dim % parts == 0]
    return min(divisors, key=lambda parts: abs(parts - wanted))
