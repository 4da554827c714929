"""Answers are those of the database, whatever became of the snapshot."""

import logging
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from closeness import assert_close
from fovea.search.errors import LibraryError
from fovea.search.index import train_ivf as training
from fovea.search.index.snapshot import read_snapshot
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.locks import exclusive
from places import CHECKOUT
from vectors import clustered, delete, exhaustive, recall, store

DIM = 16
SMALL = IndexOptions(exhaustive_below=1500, at_once=100)
QUERIES = clustered(10, DIM, seed=77)


@pytest.fixture
def model(library):
    return library.set_model("toy", "a" * 64, DIM, "test")


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


# What an answer is


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


# Newer and deleted embeddings


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


def test_opening_stores_what_would_be_slow_to_read_again(library, model):
    vectors = clustered(150, DIM)
    ids = store(library, vectors)
    opened(library)
    assert not snapshot_path(library, model.id).exists()
    opened(library, SMALL)
    assert read_snapshot(snapshot_path(library, model.id)).header.count == 150
    check_answers(opened(library, SMALL), vectors, ids)


# An index that is built


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


# Snapshots that cannot be believed


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[6000] ^= 1
    path.write_bytes(data)


def overwrite(path):
    path.write_bytes(b"not a snapshot" * 1000)


def empty(path):
    path.write_bytes(b"")


def make_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, flip, overwrite, empty, make_folder])
def test_a_damaged_snapshot_is_left_aside(library, model, damage, caplog):
    vectors = clustered(400, DIM)
    ids = store(library, vectors)
    opened(library).save()
    path = snapshot_path(library, model.id)
    damage(path)
    index = opened(library)
    assert "is not used" in caplog.text and str(path) in caplog.text
    check_answers(index, vectors, ids)
    if path.is_dir():
        with pytest.raises(LibraryError, match="cannot write"):
            index.save()
        return
    assert index.save()
    caplog.clear()
    check_answers(opened(library), vectors, ids)
    assert caplog.text == ""


@pytest.mark.parametrize("base", [b"no index of FAISS", None])
def test_a_trained_index_that_faiss_cannot_read_is_refused(
    library, model, monkeypatch, caplog, base
):
    import faiss

    vectors = clustered(2000, DIM)
    ids = store(library, vectors)
    if base is None:  # readable, but of something else
        base = faiss.serialize_index(faiss.index_factory(DIM, "IVF4,PQ2x4fs"))
    else:
        base = np.frombuffer(base, np.uint8)
    index = opened(library, SMALL)
    monkeypatch.setattr("faiss.serialize_index", lambda index: base)
    with pytest.raises(LibraryError, match="its ivf index cannot be opened"):
        index.save()
    monkeypatch.undo()
    index = opened(library, SMALL)
    assert "its ivf index cannot be opened" in caplog.text
    check_answers(index, vectors, ids)
    assert index.save() and index.kind == "ivf"


def test_a_deleted_snapshot_comes_back(library, model, caplog):
    vectors = clustered(400, DIM)
    ids = store(library, vectors)
    opened(library).save()
    snapshot_path(library, model.id).unlink()
    index = opened(library)
    check_answers(index, vectors, ids)
    assert caplog.text == "" and index.save()


def test_a_snapshot_of_another_library_is_refused(library, model, tmp_path, caplog):
    vectors = clustered(100, DIM)
    ids = store(library, vectors)
    opened(library).save()
    with Library.open(tmp_path / "other", create=True) as other:
        other.set_model("toy", "a" * 64, DIM, "test")
        store(other, clustered(100, DIM, seed=9))
        opened(other).save()
        shutil.copy(snapshot_path(other, 1), snapshot_path(library, 1))
    check_answers(opened(library), vectors, ids)
    assert "another library" in caplog.text


def test_a_snapshot_of_another_model_is_refused(library, model, caplog):
    store(library, clustered(100, DIM))
    opened(library).save()
    second = library.set_model("other", "b" * 64, DIM, "test")
    vectors = clustered(100, DIM, seed=5)
    ids = store(library, vectors)
    shutil.copy(snapshot_path(library, model.id), snapshot_path(library, second.id))
    check_answers(opened(library), vectors, ids)
    assert "another model" in caplog.text


