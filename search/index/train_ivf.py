"""Build an IVF index: train it on a library's vectors, and measure it against exhaustive search.

``build``, ``extend`` and ``open`` make this module an ``IndexKind``.
"""

import logging
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from .base import Built, load_faiss
from .ivf import USUAL, WIDE, IvfIndex, IvfSettings

__all__ = ["build", "extend", "fill", "measure_recall", "open", "train"]

log = logging.getLogger(__name__)

POINTS = 150  # sampled vectors for each list that k-means places; with 48, lists run together
ROUNDS = 6  # of k-means; more improve the lists less than more points do
LEAST = 39  # sampled vectors a list, below which FAISS warns
MARGIN = 64  # lists
RECALL = {USUAL: 0.99, WIDE: 0.95}  # recall@k that an index must reach
PROBES = (8, 16, 32, 64, 128, 256, 512)
FACTORS = (8, 16, 32, 64, 128, 256, 512)
QUERIES = 100  # sampled of each kind
CHUNK = 1 << 16  # vectors added at a time


def build(vectors: np.ndarray) -> Built | None:
    """Train an index of float16 vectors (n, d); None if it misses too many neighbours."""
    log.info("training an index of %d embeddings", len(vectors))
    base = train(vectors)
    fill(base, vectors)
    return _built(base, measure_recall(vectors, base))


def extend(index: IvfIndex, vectors: np.ndarray, *, appended: bool, measure: bool) -> Built | None:
    """Put other vectors into the lists of an index; None if it then misses too many neighbours."""
    base = load_faiss().clone_index(index.base)
    if not appended:
        base.reset()  # empties the lists, and keeps what was learnt
    fill(base, vectors)
    return _built(base, measure_recall(vectors, base) if measure else index.settings)


def _built(base: Any, settings: IvfSettings | None) -> Built | None:
    if settings is None:
        return None
    return Built(load_faiss().serialize_index(base), asdict(settings))


def open(vectors: np.ndarray, built: Built, exhaustive_below: int) -> IvfIndex:
    """Open a stored index. Raise ``ValueError`` if FAISS cannot read it as one of these vectors."""
    try:
        settings = IvfSettings(**built.settings)
        base = load_faiss().deserialize_index(built.form)
    except (RuntimeError, TypeError) as exc:
        raise ValueError(f"FAISS cannot read it: {exc}") from exc
    if (base.ntotal, base.d) != vectors.shape:
        raise ValueError(f"it has {base.ntotal} embeddings of width {base.d}")
    return IvfIndex(vectors, base, settings, exhaustive_below)


def train(vectors: np.ndarray, seed: int = 0) -> Any:
    """Train an empty FAISS index for vectors like these, float16 (n, d).

    It has about √n lists, rounded to a power of two, since scanning them costs less than choosing
    among more, and 4-bit codes for parts of about 8 dimensions.
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
    """Add the vectors that an index lacks; their order is their position."""
    for start in range(index.ntotal, len(vectors), CHUNK):
        index.add(vectors[start : start + CHUNK].astype(np.float32))


def measure_recall(vectors: np.ndarray, index: Any, seed: int = 0) -> IvfSettings | None:
    """Find the cheapest settings that equal exhaustive search; None if no settings do.

    Twice the lists that suffice, or some more, are a margin for other kinds of query.
    """
    trained = IvfIndex(vectors, index, IvfSettings(1, 1, 0.0), 0)
    queries, itself = _sample(vectors, np.random.default_rng(seed))
    _, truth = trained.exhaustive.search(queries, WIDE + 1)

    def recall(settings: IvfSettings) -> float | None:
        """Return recall@10, if it and recall@50 are high enough."""
        recalls = {}
        for k in RECALL:
            _, found = trained.scan(queries, k + 1, settings)
            recalls[k] = _recall(found, truth, itself, k)
        return recalls[USUAL] if all(recalls[k] >= RECALL[k] for k in RECALL) else None

    for nprobe in (probe for probe in PROBES if probe <= index.nlist):
        if recall(IvfSettings(nprobe, FACTORS[-1], 0.0)) is None:
            continue
        wide = min(2 * nprobe, nprobe + MARGIN, index.nlist)
        for factor in FACTORS:
            settings = IvfSettings(wide, factor, 0.0)
            if (reached := recall(settings)) is not None:
                log.info("index of %d: %s, recall@10 %.4f", len(vectors), settings, reached)
                return replace(settings, recall=reached)
    return None


def _sample(vectors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sample queries, float32 (q, d), and the position that each one is, -1 for none.

    Half are vectors of the index. The others are moved away from one by the difference of two
    others, since a text or a sum of pictures lies away from any picture.
    """
    own = rng.choice(len(vectors), min(2 * QUERIES, len(vectors)), replace=False)
    queries = vectors[own].astype(np.float32)
    pulled = len(own) // 2
    ends = vectors[rng.choice(len(vectors), 2 * pulled)].astype(np.float32)
    queries[:pulled] += 0.5 * (ends[:pulled] - ends[pulled:])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True) + 1e-12
    return queries, np.where(np.arange(len(own)) < pulled, -1, own)


def _recall(found: np.ndarray, truth: np.ndarray, itself: np.ndarray, k: int) -> float:
    """Return recall@k of the worse half of the queries, each query itself left out."""
    shares = np.empty(len(found))
    for row, (mine, theirs, own) in enumerate(zip(found, truth, itself, strict=True)):
        wanted = theirs[theirs != own][:k]
        shares[row] = np.isin(wanted, mine[mine != own][:k]).mean()
    return float(min(shares[half].mean() for half in (itself < 0, itself >= 0) if half.any()))


def _parts(dim: int) -> int:
    """Return the parts of a code: 64 for 512 dimensions; they must divide the width."""
    wanted = max(1, round(dim / 8))
    divisors = [parts for parts in range(1, dim + 1) if dim % parts == 0]
    return min(divisors, key=lambda parts: abs(parts - wanted))
