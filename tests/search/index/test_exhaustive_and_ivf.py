"""Each kind of index is compared with exhaustive search in NumPy."""

import numpy as np
import pytest

from closeness import assert_close
from fovea.search.index import exhaustive as module
from fovea.search.index import train_ivf as training
from fovea.search.index.base import best
from fovea.search.index.exhaustive import Exhaustive
from fovea.search.index.ivf import IvfIndex, IvfSettings
from vectors import clustered, exhaustive, recall

DIM = 64


@pytest.fixture(scope="module")
def vectors():
    return clustered(6000, DIM).astype(np.float16)


@pytest.fixture(scope="module")
def base(vectors):
    index = training.train(vectors)
    training.fill(index, vectors)
    return index


@pytest.fixture(scope="module")
def effort(vectors, base):
    return training.measure_recall(vectors, base)


@pytest.fixture
def queries():
    return clustered(20, DIM, seed=1)


def mask_of(n, share, seed=3):
    return np.random.default_rng(seed).random(n) < share


@pytest.mark.parametrize("n", [1, 7, 500, module.SMALL, module.SMALL + 1, 6000])
@pytest.mark.parametrize("share", [None, 1.0, 0.6, 0.1, 0.001])
def test_exhaustive_search_is_exact(vectors, queries, n, share):
    mask = None if share is None else mask_of(n, share)
    scores, positions = Exhaustive(vectors[:n]).search(queries, 10, mask)
    wanted, order = exhaustive(vectors[:n], queries, min(10, n), mask)
    there = min(10, n if mask is None else int(mask.sum()))
    assert positions.shape == scores.shape == (20, 10)
    assert scores.dtype == np.float32 and positions.dtype == np.int64
    assert_close(scores[:, :there], wanted[:, :there], terms=DIM)
    assert (positions[:, there:] == -1).all() and np.isneginf(scores[:, there:]).all()
    assert recall(positions[:, :there], order[:, :there]) >= 0.99  # but for ties
    if mask is not None:
        assert mask[positions[positions >= 0]].all()


def test_exhaustive_search_of_nothing_is_empty(queries):
    scores, positions = Exhaustive(np.empty((0, DIM), np.float16)).search(queries, 3)
    assert (positions == -1).all() and np.isneginf(scores).all()


def test_faiss_reads_the_vectors_where_they_are(vectors):
    copy = vectors.copy()
    searched = Exhaustive(copy)
    query = np.eye(DIM, dtype=np.float32)[:1]
    searched.search(query, 1)
    copy[4321] = 0
    copy[4321, 0] = 1  # the nearest there can be, were it seen
    scores, positions = searched.search(query, 1)
    assert (positions[0, 0], scores[0, 0]) == (4321, pytest.approx(1))


def test_vectors_are_copied_where_faiss_has_no_views(vectors, queries, monkeypatch):
    import faiss

    class Older:
        def __init__(self, *args):
            self.index = faiss.IndexScalarQuantizer(*args)

        def add_sa_codes(self, raw):
            self.index.add_sa_codes(raw)

        def search(self, *args, **kwargs):
            return self.index.search(*args, **kwargs)

    class Module:
        ScalarQuantizer, METRIC_INNER_PRODUCT = faiss.ScalarQuantizer, faiss.METRIC_INNER_PRODUCT
        IndexScalarQuantizer = Older

    viewed = Exhaustive(vectors).search(queries, 5)
    monkeypatch.setattr(module, "load_faiss", lambda: Module)
    copied = Exhaustive(vectors).search(queries, 5)
    assert_close(copied[0], viewed[0], terms=DIM)
    assert np.array_equal(viewed[1], copied[1])


def test_best_orders_equal_scores_by_position():
    scores = np.array([[0.5, 1.0, 1.0, 0.5]], np.float32)
    found, positions = best(scores, np.array([9, 8, 3, 2]), 3)
    assert positions.tolist() == [[3, 8, 2]]
    assert found.tolist() == [[1.0, 1.0, 0.5]]


def test_best_of_many_is_that_of_a_full_sort():
    scores = np.random.default_rng(0).standard_normal((5, 1000)).astype(np.float32)
    found, positions = best(scores, np.arange(1000), 7)
    assert np.array_equal(positions, np.argsort(-scores, axis=1)[:, :7])
    assert np.array_equal(found, -np.sort(-scores, axis=1)[:, :7])


def test_a_trained_index_proves_its_recall_on_other_queries(vectors, base, effort):
    assert effort.recall >= 0.99
    unseen = clustered(200, DIM, seed=5)
    _, positions = IvfIndex(vectors, base, effort, 0).search(unseen, 10)
    assert recall(positions, exhaustive(vectors, unseen, 10)[1]) >= 0.98


def test_scores_of_a_trained_index_are_those_of_the_vectors(vectors, base, effort, queries):
    scores, positions = IvfIndex(vectors, base, effort, 0).search(queries, 10)
    floats = vectors.astype(np.float64)
    wanted = np.einsum("qd,qkd->qk", queries.astype(np.float64), floats[positions])
    assert_close(scores, wanted, terms=DIM)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("share", [0.95, 0.5, 0.2, 0.05, 0.001, 0.0])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_a_masked_answer_is_full_and_within_the_mask(vectors, base, effort, queries, share, k):
    mask = mask_of(len(vectors), share)
    _, positions = IvfIndex(vectors, base, effort, 0).search(queries, k, mask)
    there = min(k, int(mask.sum()))
    assert (positions[:, :there] >= 0).all() and (positions[:, there:] == -1).all()
    assert mask[positions[:, :there]].all()
    if there:
        truth = exhaustive(vectors, queries, k, mask)[1][:, :there]
        assert recall(positions, truth) >= 0.95


def test_an_answer_that_the_lists_cannot_fill_is_searched_exhaustively(vectors, base, queries):
    lazy = IvfIndex(vectors, base, IvfSettings(1, 1, 0.0), 0)
    _, looked = lazy.scan(queries, 50, lazy.settings)
    short = (looked < 0).any(axis=1)
    assert short.any()  # one list holds fewer
    _, positions = lazy.search(queries, 50)
    assert (positions >= 0).all()
    truth = exhaustive(vectors, queries[short], 50)[1]
    assert recall(positions[short], truth) >= 0.99


def test_an_answer_nearly_as_long_as_the_index_is_exact(vectors, base, effort, queries):
    _, positions = IvfIndex(vectors, base, effort, 0).search(queries, 6000)
    assert np.array_equal(np.sort(positions, axis=1), np.tile(np.arange(6000), (20, 1)))


def test_a_mask_of_few_is_exact_however_lazy_the_index(vectors, base, queries):
    mask = mask_of(len(vectors), 0.5)
    lazy = IvfIndex(vectors, base, IvfSettings(1, 1, 0.0), exhaustive_below=4000)
    _, positions = lazy.search(queries, 10, mask)
    assert recall(positions, exhaustive(vectors, queries, 10, mask)[1]) >= 0.99
