"""Vectors that stay in the database, while that is replaced, copied, or only to be read."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import fovea
from fovea.search.errors import LibraryError
from fovea.search.index import train_ivf as training
from fovea.search.index.ivf import IvfIndex, IvfSettings
from fovea.search.index.save import is_saved
from fovea.search.index.snapshot import read_snapshot
from fovea.search.index.stored_vectors import StoredVectors
from fovea.search.index.vector_index import IndexOptions
from fovea.search.index.view import snapshot_path
from fovea.search.library import access
from fovea.search.library.library import DATABASE, Library
from fovea.search.maintenance.backup import back_up, restore
from fovea.search.maintenance.salvage import SALVAGED, salvage
from vectors import DIM, check_answers, clustered, delete, exhaustive, opened, recall, store

STORED = IndexOptions(exhaustive_below=1500, at_once=10**9, resident=0)


class Elsewhere:
    """Vectors that are no array, as those in a database."""

    def __init__(self, vectors):
        self.vectors, self.shape = vectors, vectors.shape

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, rows):
        return self.vectors[rows]


def test_what_a_mask_excludes_may_be_just_what_is_near():
    """A filter that nearly all pass leaves 12 of 320 candidates, yet the next ones are found."""
    vectors = clustered(6000, 32, centres=8).astype(np.float16)
    stored = Elsewhere(vectors)
    base = training.train(stored)
    training.fill(base, stored)
    index, recalls = IvfIndex(stored, base, IvfSettings(base.nlist, 32, 1.0), 100), []
    for own in range(0, 6000, 600):
        query = vectors[own : own + 1].astype(np.float32)
        candidates = index.candidates(query, 10, index.settings)[0]
        mask = np.ones(6000, bool)
        mask[candidates[:-12]] = False
        _, found = index.search(query, 10, mask)
        assert mask[found].all()
        recalls.append(recall(found, exhaustive(vectors, query, 10, mask)[1]))
    assert np.mean(recalls) >= 0.9


def test_a_read_only_library_that_has_changed_is_read_anew(library, model, monkeypatch):
    """SQLite notices no change of a database that it opened as immutable."""
    vectors = clustered(2200, DIM)
    ids = store(library, vectors[:2000])
    assert opened(library, STORED).save()
    folder = library.folder
    library.close()
    monkeypatch.setattr(access.os, "access", lambda path, mode: False)
    with Library.open(folder) as reading:
        index = opened(reading, STORED)
        check_answers(index, vectors[:2000], ids, least=0.99)
        monkeypatch.undo()
        with Library.open(folder) as owner:
            ids = np.concatenate([ids, store(owner, vectors[2000:], first=2000)])
            delete(owner, ids[:100])
            assert opened(owner, STORED).save()
        monkeypatch.setattr(access.os, "access", lambda path, mode: False)
        assert reading.has_changed_unnoticed
        with Library.open(folder) as again:
            index.refresh(again)
            later = StoredVectors(folder / DATABASE, index._view.tail.rows.embedding_ids, DIM)
            later._idle = index._view.stored.rows.vectors._idle
            assert later._idle and later[:].any(axis=1).all()
            check_answers(opened(again, STORED), vectors[100:], ids[100:], least=0.99)


def test_a_database_that_is_gone_is_not_made_anew(library, model):
    store(library, clustered(20, DIM))
    stored = StoredVectors(library.folder / DATABASE, np.arange(1, 21), DIM)
    library.close()
    (library.folder / DATABASE).unlink()
    with pytest.raises(LibraryError, match="is gone"):
        stored[:5]
    assert not (library.folder / DATABASE).exists()


def test_backup_restore_and_salvage_of_a_library_whose_snapshot_has_no_vectors(
    library, model, tmp_path
):
    """After each, an id may be another picture's: the snapshot from before is not believed."""
    vectors = clustered(2400, DIM)
    ids = store(library, vectors[:2000])
    with library.transaction() as conn:
        conn.execute("INSERT INTO library VALUES (?, 1)", (SALVAGED,))  # images need no files
    index = opened(library, STORED)
    assert index.save() and index.kind == "ivf"
    back_up(library, tmp_path / "backup")
    delete(library, ids[1000:])
    store(library, vectors[2000:], first=2000)
    assert index.save()
    later = snapshot_path(library, model.id).read_bytes()
    del index
    library.close()
    folder = library.folder
    restore(tmp_path / "backup", folder)
    assert not snapshot_path(library, model.id).exists()
    with Library.open(folder) as restored:
        check_answers(opened(restored, STORED), vectors[:2000], ids)
        more = store(restored, vectors[2000:][::-1], first=3000)  # the same ids, other vectors
        snapshot_path(restored, model.id).write_bytes(later)
        both = np.concatenate([vectors[:2000], vectors[2000:][::-1]])
        both_ids = np.concatenate([ids, more])
        index = opened(restored, STORED)
        check_answers(index, both, both_ids)
        assert not is_saved(restored, model, STORED)
        assert index.save() and index.check() == []
        assert is_saved(restored, model, replace(STORED, at_once=100))
        assert isinstance(
            read_snapshot(snapshot_path(restored, model.id)).rows.vectors, StoredVectors
        )
        salvage(folder, tmp_path / "salvaged")
    shutil.copyfile(
        snapshot_path(restored, model.id), tmp_path / "salvaged" / f"index-{model.id}.snapshot"
    )
    with Library.open(tmp_path / "salvaged") as saved:
        check_answers(opened(saved, STORED), both, both_ids)


def test_a_closed_library_can_be_restored_at_once(colour_library, tmp_path, monkeypatch):
    """Its index had the database open."""
    monkeypatch.setattr(IndexOptions, "stay_stored", lambda self, count, dim: count > 0)
    back_up(colour_library, tmp_path / "backup")
    folder = colour_library.folder
    colour_library.close()
    with fovea.Library.open(folder) as library:
        assert library.similar(1).hits
    restore(tmp_path / "backup", folder)
