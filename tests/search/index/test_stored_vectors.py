"""Vectors of a large library stay in the database; answers are those of vectors in memory."""

import gc
import threading

import faiss
import numpy as np
import pytest

from closeness import assert_close
from fovea.search.errors import LibraryDamaged
from fovea.search.index import stored_vectors as module
from fovea.search.index import train_ivf as training
from fovea.search.index.exhaustive import Exhaustive
from fovea.search.index.ivf import IvfIndex, IvfSettings
from fovea.search.index.snapshot import read_snapshot
from fovea.search.index.stored_vectors import StoredVectors, blocks
from fovea.search.index.streamed import Streamed
from fovea.search.index.vector_index import IndexOptions
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import DATABASE
from vectors import DIM, QUERIES, check_answers, clustered, delete, exhaustive, opened, store

STORED = IndexOptions(exhaustive_below=1500, at_once=100, resident=0)
HELD = IndexOptions(exhaustive_below=1500, at_once=100)


class Counted:
    """Vectors that note how many rows are asked for at a time; they are no array."""

    def __init__(self, vectors):
        self.vectors, self.shape, self.asked = vectors, vectors.shape, []

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, rows):
        found = self.vectors[rows]
        self.asked.append(len(found))
        return found


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 512)
    monkeypatch.setattr(module, "PAGE", 100)


@pytest.fixture(scope="module")
def vectors():
    return clustered(4000, DIM).astype(np.float16)


@pytest.fixture(scope="module")
def base(vectors):
    index = training.train(vectors)
    training.fill(index, vectors)
    return index


def of_library(library, model):
    ids = [n for (n,) in library.rows("SELECT id FROM embeddings WHERE model_id = ?", (model.id,))]
    return StoredVectors(library.folder / DATABASE, np.sort(np.array(ids, np.int64)), model.dim)


# Reading


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(40, 300),
        slice(7, 7),
        np.arange(0, 400, 50),
        np.array([399, 3, 3, 250, 0, 3]),
        np.arange(400) % 3 == 0,
        np.array([], np.int64),
    ],
    ids=["all", "run", "none", "far apart", "repeated", "mask", "empty"],
)
def test_rows_are_those_of_the_database(library, model, small_blocks, rows):
    vectors = clustered(400, DIM)
    store(library, vectors[:200])
    other = library.add_model("other", "c" * 64, 3, "test")
    with library.transaction() as conn:  # of another model, in between
        conn.executemany(
            "INSERT INTO embeddings (image_id, model_id, vector) VALUES (?, ?, ?)",
            [(n, other.id, np.array([1, 0, 0], "<f2").tobytes()) for n in range(1, 100)],
        )
    store(library, vectors[200:], first=200)
    found = of_library(library, model)[rows]
    assert found.dtype == np.float16
    assert found.tolist() == vectors.astype(np.float16)[rows].tolist()


def test_a_row_deleted_since_is_zeros(library, model):
    vectors = clustered(20, DIM)
    ids = store(library, vectors)
    stored = of_library(library, model)
    delete(library, ids[[3, 8]])
    there = stored[np.arange(20)].any(axis=1)
    assert np.flatnonzero(~there).tolist() == [3, 8]


@pytest.mark.parametrize("value", [b"short", np.zeros(DIM, "<f2").tobytes(), "text", None])
def test_a_damaged_row_is_named(library, model, value):
    store(library, clustered(20, DIM))
    stored = of_library(library, model)
    library.conn.execute("DROP TRIGGER embeddings_are_final")
    library.conn.execute("PRAGMA ignore_check_constraints = ON")
    try:
        library.conn.execute("UPDATE embeddings SET vector = ? WHERE id = 5", (value,))
    except Exception:
        assert value is None  # the table itself refuses it
        return
    with pytest.raises(LibraryDamaged, match="embeddings 5 to 5"):
        stored[np.array([4])]
    assert len(stored[np.array([3, 5])]) == 2


def test_connections_are_used_again_and_closed(library, model):
    store(library, clustered(20, DIM))
    stored = of_library(library, model)
    for _ in range(3):
        stored[:5]
    idle = stored._idle
    [conn] = idle
    del stored
    gc.collect()
    assert not idle
    with pytest.raises(Exception, match="closed"):
        conn.execute("SELECT 1")


