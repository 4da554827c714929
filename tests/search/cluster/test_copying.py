"""A library goes to Milvus and back, and nothing of it is lost."""

import pytest

from commands import run
from fovea.search.cluster.copying import copy_library
from fovea.search.embedded.store import EmbeddedStore
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.seam.writing import Unread
from libraries import MODEL, ROOTS, kept


@pytest.fixture
def filled(tmp_path):
    """A library in a folder."""
    with Library.open(tmp_path / "from", create=True) as library:
        store = EmbeddedStore(library)
        store.use_model(*MODEL)
        root = ROOTS[0]
        store.upsert([kept(n, [(root + b"/%d \xff.jpg" % n, root, n)]) for n in range(7)])
        store.account([Unread(root + b"/bad.jpg", root, "failed", "it is empty", 0, 1)])
        yield store


def test_a_library_goes_to_milvus_and_back(filled, cluster, tmp_path):
    there, back = str(cluster.address), str(tmp_path / "back")
    place = str(filled.library.folder)
    ways = ((place, there), (there, back), (there, back))
    found = [run("library", "copy", "--json", *way).json for way in ways]
    assert found[0] == found[1] == found[2]
    assert found[0]["pictures"] == 7 and found[0]["unread"] == 1
    with Library.open(back) as library:
        before = {one.hash: one for batch in filled.pictures() for one in batch}
        after = {one.hash: one for b in EmbeddedStore(library).pictures() for one in b}
        assert before.keys() == after.keys()
        for digest, one in before.items():
            assert after[digest].files == one.files and after[digest].metadata == one.metadata
            assert after[digest].image.vector == pytest.approx(one.image.vector, abs=1e-3)


def test_a_copy_leaves_the_files_of_the_target_in_other_folders(filled, store, tmp_path):
    digest = next(iter(filled.pictures()))[0].hash
    root = ROOTS[1]
    with Library.open(tmp_path / "filled", create=True) as library:
        embedded = EmbeddedStore(library)
        embedded.use_model(*MODEL)
        for target in (embedded, store):
            target.upsert([kept(n, [(root + b"/%d" % n, root, n)]) for n in range(9)])
            copied = copy_library(filled, target)
            found = {one.hash: one for batch in target.pictures() for one in batch}
            assert copied.pictures == 7 and len(found) == 9
            assert {file.root for file in found[digest].files} == {root, ROOTS[0]}


def test_a_library_with_another_model_is_left_alone(filled, tmp_path):
    with Library.open(tmp_path / "other", create=True) as library:
        other = EmbeddedStore(library)
        other.use_model("other", "99" * 32, 8, "test")
        other.upsert([kept(1, [(ROOTS[0] + b"/a.jpg", ROOTS[0], 1)], dim=8)])
        with pytest.raises(LibraryError, match="uses other, not toy"):
            copy_library(filled, other)


def test_what_does_not_arrive_is_said(filled, tmp_path, monkeypatch):
    monkeypatch.setattr("fovea.search.cluster.copying.ARRIVED_S", 0.0)
    with Library.open(tmp_path / "other", create=True) as library:
        other = EmbeddedStore(library)
        monkeypatch.setattr(EmbeddedStore, "upsert", lambda self, pictures, roots: None)
        with pytest.raises(LibraryError, match="7 of 7 pictures have not arrived"):
            copy_library(filled, other)
