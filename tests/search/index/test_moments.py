"""Moments in the index: a video is as near as its best moment, and is there once."""

import numpy as np
import pytest

from fovea.search.errors import LibraryDamaged
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.rows import ImageMetadata, Moments, NewImage, WriteBatch
from vectors import DIM, QUERIES, SMALL, clustered, delete, store


def film(library, number, vectors, first=0):
    """Store a video whose moments are a second apart; return its id."""
    digest = (10**6 + number).to_bytes(32, "big")
    times = np.arange(len(vectors)) * 1000 + first
    metadata = ImageMetadata(duration_ms=60_000, poster_ms=int(times[0]))
    image = NewImage(digest, 1, metadata, vectors[0], moments=Moments(times, vectors))
    library.write_batch(WriteBatch([image]))
    return library.image_by_hash([digest])[digest]


@pytest.fixture
def stored(library, model):
    """Vectors by image id: those of 300 pictures, and of 40 videos with 1 to 12 moments."""
    pictures = clustered(300, DIM, seed=1)
    by_id = dict(zip(store(library, pictures).tolist(), pictures[:, None], strict=True))
    rng = np.random.default_rng(5)
    for number in range(40):
        vectors = clustered(int(rng.integers(1, 13)), DIM, seed=100 + number)
        by_id[film(library, number, vectors)] = vectors
    return by_id


def expected(by_id, query, allowed=None):
    """Ids by the best of their vectors, by the definition."""
    best = {
        key: float((rows.astype(np.float16).astype(np.float64) @ query).max())
        for key, rows in by_id.items()
        if allowed is None or key in allowed
    }
    return sorted(best.items(), key=lambda entry: -entry[1])


@pytest.mark.parametrize("k", [1, 7, 60, 400])
def test_images_come_in_the_order_of_their_best_vectors(library, model, stored, k):
    index = VectorIndex.open(library, model.id, options=SMALL)
    found = index.search(QUERIES, k)
    for query, ids, scores in zip(QUERIES, found.ids, found.scores, strict=True):
        truth = expected(stored, query)[:k]
        there = ids >= 0
        assert there.sum() == min(k, len(stored)) and len(set(ids[there].tolist())) == there.sum()
        assert scores[there] == pytest.approx([score for _, score in truth], abs=1e-3)
        assert np.mean([a == b for a, (b, _) in zip(ids.tolist(), truth, strict=False)]) > 0.95


def test_filters_hold_for_moments_too(library, model, stored):
    index, query = VectorIndex.open(library, model.id, options=SMALL), QUERIES[0]
    some = np.array(sorted(stored))[::3]
    found = index.search(query[None], 500, allowed=some)
    ids = found.ids[0][found.ids[0] >= 0]
    assert sorted(ids.tolist()) == some.tolist()
    assert ids[:10].tolist() == [key for key, _ in expected(stored, query, set(some.tolist()))][:10]
    out = ids[:5]
    left = index.search(query[None], 500, exclude=np.sort(out)).ids[0]
    assert not np.isin(out, left).any() and np.count_nonzero(left >= 0) == len(stored) - 5


def test_the_best_moment_and_its_time_are_known(library, model, stored):
    index = VectorIndex.open(library, model.id, options=SMALL)
    ids = np.array([*sorted(stored), 10**9])
    for query in QUERIES[:3]:
        found = index.best_moments(ids, query)
        assert found.places.tolist() == list(range(300, 340))
        for place, time, vector in zip(found.places, found.times, found.vectors, strict=True):
            rows = stored[int(ids[place])]
            best = int((rows.astype(np.float16).astype(np.float32) @ query).argmax())
            assert time == 1000 * best and vector == pytest.approx(rows[best], abs=1e-3)
    assert len(index.best_moments(np.array([], np.int64), QUERIES[0]).places) == 0


def test_what_comes_and_goes_is_noticed(library, model, stored):
    index, query = VectorIndex.open(library, model.id, options=SMALL), QUERIES[1]
    near = film(library, 900, np.stack([-query, query]))
    index.refresh()
    assert index.search(query[None], 1).ids.tolist() == [[near]]
    assert index.best_moments(np.array([near]), query).times.tolist() == [1000]
    delete(library, np.array([near]))
    index.refresh()
    assert near not in index.search(query[None], 400).ids
    videos = np.array(sorted(stored))[300:]
    delete(library, videos)
    index.refresh()
    assert len(index.best_moments(videos, query).places) == 0
    assert np.count_nonzero(index.search(query[None], 400).ids >= 0) == 300
    another = film(library, 901, query[None])
    index.refresh()
    assert index.search(query[None], 1).ids.tolist() == [[another]]


def test_a_large_index_takes_moments_in(library, model, stored):
    """One that FAISS has been trained for gives the same first images."""
    more = clustered(1500, DIM, seed=9)
    stored |= dict(zip(store(library, more, first=5000).tolist(), more[:, None], strict=True))
    index = VectorIndex.open(library, model.id, options=SMALL)
    index.save()
    assert index.kind == "ivf"
    for query in QUERIES[:3]:
        truth = [key for key, _ in expected(stored, query)][:10]
        assert np.isin(index.search(query[None], 10).ids[0], truth).mean() >= 0.9


def test_moments_that_do_not_fit_are_damage(library, model, stored):
    library.conn.execute("UPDATE moments SET vectors = x'00' WHERE embedding_id % 2 = 0")
    with pytest.raises(LibraryDamaged, match="the moments of embedding"):
        VectorIndex.open(library, model.id, options=SMALL)


def test_a_library_without_videos_holds_nothing_for_them(library, model):
    store(library, clustered(5, DIM))
    index = VectorIndex.open(library, model.id)
    before = index._moments
    index.refresh()
    assert len(before) == 0 and index._moments is before