def test_a_snapshot_newer_than_a_restored_database_is_refused(library, model, tmp_path, caplog):
    store(library, clustered(100, DIM))
    opened(library).save()
    backup = tmp_path / "backup.db"
    library.db.execute("VACUUM INTO ?", [str(backup)])
    store(library, clustered(50, DIM, seed=1), first=100)
    opened(library).save()
    library.close()
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (library.folder / name).unlink(missing_ok=True)
    shutil.copy(backup, library.folder / DATABASE)
    with Library.open(library.folder) as restored:
        others = clustered(50, DIM, seed=2)
        ids = np.r_[np.arange(1, 101), store(restored, others, first=500)]
        vectors = np.concatenate([clustered(100, DIM), others])
        check_answers(opened(restored), vectors, ids)
        assert "does not know it" in caplog.text


def test_an_older_snapshot_that_is_put_back_still_leads_to_the_truth(library, model, tmp_path):
    vectors = clustered(300, DIM)
    ids = store(library, vectors[:100])
    opened(library).save()
    path = snapshot_path(library, model.id)
    shutil.copy(path, tmp_path / "older")
    ids = np.concatenate([ids, store(library, vectors[100:], first=100)])
    delete(library, ids[:30])
    opened(library).save()
    shutil.copy(tmp_path / "older", path)
    check_answers(opened(library), vectors[30:], ids[30:])


def test_a_snapshot_that_disagrees_with_the_count_is_refused(library, model, caplog):
    vectors = clustered(100, DIM)
    ids = store(library, vectors)
    opened(library).save()
    delete(library, ids[:5])
    library.conn.execute("DELETE FROM tombstones")
    check_answers(opened(library), vectors[5:], ids[5:])
    assert "the database has 95" in caplog.text


def test_check_tells_what_differs_from_the_database(library, model):
    ids = store(library, clustered(50, DIM))
    index = opened(library)
    index.save()
    assert index.check() == []
    with library.transaction() as conn:
        conn.execute("DROP TRIGGER embeddings_are_final")
        conn.execute("DROP TRIGGER embeddings_leave_tombstones")
        conn.execute(
            "UPDATE embeddings SET vector = (SELECT vector FROM embeddings WHERE id = 1) "
            "WHERE id = 7"
        )
        conn.execute("DELETE FROM images WHERE id = ?", (int(ids[-1]),))
    assert index.check() == [
        "embedding 7 differs in the index",
        "the index has 1 embeddings that the database lacks",
    ]


def test_an_embedding_of_another_width_is_named(library, model):
    store(library, clustered(5, DIM))
    with library.transaction() as conn:
        conn.execute("INSERT INTO images (hash, bytes) VALUES (x'ff', 1)")
        conn.execute("INSERT INTO embeddings (image_id, model_id, vector) VALUES (6, 1, x'0000')")
    with pytest.raises(LibraryError, match="not of width 16.*backup"):
        opened(library)


def test_a_folder_that_cannot_be_written_still_answers(library, model, monkeypatch, caplog):
    vectors = clustered(150, DIM)
    ids = store(library, vectors)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fovea.search.index.save.SnapshotWriter.write", full)
    index = opened(library, SMALL)
    assert "No space left on device" in caplog.text
    check_answers(index, vectors, ids)
    with pytest.raises(LibraryError, match="No space left"):
        index.save()
    left = [path.name for path in library.folder.iterdir() if path.suffix == ".tmp"]
    assert left == []


# Several at once


def test_a_second_saver_leaves_it_to_the_first(library, model):
    store(library, clustered(50, DIM))
    index = opened(library)
    with exclusive(library.folder, f"index-{model.id}"):
        assert not index.save()
    assert index.save()


