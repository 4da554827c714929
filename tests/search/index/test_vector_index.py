"""Answers are those of the database, whatever became of the snapshot."""

from dataclasses import replace

import numpy as np
import pytest

from fovea.search.errors import LibraryError
from fovea.search.index import train_ivf as training
from fovea.search.index.save import is_saved
from fovea.search.index.snapshot import read_snapshot
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import Library
from vectors import (
    DIM,
    QUERIES,
    SMALL,
    check_answers,
    clustered,
    delete,
    exhaustive,
    opened,
    recall,
    store,
)


def test_an_empty_library_answers_with_nothing(library, model):
    index = opened(library)
    found = index.search(QUERIES, 3)
    assert (found.ids == -1).all() and len(index) == 0
    assert not index.save()


def test_answers_equal_exhaustive_search(library, model):
    vectors = clustered(500, DIM)
    ids = store(library, vectors)
    check_answers(opened(library), vectors, ids)


def test_an_unknown_model_is_an_error(library):
    with pytest.raises(LibraryError, match="no model 7"):
        VectorIndex.open(library, 7)


@pytest.mark.parametrize(
    ("queries", "k", "complaint"),
    [
        (np.zeros((1, DIM + 1), "f4"), 1, "shape"),
        (np.zeros(DIM, "f4"), 1, "shape"),
        (np.full((1, DIM), np.nan, "f4"), 1, "not numbers"),
        (np.zeros((1, DIM), "f4"), 0, "k is 0"),
    ],
)
def test_a_query_that_cannot_be_is_refused(library, model, queries, k, complaint):
    store(library, clustered(5, DIM))
    with pytest.raises(ValueError, match=complaint):
        opened(library).search(queries, k)


def test_each_model_has_its_own_index(library, model):
    vectors = clustered(50, DIM)
    ids = store(library, vectors)
    other = library.set_model("wide", "b" * 64, 3, "test")
    store(library, clustered(20, 3), first=0)
    assert len(VectorIndex.open(library, other.id)) == 20
    index = VectorIndex.open(library, model.id)
    check_answers(index, vectors, ids)
    index.save()
    assert snapshot_path(library, model.id) != snapshot_path(library, other.id)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("share", [0.9, 0.1, 0.002])
def test_allowed_and_excluded_ids_are_heeded(library, model, trained, share):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors[:1900])
    index = opened(library, IndexOptions(exhaustive_below=500 if trained else 9999))
    index.save()
    assert index.kind == ("ivf" if trained else "exhaustive")
    ids = np.concatenate([ids, store(library, vectors[1900:], first=1900)])
    index.refresh()
    mask = np.random.default_rng(0).random(2000) < share
    allowed = np.append(ids[mask], 10**9)  # and one that does not exist
    found = index.search(QUERIES, 10, allowed=allowed)
    there = min(10, int(mask.sum()))
    _, order = exhaustive(vectors, QUERIES, there, mask)
    assert recall(found.ids[:, :there], ids[order]) >= 0.95
    assert (found.ids[:, :there] >= 0).all() and (found.ids[:, there:] == -1).all()

    first = [int(n) for n in found.ids[:, 0] if n >= 0]
    rest = index.search(QUERIES, 10, allowed=allowed, exclude=first)
    assert not np.isin(rest.ids, first).any()
    assert np.isin(rest.ids[rest.ids >= 0], ids[mask]).all()
    plain = index.search(QUERIES, 10, exclude=first)
    assert not np.isin(plain.ids, first).any() and (plain.ids >= 0).all()
    assert (index.search(QUERIES, 3, allowed=[]).ids == -1).all()


def test_images_in_another_order_than_their_embeddings_are_found(library, model):
    vectors = clustered(60, DIM)
    ids = store(library, vectors)
    delete_embeddings = [int(n) for n in ids[:30]]
    with library.transaction() as conn:
        conn.executemany(
            "DELETE FROM embeddings WHERE image_id = ?", [(n,) for n in delete_embeddings]
        )
    store(library, vectors[:30])  # the same images, embedded again
    index = opened(library)
    check_answers(index, vectors, ids)
    assert index.search(QUERIES, 5, allowed=ids[:10]).ids.max() <= ids[9]


