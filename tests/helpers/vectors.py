"""Unit vectors, rows of small libraries, and the exhaustive search to compare indexes with."""

import numpy as np

from closeness import assert_close
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch


def clustered(
    n: int, dim: int, seed: int = 0, *, centres: int = 40, spread: float = 0.6
) -> np.ndarray:
    """float32 (n, dim) unit rows around common centres; ``seed`` chooses the rows alone."""
    middle = np.random.default_rng(99).standard_normal((centres, dim))
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, dim)) * (spread / np.sqrt(dim))
    rows = middle[rng.integers(0, centres, n)] + noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exhaustive(
    vectors: np.ndarray, queries: np.ndarray, k: int, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k best scores and positions, by the definition, in float64."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float16).astype(np.float64).T
    if mask is not None:
        scores[:, ~mask] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true neighbours that were found."""
    if not truth.size:
        return 1.0
    pairs = zip(found, truth, strict=True)
    return float(np.mean([np.isin(theirs, mine).mean() for mine, theirs in pairs]))


def store(library: Library, vectors: np.ndarray, first: int = 0) -> np.ndarray:
    """Store vectors as images whose contents are numbered from ``first``; return their ids."""
    hashes = [(first + n).to_bytes(32, "big") for n in range(len(vectors))]
    images = [NewImage(key, 1, vector=row) for key, row in zip(hashes, vectors, strict=True)]
    library.write_batch(WriteBatch(images))
    ids = library.image_by_hash(hashes)
    return np.array([ids[key] for key in hashes])


def delete(library: Library, image_ids: np.ndarray) -> None:
    """Delete images, and so their embeddings."""
    with library.transaction() as conn:
        conn.executemany("DELETE FROM images WHERE id = ?", [(int(n),) for n in image_ids])


DIM = 16
SMALL = IndexOptions(exhaustive_below=1500, at_once=100)
QUERIES = clustered(10, DIM, seed=77)


def opened(library, options=None) -> VectorIndex:
    return VectorIndex.open(library, library.model().id, options=options)


def check_answers(index, vectors, ids, k=10, least=1.0) -> None:
    """The index finds what exhaustive search finds among the vectors with these ids."""
    found = index.search(QUERIES, k)
    there = min(k, len(ids))
    scores, order = exhaustive(vectors, QUERIES, there)
    assert len(index) == len(ids)
    assert found.scores.dtype == np.float32 and found.ids.dtype == np.int64
    assert found.ids.shape == found.scores.shape == (len(QUERIES), k)
    assert recall(found.ids[:, :there], ids[order]) >= least
    assert (found.ids[:, there:] == -1).all() and np.isneginf(found.scores[:, there:]).all()
    if least == 1.0:
        assert_close(found.scores[:, :there], scores, terms=DIM)


def content(number: int) -> bytes:
    """A stand-in for a SHA-256."""
    return number.to_bytes(32, "big")


def unit(number: int, dim: int = 3) -> np.ndarray:
    vector = np.random.default_rng(number).standard_normal(dim).astype("float32")
    return vector / np.linalg.norm(vector)


def put(library: Library, root_id: int, path: bytes, number: int, state: str = "indexed") -> None:
    """Write one file with the content ``number``."""
    library.set_model("toy", "a" * 64, 3, "test")
    batch = WriteBatch(
        [NewImage(content(number), 10, ImageMetadata(4, 3), unit(number))],
        [FileWrite(path, root_id, 10, 99, content(number), state)],
    )
    library.write_batch(batch)


def paths(library: Library) -> dict[bytes, str]:
    return {entry.path: entry.state for entry in library.entries()}


def images(library: Library) -> list[int]:
    return [row[0] for row in library.rows("SELECT id FROM images ORDER BY id")]
