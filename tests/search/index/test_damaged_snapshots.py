import shutil

import numpy as np
import pytest

from fovea.search.errors import LibraryError
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import DATABASE, Library
from vectors import DIM, SMALL, check_answers, clustered, delete, opened, store


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
    assert "cannot use" in caplog.text and str(path) in caplog.text
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
        assert "has no record of it" in caplog.text


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
    assert f"the disk of {library.folder} is full (" in caplog.text
    check_answers(index, vectors, ids)
    with pytest.raises(LibraryError, match="is full .*make room"):
        index.save()
    left = [path.name for path in library.folder.iterdir() if path.suffix == ".tmp"]
    assert left == []
