"""A kind of index takes a module of its own and a row in ``KINDS``."""

import numpy as np
import pytest

from closeness import assert_close
from fovea.search.index.base import Built
from fovea.search.index.exhaustive import Exhaustive
from fovea.search.index.kinds import KINDS
from fovea.search.index.snapshot import read_snapshot
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.index.view import snapshot_path
from vectors import clustered, delete, exhaustive, store

DIM = 16


class Sorted:
    """Exhaustive search over the vectors in the order of their first value."""

    name, recall = "sorted", 1.0

    def __init__(self, vectors, order):
        self.order, self.inner = order, Exhaustive(np.ascontiguousarray(vectors[order]))

    def search(self, queries, k, mask=None):
        scores, places = self.inner.search(queries, k, None if mask is None else mask[self.order])
        return scores, np.where(places < 0, -1, self.order[places])


class SortedKind:
    """How ``Sorted`` is stored: its order."""

    def __init__(self):
        self.calls = []

    def build(self, vectors):
        self.calls.append("build")
        order = np.argsort(vectors[:, 0], kind="stable")
        return Built(order.view(np.uint8), {"count": len(vectors)})

    def extend(self, index, vectors, *, kept, measure):
        return None

    def open(self, vectors, built, exhaustive_below):
        self.calls.append("open")
        if built.settings != {"count": len(vectors)}:
            raise ValueError("it orders other vectors")
        return Sorted(vectors, built.form.view(np.int64))


@pytest.fixture
def model(library):
    return library.set_model("toy", "a" * 64, DIM, "test")


@pytest.fixture
def kind(monkeypatch):
    kind = SortedKind()
    monkeypatch.setitem(KINDS, "sorted", kind)
    return kind


@pytest.fixture
def options():
    return IndexOptions(kind="sorted", exhaustive_below=100)


def agrees(index, vectors, ids):
    queries = clustered(12, DIM, seed=4)
    for mask in (None, np.random.default_rng(0).random(len(ids)) < 0.4):
        allowed = None if mask is None else ids[mask]
        found = index.search(queries, 7, allowed=allowed)
        scores, order = exhaustive(vectors.astype(np.float16), queries, 7, mask)
        assert np.array_equal(found.ids, ids[order])
        assert_close(found.scores, scores, terms=DIM)


def test_a_library_uses_a_kind_that_is_listed(library, model, kind, options):
    vectors = clustered(400, DIM)
    ids = store(library, vectors[:300])
    index = VectorIndex.open(library, model.id, options=options)
    assert index.kind == "exhaustive" and index.save() and index.kind == "sorted"
    agrees(index, vectors[:300], ids)
    ids = np.concatenate([ids, store(library, vectors[300:], first=300)])
    delete(library, ids[:50])
    index.refresh()
    agrees(index, vectors[50:], ids[50:])
    kind.calls.clear()
    again = VectorIndex.open(library, model.id, options=options)
    assert again.kind == "sorted" and kind.calls == ["open"]
    agrees(again, vectors[50:], ids[50:])
    assert again.save() and again.kind == "sorted" and again.check() == []
    assert read_snapshot(snapshot_path(library, model.id)).header.settings == {"count": 350}
    agrees(again, vectors[50:], ids[50:])


def test_another_kind_is_built_where_it_is_asked_for(library, model, kind, options):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    ivf = VectorIndex.open(library, model.id, options=IndexOptions(exhaustive_below=500))
    assert ivf.save() and ivf.kind == "ivf"
    index = VectorIndex.open(library, model.id, options=options)
    assert index.kind == "ivf" and index.save() and index.kind == "sorted"
    agrees(index, vectors, ids)


def test_a_snapshot_of_an_unknown_kind_is_not_used(
    library, model, kind, options, monkeypatch, caplog
):
    vectors = clustered(300, DIM)
    ids = store(library, vectors)
    assert VectorIndex.open(library, model.id, options=options).save()
    monkeypatch.delitem(KINDS, "sorted")
    index = VectorIndex.open(library, model.id)
    assert index.kind == "exhaustive" and "its sorted index cannot be opened" in caplog.text
    agrees(index, vectors, ids)
