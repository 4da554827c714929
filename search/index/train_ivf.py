"""Build an IVF index: train it on a library's vectors, and measure it against exhaustive search.

``build``, ``extend`` and ``open`` make this module an ``IndexKind``.
"""

import logging
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from .base import Built, load_faiss
from .ivf import USUAL, WIDE, IvfIndex, IvfSettings
from .stored_vectors import Vectors, blocks

__all__ = ["build", "extend", "fill", "measure_recall", "open", "train"]

log = logging.getLogger(__name__)

MANY = 1 << 22  # vectors, from which scanning lists costs more than choosing among twice as many
POINTS = 150  # sampled vectors for each list that k-means places; with 48, lists run together
ROUNDS = 6  # of k-means; more improve the lists less than more points do
SAMPLED = 1 << 30  # bytes of float32 vectors sampled for k-means, unless these are too few
LEAST = 39  # sampled vectors a list, below which FAISS warns
MARGIN = 64  # lists
RECALL = {USUAL: 0.99, WIDE: 0.95}  # recall@k that an index must reach
STORED_RECALL = {USUAL: 0.95, WIDE: 0.9}  # where exhaustive search would read the whole database
RECENT = 1.05  # vectors for each when recall was measured, up to which reading all can wait
STORED_SHARE = 1 / 32  # of the lists, above which the former is not worth its time there
PROBES = (8, 16, 32, 64, 128, 256, 512)
FACTORS = (8, 16, 32, 64, 128, 256, 512)
WIDER = (1024, 2048, 4096)  # lists, where exhaustive search is no choice
FINER = (12, 20, 24, 28)  # more of them, where each candidate has to be read
QUERIES = 100  # sampled of each kind
LOGGED = 1_000_000  # embeddings after which a long filling says how far it is


def build(vectors: Vectors) -> Built | None:
    """Train an index of float16 vectors (n, d); None if it misses too many neighbours."""
    log.info("training an index of %d embeddings", len(vectors))
    base = train(vectors)
    log.info("filling the %d lists of the index", base.nlist)
    fill(base, vectors)
    log.info("comparing the index with exhaustive search")
    return _built(base, measure_recall(vectors, base))


def extend(
    index: IvfIndex, vectors: Vectors, *, kept: np.ndarray | None, measure: bool
) -> Built | None:
    """Put other vectors into the lists of an index; None if it then misses too many neighbours."""
    base = load_faiss().clone_index(index.base)
    if kept is not None:
        _keep(base, kept)
    fill(base, vectors)
    if not isinstance(vectors, np.ndarray) and len(vectors) <= RECENT * index.settings.measured_on:
        measure = False
    return _built(base, measure_recall(vectors, base) if measure else index.settings)


def _built(base: Any, settings: IvfSettings | None) -> Built | None:
    if settings is None:
        return None
    return Built(load_faiss().serialize_index(base), asdict(settings))


def open(vectors: Vectors, built: Built, exhaustive_below: int) -> IvfIndex:
    """Open a stored index. Raise ``ValueError`` if FAISS cannot read it as one of these vectors."""
    try:
        settings = IvfSettings(**built.settings)
        base = load_faiss().deserialize_index(built.form)
    except (RuntimeError, TypeError) as exc:
        raise ValueError(f"FAISS cannot read it: {exc}") from exc
    if (base.ntotal, base.d) != vectors.shape:
        raise ValueError(f"it has {base.ntotal} embeddings of width {base.d}")
    return IvfIndex(vectors, base, settings, exhaustive_below)


