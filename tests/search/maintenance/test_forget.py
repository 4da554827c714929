"""A root that is forgotten leaves nothing on the disk."""

import os

import numpy as np
import pytest

from fovea.search.errors import LibraryBusy
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.maintenance.forget import forget_root, thumbnail_path


@pytest.fixture
def two(colour_library, photos, tmp_path, add_file):
    """A library of two roots; its index is saved, and each image has thumbnails."""
    private = tmp_path / "private"
    private.mkdir()
    (photos / "red.png").rename(private / "unmistakable.png")
    colour_library.delete_files([os.fsencode(photos / "red.png")])
    root = colour_library.add_root(private)
    add_file(colour_library, root.id, private / "unmistakable.png")
    model = colour_library.model()
    assert VectorIndex.open(colour_library, model.id).save()
    for (digest,) in colour_library.rows("SELECT hash FROM images"):
        for kind in ("256", "preview"):
            path = thumbnail_path(colour_library.folder / "thumbnails", digest, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(digest)
    return colour_library


def on_disk(library):
    """All bytes of all files of a library."""
    return b"".join(path.read_bytes() for path in library.folder.rglob("*") if path.is_file())


def test_a_root_that_is_forgotten_leaves_nothing_on_the_disk(two):
    *_, root = two.roots()
    [(digest, vector)] = two.rows(
        "SELECT hash, vector FROM embeddings JOIN images ON images.id = image_id "
        "JOIN files USING (image_id) WHERE root_id = ?",
        (root.id,),
    )
    traces = (digest, vector, b"unmistakable", root.path)
    assert all(trace in on_disk(two) for trace in traces)
    two.add_root(root.path + b"-later")
    assert forget_root(two, root.id) == 1
    left = on_disk(two)
    assert [trace for trace in traces[:3] if trace in left] == []
    assert left.count(root.path) == left.count(root.path + b"-later")
    assert len(list(two.folder.glob("thumbnails/*/*"))) == 14
    index = VectorIndex.open(two, two.model().id)
    assert len(index) == 7 and index.check() == []
    assert index.search(np.float32([[1, 0, 0]]), 7).ids.min() > 0


def test_a_library_without_a_root_keeps_nothing(two, caplog):
    model = two.model()
    for root in two.roots():
        forget_root(two, root.id)
    assert not list(two.folder.glob("*.snapshot")) and not list(two.folder.glob("thumbnails/*/*"))
    assert len(VectorIndex.open(two, model.id)) == 0
    assert caplog.text == ""


def test_nothing_is_forgotten_while_the_index_is_saved(two):
    root, *_ = two.roots()
    with Library.open(two.folder) as other, exclusive(other.folder, f"index-{two.model().id}"):
        with pytest.raises(LibraryBusy, match=f"pid {os.getpid()}. is saving the index of"):
            forget_root(two, root.id)
    assert len(two.roots()) == 2


def test_a_large_root_gives_its_room_back(two, monkeypatch):
    rows = ((os.urandom(32), 1, b"\0" * 4000) for _ in range(500))
    with two.transaction() as conn:
        conn.executemany("INSERT INTO images (hash, bytes, camera) VALUES (?, ?, ?)", rows)
        conn.execute(
            "INSERT INTO files (path, root_id, size, mtime_ns, image_id, state) "
            "SELECT root.path || '/' || images.id, root.id, 1, 1, images.id, 'indexed' "
            "FROM images, (SELECT * FROM roots ORDER BY id LIMIT 1) AS root WHERE images.bytes = 1"
        )
    root, *_ = two.roots()
    before = len(on_disk(two))
    forget_root(two, root.id)
    assert len(on_disk(two)) < before - 500 * 4000
