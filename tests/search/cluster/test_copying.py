"""A library goes to Milvus and back, and nothing of it is lost."""

import dataclasses

import numpy as np
import pytest

from commands import run
from fovea.search.cluster.copying import copy_library
from fovea.search.embedded.store import EmbeddedStore
from fovea.search.errors import LibraryError
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import Library
from fovea.search.models.installed import bundled
from fovea.search.query.likelihood import Background
from fovea.search.seam.writing import Unread
from libraries import MODEL, ROOTS, kept


@pytest.fixture
def filled(tmp_path):
    """A library in a folder."""
    with Library.open(tmp_path / "from", create=True) as library:
        store = EmbeddedStore(library)
        store.use_model(*MODEL)
        root = ROOTS[0]
        pictures = [kept(n, [(root + b"/%d \xff.jpg" % n, root, n)]) for n in range(5)]
        several = [(ROOTS[2] + b"/a.jpg", ROOTS[2], 0), (root + b"/b.jpg", root, -(10**18))]
        told = dict(width=40, height=30, format="JPEG", camera='"x"', taken_at="2019", latitude=48)
        pictures.append(kept(5, several, **told, longitude=-16.25, duration_ms=9))
        many = [(root + b"/many/%d.jpg" % n, root, n) for n in range(1500)]  # of which some are cut
        store.upsert([*pictures, kept(6, many)])
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
            assert len(one.files) > 2 or after[digest].files == one.files
            assert after[digest].metadata == one.metadata
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


def changed(one, **changes):
    return dataclasses.replace(one, image=dataclasses.replace(one.image, **changes))


SPOILED = {
    "files": lambda one: dataclasses.replace(one, files=one.files[:1]),
    "times": lambda one: dataclasses.replace(
        one, files=tuple(dataclasses.replace(file, mtime_ns=5) for file in one.files)
    ),
    "metadata": lambda one: changed(one, metadata=dataclasses.replace(one.metadata, width=41)),
    "vector": lambda one: changed(one, vector=np.roll(one.image.vector, 1)),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_pictures_that_arrive_otherwise_are_said(filled, tmp_path, monkeypatch, kind):
    upsert, spoiled = EmbeddedStore.upsert, kept(5, []).hash

    def spoiling(self, pictures, roots=None):
        found = [SPOILED[kind](one) if one.hash == spoiled else one for one in pictures]
        upsert(self, found, roots=roots)

    monkeypatch.setattr(EmbeddedStore, "upsert", spoiling)
    with Library.open(tmp_path / "other", create=True) as library:
        with pytest.raises(LibraryError, match="1 of 7 pictures differ from what was copied"):
            copy_library(filled, EmbeddedStore(library))


def test_pictures_that_are_not_read_are_said(filled, tmp_path, monkeypatch):
    pictures = EmbeddedStore.pictures
    monkeypatch.setattr(EmbeddedStore, "pictures", lambda self: (b[2:] for b in pictures(self)))
    with Library.open(tmp_path / "other", create=True) as library:
        with pytest.raises(LibraryError, match="2 of 7 pictures were not read"):
            copy_library(filled, EmbeddedStore(library))


def test_a_copy_in_a_folder_has_what_its_answers_need(filled, tmp_path):
    model = bundled()
    with Library.open(tmp_path / "bundled", create=True) as library:
        embedded = EmbeddedStore(library)
        embedded.use_model(model.name, model.identity, model.dim, model.source)
        embedded.upsert([kept(1, [(b"/p/a.jpg", b"/p", 1)], dim=model.dim)])
    for source in (tmp_path / "bundled", filled.library.folder):  # the latter's is not here
        done = run("library", "copy", source, tmp_path / f"copy of {source.name}")
        assert done.code == 0 and "all arrived" in done.out, done.err
    copy = tmp_path / "copy of bundled"
    assert Background.load(copy, model.identity) is not None
    with Library.open(copy) as library:
        assert snapshot_path(library, library.model().id).is_file()


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