def test_vectors_of_images_come_from_the_snapshot_and_from_what_is_newer(library, model):
    vectors = clustered(90, DIM)
    ids = store(library, vectors[:60])
    assert opened(library).save()
    ids = np.concatenate([ids, store(library, vectors[60:], 60)])
    gone = ids[[5, 70]]
    delete(library, gone)
    index = opened(library)
    wanted = np.concatenate([ids[::-1], [10**6]])
    places, found = index.vectors(wanted)
    assert found.dtype == np.float32 and sorted(wanted[places]) == sorted(set(ids) - set(gone))
    assert found.tolist() == vectors[::-1].astype(np.float16)[places].tolist()
    places, found = index.vectors(gone)
    assert len(places) == 0 and found.shape == (0, DIM)


def test_what_is_written_and_deleted_after_the_snapshot_counts_at_once(library, model):
    vectors = clustered(800, DIM)
    ids = store(library, vectors[:700])
    index = opened(library)
    assert index.save()
    ids = np.concatenate([ids, store(library, vectors[700:], first=700)])
    gone = np.isin(np.arange(800), [3, 4, 699, 700, 799])
    delete(library, ids[gone])
    index.refresh()
    check_answers(index, vectors[~gone], ids[~gone])
    check_answers(opened(library), vectors[~gone], ids[~gone])
    assert index.check() == []


def test_another_process_write_is_seen_by_an_open_index(library, model):
    vectors = clustered(200, DIM)
    ids = store(library, vectors[:150])
    index = opened(library)
    with Library.open(library.folder) as other:
        ids = np.concatenate([ids, store(other, vectors[150:], first=150)])
        delete(other, ids[:20])
    index.refresh()
    check_answers(index, vectors[20:], ids[20:])


def test_an_embedding_written_and_deleted_between_two_looks_is_never_seen(library, model):
    vectors = clustered(50, DIM)
    ids = store(library, vectors[:40])
    index = opened(library)
    delete(library, store(library, vectors[40:], first=40))
    index.refresh()
    check_answers(index, vectors[:40], ids)


def test_deleting_everything_leaves_nothing(library, model):
    ids = store(library, clustered(300, DIM))
    index = opened(library)
    index.save()
    delete(library, ids)
    index.refresh()
    assert (index.search(QUERIES, 3).ids == -1).all()
    assert index.save() and len(opened(library)) == 0


def test_a_snapshot_is_written_again_when_enough_has_changed(library, model):
    vectors = clustered(1000, DIM)
    ids = store(library, vectors[:900])
    index = opened(library, IndexOptions(share=0.05))
    assert index.save() and not index.save()
    store(library, vectors[900:940], first=900)
    assert not index.save()  # 40 of 940 are not worth it
    delete(library, ids[:10])
    assert index.save()  # 50 of 930 are
    header = read_snapshot(snapshot_path(library, model.id)).header
    assert (header.count, header.generation) == (930, 940)
    check_answers(index, vectors[10:940], np.arange(11, 941))


def test_a_large_snapshot_that_has_everything_need_not_be_read(library, model):
    vectors, path = clustered(2000, DIM), snapshot_path(library, model.id)
    store(library, vectors[:90])
    assert not is_saved(library, model, SMALL)  # there is none
    opened(library, SMALL).save()
    assert not is_saved(library, model, SMALL)  # too small for a search to save it again
    ids = store(library, vectors[90:150], first=90)
    assert not is_saved(library, model, SMALL)  # it lacks some
    opened(library, SMALL).save()
    assert is_saved(library, model, SMALL)
    assert not is_saved(library, replace(model, identity="f" * 64), SMALL)
    delete(library, ids[:1])
    assert not is_saved(library, model, SMALL)  # it has one too many
    store(library, vectors[150:151], first=150)
    assert not is_saved(library, model, SMALL)  # as many, but not the same
    store(library, vectors[151:], first=151)
    opened(library, SMALL)
    assert not is_saved(library, model, SMALL)  # an index is worth building now
    opened(library, SMALL).save()
    assert is_saved(library, model, SMALL)
    with library.transaction() as conn:
        conn.execute("DELETE FROM snapshots")
    assert not is_saved(library, model, SMALL)  # it may be of another time
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_saved(library, model, SMALL)


def test_opening_stores_what_would_be_slow_to_read_again(library, model):
    vectors = clustered(150, DIM)
    ids = store(library, vectors)
    opened(library)
    assert not snapshot_path(library, model.id).exists()
    opened(library, SMALL)
    assert read_snapshot(snapshot_path(library, model.id)).header.count == 150
    check_answers(opened(library, SMALL), vectors, ids)