def test_a_kill_while_saving_leaves_the_old_snapshot(library, model, caplog):
    vectors = clustered(300, DIM)
    ids = store(library, vectors[:100])
    opened(library).save()
    ids = np.concatenate([ids, store(library, vectors[100:], first=100)])
    script = f"""
        import os, signal
        from fovea.search.index.vector_index import VectorIndex
        from fovea.search.library.library import Library
        from fovea.search.index.snapshot import SnapshotWriter
        SnapshotWriter.publish = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        VectorIndex.open(Library.open({str(library.folder)!r}), 1).save()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=CHECKOUT)
    assert done.returncode == -9
    assert len([path for path in library.folder.iterdir() if path.suffix == ".tmp"]) >= 1
    index = opened(library)
    assert caplog.text == ""  # the old one is still believed
    assert read_snapshot(snapshot_path(library, model.id)).header.count == 100
    check_answers(index, vectors, ids)
    assert index.save()
    assert [path for path in library.folder.glob("index-*.tmp")] == []


def test_readers_see_whole_batches_while_an_indexer_writes_and_saves(library, model):
    vectors = clustered(1200, DIM)
    store(library, vectors[:300])
    problems: list[BaseException] = []

    def write():
        try:
            with Library.open(library.folder) as mine:
                index = VectorIndex.open(mine, model.id)
                for start in range(300, 1200, 30):
                    ids = store(mine, vectors[start : start + 30], first=start)
                    delete(mine, ids[:10])
                    index.save()
        except BaseException as exc:  # any error is what this test looks for
            problems.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    shared = opened(library)
    sizes = []
    while writer.is_alive():
        shared.refresh()
        fresh = opened(library)
        for index in (shared, fresh):
            found = index.search(QUERIES[:2], 5)
            assert (found.ids > 0).all() and (np.diff(found.scores) <= 0).all()
            sizes.append(len(index))
    writer.join()
    assert problems == []
    assert {(size - 300) % 30 for size in sizes} <= {0, 20, 10}
    shared.refresh()
    assert len(shared) == 300 + 30 * 20 and shared.check() == []


def test_one_index_serves_several_threads(library, model):
    vectors = clustered(500, DIM)
    ids = store(library, vectors[:400])
    index = opened(library)
    problems: list[BaseException] = []

    def serve():
        try:
            with Library.open(library.folder) as mine:
                for _ in range(20):
                    index.refresh(mine)
                    assert (index.search(QUERIES, 5).ids > 0).all()
        except BaseException as exc:  # any error is what this test looks for
            problems.append(exc)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    ids = np.concatenate([ids, store(library, vectors[400:], first=400)])
    for thread in threads:
        thread.join()
    assert problems == []
    index.refresh()
    check_answers(index, vectors, ids)


def test_a_small_library_is_searched_without_faiss(library, model):
    store(library, clustered(200, DIM))
    opened(library).save()
    script = f"""
        import sys, numpy as np
        from fovea.search.index.vector_index import VectorIndex
        from fovea.search.library.library import Library
        index = VectorIndex.open(Library.open({str(library.folder)!r}), 1)
        assert index.search(np.eye(16, dtype="f4"), 3).ids.min() > 0
        assert not {{"faiss", "torch", "PIL"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=CHECKOUT)


class IndexMachine(RuleBasedStateMachine):
    """Any order of writing, deleting, saving and opening leads to the answers of the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="fovea-index-"))
        self.library = Library.open(self.folder, create=True)
        self.library.set_model("toy", "a" * 64, DIM, "test")
        self.options = IndexOptions(exhaustive_below=200, at_once=60, share=0.1)
        self.index = VectorIndex.open(self.library, 1, options=self.options)
        self.rows: dict[int, np.ndarray] = {}
        self.written = 0

    @rule(count=st.integers(1, 120))
    def add(self, count):
        vectors = clustered(count, DIM, seed=self.written, centres=5)
        ids = store(self.library, vectors, first=self.written)
        self.rows.update(zip(ids.tolist(), vectors, strict=True))
        self.written += count

    @rule(share=st.floats(0, 1), seed=st.integers(0, 9))
    def remove(self, share, seed):
        chosen = [n for n in self.rows if np.random.default_rng(seed + n).random() < share]
        delete(self.library, np.array(chosen, int))
        for image_id in chosen:
            del self.rows[image_id]

    @rule()
    def save(self):
        self.index.save()

    @rule()
    def reopen(self):
        self.index = VectorIndex.open(self.library, 1, options=self.options)

    @rule(at=st.floats(0, 0.999))
    def damage(self, at):
        path = snapshot_path(self.library, 1)
        if path.exists():
            data = bytearray(path.read_bytes())
            data[int(at * len(data))] ^= 0xFF
            path.unlink()  # who has it open keeps it
            path.write_bytes(data)

    @invariant()
    def answers_are_right(self):
        self.index.refresh()
        assert len(self.index) == len(self.rows)
        found = self.index.search(QUERIES, 5)
        there = min(5, len(self.rows))
        assert (found.ids[:, :there] > 0).all() and (found.ids[:, there:] == -1).all()
        if there:
            ids = np.array(list(self.rows))
            vectors = np.stack(list(self.rows.values()))
            truth = ids[exhaustive(vectors, QUERIES, there)[1]]
            assert recall(found.ids[:, :there], truth) >= 0.9

    def teardown(self):
        assert self.index.check() == []
        self.library.close()
        shutil.rmtree(self.folder)


class TestAnyOrder(IndexMachine.TestCase):
    settings = settings(max_examples=12, stateful_step_count=12, deadline=None)

    def setUp(self):
        logging.getLogger("search").setLevel(logging.ERROR)

    def tearDown(self):
        logging.getLogger("search").setLevel(logging.NOTSET)