def test_blocks_hold_few_vectors_at_a_time(vectors, small_blocks):
    counted = Counted(vectors)
    seen = []
    for n, (positions, block) in enumerate(blocks(counted, start=100), start=1):
        assert block.dtype == np.float32 and len(positions) == len(block) <= 512
        assert len(counted.asked) <= n + 1  # one is read ahead, and no more
        seen.append(positions)
    assert np.array_equal(np.concatenate(seen), np.arange(100, 4000))
    chosen = np.arange(0, 4000, 3)
    for positions, block in blocks(counted, chosen):
        assert block.tolist() == vectors[positions].astype(np.float32).tolist()
    assert max(counted.asked) <= 512


# Searching


@pytest.mark.parametrize("share", [None, 1.0, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_streamed_search_is_exact(vectors, small_blocks, share, k):
    queries = clustered(12, DIM, seed=1)
    mask = None if share is None else np.random.default_rng(3).random(4000) < share
    counted = Counted(vectors)
    scores, positions = Streamed(counted).search(queries, k, mask)
    there = min(k, 4000 if mask is None else int(mask.sum()))
    wanted, order = exhaustive(vectors, queries, there, mask)
    assert scores.dtype == np.float32 and positions.dtype == np.int64
    assert positions.shape == (12, k)
    assert_close(scores[:, :there], wanted, terms=DIM)
    assert (positions[:, there:] == -1).all() and np.isneginf(scores[:, there:]).all()
    assert np.mean(positions[:, :there] == order) > 0.99 if there else True  # but for ties
    assert max(counted.asked, default=0) <= 512


@pytest.mark.parametrize("share", [None, 0.95, 0.5, 0.05, 0.001])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_candidates_read_from_elsewhere_give_the_same_answer(vectors, base, share, k):
    queries = clustered(20, DIM, seed=1)
    mask = None if share is None else np.random.default_rng(3).random(4000) < share
    settings = IvfSettings(16, 64, 1.0)
    counted = Counted(vectors)
    scores, positions = IvfIndex(counted, base, settings, 100).search(queries, k, mask)
    truth, order = exhaustive(vectors, queries, k, mask)
    there = min(k, 4000 if mask is None else int(mask.sum()))
    assert (positions[:, :there] >= 0).all() and (positions[:, there:] == -1).all()
    if mask is not None:
        assert mask[positions[positions >= 0]].all()
    agreeing = np.abs(scores[:, :there] - truth[:, :there]) < 1e-3
    assert agreeing.mean() >= 0.95
    if k <= 10 and share in (None, 0.95):
        assert sum(counted.asked) <= 20 * 64 * 10 * 1.1  # candidates alone are read


def test_candidates_that_a_mask_excludes_are_made_up_for(vectors, base):
    """All that the nearest list holds is excluded; the answer comes from the others, unread."""
    mask = np.ones(4000, bool)
    query = vectors[:1].astype(np.float32)
    nearest = exhaustive(vectors, query, 100)[1][0]
    mask[nearest] = False
    counted = Counted(vectors)
    _, positions = IvfIndex(counted, base, IvfSettings(1, 2, 1.0), 100).search(query, 20, mask)
    assert (positions >= 0).all() and not np.isin(positions, nearest).any()
    assert sum(counted.asked) < 1000


# Building


def test_filling_from_elsewhere_gives_the_same_index(vectors, base, small_blocks):
    counted = Counted(vectors)
    index = faiss.clone_index(base)
    index.reset()
    training.fill(index, counted)
    assert counted.asked == [512] * 7 + [416]  # each once
    assert np.array_equal(faiss.serialize_index(index), faiss.serialize_index(base))


def test_a_build_reads_few_vectors_at_a_time(vectors, small_blocks):
    counted = Counted(vectors)
    built = training.build(counted)
    assert built is not None and built.settings["recall"] >= training.STORED_RECALL[10]
    assert max(counted.asked) <= 512
    lists = training.open(counted, built, 0).base.nlist
    sampled = min(4000, training.POINTS * lists)
    queries = 2 * 2 * training.QUERIES
    assert sum(counted.asked) <= sampled + 2 * 4000 + queries  # learnt, filled, compared


def test_an_index_too_costly_to_be_perfect_may_be_good(vectors, monkeypatch):
    for name, value in (("PROBES", (1, 2, 4, 8, 16)), ("STORED_SHARE", 0.01)):
        monkeypatch.setattr(training, name, value)
    index = training.train(vectors)
    training.fill(index, vectors)
    good = training.measure_recall(Counted(vectors), index)
    assert good is not None and good.recall >= training.STORED_RECALL[10]
    monkeypatch.setattr(training, "STORED_RECALL", {10: 1.1, 50: 0.0})
    assert training.measure_recall(Counted(vectors), index) is None


def test_recall_is_measured_again_when_enough_has_been_added(vectors, base, monkeypatch):
    settings = IvfSettings(16, 64, 0.99, measured_on=3900)
    asked = []
    monkeypatch.setattr(
        training, "measure_recall", lambda rows, index: asked.append(len(rows)) or settings
    )
    index = IvfIndex(Counted(vectors), base, settings, 0)
    more = np.concatenate([vectors, clustered(200, DIM, seed=9).astype(np.float16)])
    for rows in (more[:4095], more[:4096]):
        training.extend(index, Counted(rows), kept=None, measure=True)
    assert asked == [4096]
    training.extend(index, more[:4001], kept=None, measure=True)  # in memory it takes no time
    assert asked == [4096, 4001]


def test_deleted_positions_are_dropped_without_encoding_the_others_again(
    vectors, base, monkeypatch
):
    settings = IvfSettings(8, 64, 0.99)
    kept = np.random.default_rng(0).random(4000) < 0.8
    added = clustered(300, DIM, seed=9).astype(np.float16)
    both = np.concatenate([vectors[kept], added])
    fill, filled = training.fill, []
    monkeypatch.setattr(
        training, "fill", lambda index, rows: (filled.append(index.ntotal), fill(index, rows))
    )
    index = IvfIndex(vectors, base, settings, 0)
    built = training.extend(index, both, kept=kept, measure=False)
    assert filled == [kept.sum()] and base.ntotal == 4000
    anew = faiss.clone_index(base)
    anew.reset()
    fill(anew, both)
    queries = clustered(30, DIM, seed=2)
    mine = training.open(both, built, 0).search(queries, 10)[1]
    theirs = IvfIndex(both, anew, settings, 0).search(queries, 10)[1]
    assert np.mean(mine == theirs) > 0.99  # but for ties


# A library


def test_a_large_library_is_answered_alike(library, model):
    vectors = clustered(2400, DIM)
    ids = store(library, vectors[:2000])
    index = opened(library, STORED)
    assert index.save() and index.kind == "ivf"
    check_answers(index, vectors[:2000], ids, least=0.99)
    path = snapshot_path(library, model.id)
    assert path.stat().st_size < 2000 * 2 * DIM + 2000 * 16 + 60_000
    snapshot = read_snapshot(path)
    assert isinstance(snapshot.rows.vectors, StoredVectors)
    again = opened(library, STORED)
    assert (again.kind, again.recall) == ("ivf", index.recall)
    check_answers(again, vectors[:2000], ids, least=0.99)
    assert again.check() == [] and not again.save()

    ids = np.concatenate([ids, store(library, vectors[2000:], first=2000)])
    delete(library, ids[100:300])
    left = np.r_[0:100, 300:2400]
    again.refresh()
    check_answers(again, vectors[left], ids[left], least=0.95)
    places, found = again.vectors(ids[[5, 150, 2399]])
    assert places.tolist() == [0, 2]
    assert found.tolist() == vectors[[5, 2399]].astype(np.float16).tolist()
    assert again.save() and again.kind == "ivf"
    check_answers(again, vectors[left], ids[left], least=0.95)
    check_answers(opened(library, STORED), vectors[left], ids[left], least=0.95)
    assert again.check() == []


@pytest.mark.parametrize("share", [0.9, 0.1, 0.002])
def test_allowed_and_excluded_ids_are_heeded(library, model, share):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    index = opened(library, IndexOptions(exhaustive_below=150, resident=0))
    index.save()
    mask = np.random.default_rng(0).random(2000) < share
    found = index.search(QUERIES, 10, allowed=ids[mask])
    there = min(10, int(mask.sum()))
    wanted, order = exhaustive(vectors, QUERIES, there, mask)
    assert (found.ids[:, :there] >= 0).all() and (found.ids[:, there:] == -1).all()
    assert np.mean(np.abs(found.scores[:, :there] - wanted) < 1e-3) >= 0.95
    first = [int(n) for n in found.ids[:, 0] if n >= 0]
    rest = index.search(QUERIES, 10, allowed=ids[mask], exclude=first)
    assert not np.isin(rest.ids, first).any()
    plain = index.search(QUERIES, 10, exclude=first)
    assert not np.isin(plain.ids, first).any() and (plain.ids >= 0).all()


def test_a_library_that_outgrows_the_memory_changes_over_and_back(library, model):
    vectors = clustered(2400, DIM)
    ids = store(library, vectors[:2000])
    options = IndexOptions(exhaustive_below=1500, at_once=10**9, resident=2 * DIM * 2200)
    index = opened(library, options)
    assert index.save()
    path = snapshot_path(library, model.id)
    assert isinstance(read_snapshot(path).rows.vectors, np.ndarray)
    ids = np.concatenate([ids, store(library, vectors[2000:], first=2000)])
    assert index.save() and isinstance(read_snapshot(path).rows.vectors, StoredVectors)
    check_answers(index, vectors, ids, least=0.98)
    delete(library, ids[:700])
    assert index.save() and isinstance(read_snapshot(path).rows.vectors, np.ndarray)
    check_answers(index, vectors[700:], ids[700:], least=0.98)
    check_answers(opened(library, options), vectors[700:], ids[700:], least=0.98)


def test_a_library_without_a_snapshot_is_searched_exactly(library, model, small_blocks):
    vectors = clustered(700, DIM)
    ids = store(library, vectors)
    index = opened(library, IndexOptions(resident=0, at_once=10**9))
    check_answers(index, vectors, ids)
    delete(library, ids[:20])
    ids = np.concatenate([ids, store(library, clustered(30, DIM, seed=5), first=700)])
    index.refresh()
    everything = np.concatenate([vectors, clustered(30, DIM, seed=5)])
    check_answers(index, everything[20:], ids[20:])


def test_an_image_embedded_again_is_found_by_its_new_vector(library, model):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    index = opened(library, STORED)
    index.save()
    with library.transaction() as conn:
        conn.execute("DELETE FROM embeddings WHERE image_id = ?", (int(ids[7]),))
    vectors[7] = -vectors[7]
    store(library, vectors[7:8], first=7)
    index.refresh()
    check_answers(index, vectors, ids, least=0.99)
    assert index.search(vectors[7:8], 1).ids.tolist() == [[ids[7]]]


def test_an_image_deleted_since_the_last_look_is_not_found(library, model):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    index = opened(library, STORED)
    index.save()
    gone = np.unique(index.search(QUERIES, 3).ids)
    delete(library, gone)
    found = index.search(QUERIES, 10)
    assert not np.isin(found.ids, gone).any() and (found.ids >= 0).all()
    assert len(index.vectors(gone)[0]) == 0
    assert index.vectors(ids)[1].any(axis=1).all()


def test_a_damaged_snapshot_is_left_aside(library, model, caplog):
    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    opened(library, STORED).save()
    path = snapshot_path(library, model.id)
    whole = path.read_bytes()
    for torn in (whole[:-100], whole[:5000] + b"?" + whole[5001:]):
        path.write_bytes(torn)
        caplog.clear()
        index = opened(library, IndexOptions(resident=0, at_once=10**9))
        assert "cannot use" in caplog.text
        check_answers(index, vectors, ids)


def test_a_build_that_is_stopped_leaves_the_old_index(library, model, monkeypatch):
    vectors = clustered(4200, DIM)
    ids = store(library, vectors[:2000])
    opened(library, STORED).save()
    path = snapshot_path(library, model.id)
    before = path.read_bytes()
    ids = np.concatenate([ids, store(library, vectors[2000:], first=2000)])
    index = opened(library, IndexOptions(exhaustive_below=1500, at_once=10**9, resident=0))

    class Stop(Exception):
        pass

    def stopping(base, rows):
        raise Stop

    monkeypatch.setattr(training, "fill", stopping)
    with pytest.raises(Stop):
        index.save()
    assert path.read_bytes() == before and not list(library.folder.glob("*.tmp"))
    check_answers(index, vectors, ids, least=0.99)
    monkeypatch.undo()
    assert index.save() and read_snapshot(path).header.built_on == 4200


def test_threads_search_at_once(library, model):
    vectors = clustered(2000, DIM)
    store(library, vectors)
    index = opened(library, STORED)
    index.save()
    wanted, problems = index.search(QUERIES, 5).ids, []

    def search():
        for _ in range(20):
            if not np.array_equal(index.search(QUERIES, 5).ids, wanted):
                problems.append("differs")

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_small_libraries_are_held_in_memory(library, model):
    store(library, clustered(200, DIM))
    index = opened(library, HELD)
    assert isinstance(index._view.stored.rows.vectors, np.ndarray)
    assert isinstance(index._view.stored.index, Exhaustive)


def test_as_many_newer_rows_as_are_worth_an_index_are_saved(library, model):
    vectors = clustered(2040, DIM)
    store(library, vectors[:2000])
    index = opened(library, IndexOptions(exhaustive_below=30, at_once=10**9, resident=0))
    assert index.save() and index.kind == "ivf"
    store(library, vectors[2000:2029], first=2000)
    assert not index.save()
    store(library, vectors[2029:], first=2029)
    assert index.save()  # 40, which are 2 %, but more than an index is built for