def test_a_large_index_is_trained_and_stays_so(library, model):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    index = opened(library, SMALL)
    assert index.kind == "exhaustive"
    assert index.save()
    assert index.kind == "ivf" and index.recall >= 0.99
    check_answers(index, vectors, ids, least=0.99)
    again = opened(library, SMALL)
    assert (again.kind, again.recall) == ("ivf", index.recall)
    check_answers(again, vectors, ids, least=0.99)
    assert not again.save()


def test_a_trained_index_takes_new_vectors_in_and_drops_deleted_ones(library, model, monkeypatch):
    vectors = clustered(2600, DIM)
    ids = store(library, vectors[:2000])
    index = opened(library, SMALL)
    index.save()
    monkeypatch.setattr(training, "train", lambda vectors: pytest.fail("trained again"))
    ids = np.concatenate([ids, store(library, vectors[2000:2300], first=2000)])
    index.refresh()
    check_answers(index, vectors[:2300], ids, least=0.99)
    assert index.save() and index.kind == "ivf"
    ids = np.concatenate([ids, store(library, vectors[2300:], first=2300)])
    delete(library, ids[100:300])
    index.refresh()
    left = np.r_[0:100, 300:2600]
    check_answers(index, vectors[left], ids[left], least=0.98)
    assert index.save() and index.kind == "ivf"
    check_answers(index, vectors[left], ids[left], least=0.98)
    assert index.check() == []
    assert len(index.search(QUERIES, 2400).ids[0]) == 2400


def test_opening_takes_new_vectors_into_a_trained_index_without_proving_it(
    library, model, monkeypatch
):
    vectors = clustered(2300, DIM)
    ids = store(library, vectors[:2000])
    opened(library, SMALL).save()
    ids = np.concatenate([ids, store(library, vectors[2000:], first=2000)])
    for name in ("train", "measure_recall"):
        monkeypatch.setattr(training, name, lambda *args: pytest.fail("not quick"))
    opened(library, SMALL)
    index = opened(library, SMALL)
    assert index.kind == "ivf"
    assert read_snapshot(snapshot_path(library, model.id)).header.count == 2300
    check_answers(index, vectors, ids, least=0.98)


def test_an_index_that_has_doubled_is_trained_again(library, model):
    vectors = clustered(4200, DIM)
    store(library, vectors[:2000])
    index = opened(library, SMALL)
    index.save()
    store(library, vectors[2000:], first=2000)
    index.save()
    header = read_snapshot(snapshot_path(library, model.id)).header
    assert header.built_on == 4200


def test_a_library_that_shrinks_is_searched_exhaustively_again(library, model):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    index = opened(library, SMALL)
    index.save()
    delete(library, ids[1000:])
    assert index.save() and index.kind == "exhaustive"
    check_answers(index, vectors[:1000], ids[:1000])
    store(library, vectors[1000:], first=3000)
    assert index.save() and index.kind == "ivf"


def test_an_index_that_cannot_prove_itself_is_exhaustive_and_not_tried_each_time(
    library, model, monkeypatch, caplog
):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    monkeypatch.setattr(training, "measure_recall", lambda vectors, index: None)
    index = opened(library, SMALL)
    assert index.save() and index.kind == "exhaustive" and index.recall == 1.0
    assert "searching exhaustively" in caplog.text
    check_answers(index, vectors, ids)
    assert not index.save()
    assert not opened(library, SMALL).save()
    monkeypatch.undo()
    store(library, clustered(2100, DIM, seed=3), first=2000)
    assert index.save() and index.kind == "ivf"


def test_a_trained_index_that_no_longer_proves_itself_is_trained_again(library, model, monkeypatch):
    vectors = clustered(2400, DIM)
    store(library, vectors[:2000])
    index = opened(library, SMALL)
    index.save()
    prove, refusals = training.measure_recall, [None]
    monkeypatch.setattr(
        training, "measure_recall", lambda v, i: refusals.pop() if refusals else prove(v, i)
    )
    store(library, vectors[2000:], first=2000)
    assert index.save() and index.kind == "ivf"
    header = read_snapshot(snapshot_path(library, model.id)).header
    assert header.built_on == 2400