def train(vectors: Vectors, seed: int = 0) -> Any:
    """Train an empty FAISS index for vectors like these, float16 (n, d).

    It has about √n lists, rounded to a power of two, since scanning them costs less than choosing
    among more; of ``MANY`` vectors, twice as many. Its 4-bit codes are for parts of about 8
    dimensions; of 4 where each candidate that is compared again has to be read.
    """
    faiss = load_faiss()
    n, dim = vectors.shape
    lists = min(1 << int(np.log2(np.sqrt(n)) + (1.5 if n >= MANY else 0.5)), n // LEAST)
    parts = _parts(dim, 8 if isinstance(vectors, np.ndarray) else 4)
    index = faiss.index_factory(dim, f"IVF{lists},PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = ROUNDS
    index.cp.max_points_per_centroid = POINTS
    index.cp.seed = seed
    most = max(LEAST * lists, min(POINTS * lists, SAMPLED // (4 * dim)))
    rows = np.random.default_rng(seed).choice(n, min(n, most), replace=False)
    sample, start = np.empty((len(rows), dim), np.float32), 0
    for _, block in blocks(vectors, np.sort(rows)):
        sample[start : start + len(block)] = block
        start += len(block)
    index.train(sample)
    return index


def fill(index: Any, vectors: Vectors) -> None:
    """Add the vectors that an index lacks, a block at a time; their order is their position."""
    for positions, block in blocks(vectors, start=index.ntotal):
        index.add(block)
        if len(vectors) >= MANY and (positions[-1] + 1) // LOGGED > positions[0] // LOGGED:
            log.info("indexed %d of %d embeddings", positions[-1] + 1, len(vectors))


def _keep(index: Any, kept: np.ndarray) -> None:
    """Drop the positions that a mask (n,) lacks, and number the others anew, in their order."""
    faiss = load_faiss()
    places = np.cumsum(kept) - 1  # (n,), new positions
    index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(~kept)))
    lists = index.invlists
    for number in range(index.nlist):
        if size := lists.list_size(number):
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            ids[:] = places[ids]


def measure_recall(vectors: Vectors, index: Any, seed: int = 0) -> IvfSettings | None:
    """Find the cheapest settings that equal exhaustive search; None if no settings do.

    Twice the lists that suffice, or some more, are a margin for other kinds of query.
    """
    trained = IvfIndex(vectors, index, IvfSettings(1, 1, 0.0), 0)
    queries, itself = _sample(vectors, np.random.default_rng(seed))
    _, truth = trained.exhaustive.search(queries, WIDE + 1)

    held = isinstance(vectors, np.ndarray)
    factors = FACTORS if held else sorted({*FACTORS, *FINER})

    def recall(settings: IvfSettings, least: dict[int, float]) -> float | None:
        """Return recall@10, if it and recall@50 are high enough."""
        recalls = {}
        for k in least:
            found = trained.candidates(queries, k + 1, settings)
            recalls[k] = _recall(found, truth, itself, k)
        log.debug("%s: %s", settings, recalls)
        return recalls[USUAL] if all(recalls[k] >= least[k] for k in least) else None

    def cheapest(least: dict[int, float], most: float) -> IvfSettings | None:
        for nprobe in (probe for probe in (PROBES if held else PROBES + WIDER) if probe <= most):
            if recall(IvfSettings(nprobe, FACTORS[-1], 0.0), least) is None:
                continue
            wide = min(2 * nprobe, nprobe + MARGIN, index.nlist)
            for factor in factors:
                settings = IvfSettings(wide, factor, 0.0)
                if (reached := recall(settings, least)) is not None:
                    log.info("index of %d: %s, recall@10 %.4f", len(vectors), settings, reached)
                    return replace(settings, recall=reached, measured_on=len(vectors))
        return None

    if held:
        return cheapest(RECALL, index.nlist)
    found = cheapest(RECALL, STORED_SHARE * index.nlist)
    return found or cheapest(STORED_RECALL, index.nlist)


def _sample(vectors: Vectors, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
    """Return recall@k of the worse half of the queries, each query itself left out.

    What is among the candidates ``found`` is found.
    """
    shares = np.empty(len(found))
    for row, (mine, theirs, own) in enumerate(zip(found, truth, itself, strict=True)):
        wanted = theirs[theirs != own][:k]
        shares[row] = np.isin(wanted, mine).mean()
    return float(min(shares[half].mean() for half in (itself < 0, itself >= 0) if half.any()))


def _parts(dim: int, width: int) -> int:
    """Return the parts of a code, of about this width each; they must divide that of a vector."""
    wanted = max(1, round(dim / width))
    divisors = [parts for parts in range(1, dim + 1) if dim % parts == 0]
    return min(divisors, key=lambda parts: abs(parts - wanted))
