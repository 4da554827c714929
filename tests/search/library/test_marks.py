"""Marks belong to contents: copies share them, and they outlast files, roots and models."""

import hashlib
import shutil

import numpy as np
import pytest

from coloured import encoded
from fovea.indexer.scanning.verify import verify
from fovea.search.errors import LibraryReadOnly
from fovea.search.library.facts.places import OFF
from fovea.search.library.library import Library
from fovea.search.library.marks import (
    MARKS,
    contents,
    hidden_images,
    mark,
    marked,
    marks_of,
)
from fovea.search.maintenance.backup import back_up, restore
from fovea.search.maintenance.forget import forget_root
from fovea.search.maintenance.salvage import salvage
from fovea.search.places.stored import data_of, switch
from places import read_only
from scanner import Scanner


def digest(file):
    return hashlib.sha256(file.read_bytes()).digest()


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(("red", "lime", "blue")):
        (folder / f"{colour}.png").write_bytes(encoded(colour, number))
    return folder


@pytest.fixture
def scan(library, pictures):
    scanner = Scanner(library)
    assert scanner(pictures).embedded == 3
    return scanner


def named(library, table):
    """The names of the files of the images that are marked in a table."""
    rows = library.rows(
        f"SELECT path FROM files JOIN {table} ON {table}.image_id = files.image_id "
        "WHERE state = 'indexed' ORDER BY path"
    )
    return [path.rpartition(b"/")[2].decode() for (path,) in rows]


@pytest.mark.parametrize("kind", MARKS)
def test_only_what_changes_is_told(library, scan, pictures, kind):
    red, blue = digest(pictures / "red.png"), digest(pictures / "blue.png")
    assert mark(library, [red, blue, red], kind, True) == [red, blue]
    assert mark(library, [blue], kind, True) == []
    assert {content for content, _ in marked(library, kind)} == {red, blue}
    assert mark(library, [red, b"\0" * 32], kind, False) == [red]
    [other] = [name for name in MARKS if name != kind]
    assert marked(library, other) == []


def test_images_know_their_marks(library, scan, pictures):
    ids = library.image_by_hash([digest(pictures / "red.png"), digest(pictures / "blue.png")])
    red, blue = (ids[digest(pictures / name)] for name in ("red.png", "blue.png"))
    mark(library, [digest(pictures / "red.png")], "favourite", True)
    mark(library, [digest(pictures / "blue.png")], "hidden", True)
    assert marks_of(library, [red, blue, 999]) == {
        red: {"favourite": True, "hidden": False},
        blue: {"favourite": False, "hidden": True},
        999: {"favourite": False, "hidden": False},
    }
    assert contents(library, [red, 999]) == {red: digest(pictures / "red.png")}
    assert hidden_images(library).tolist() == [blue]


def test_hidden_images_are_read_again_after_any_change(library, scan, pictures):
    red, blue = digest(pictures / "red.png"), digest(pictures / "blue.png")
    assert hidden_images(library).tolist() == []
    mark(library, [red], "hidden", True)
    assert len(hidden_images(library)) == 1
    with Library.open(library.folder) as other:
        mark(other, [blue], "hidden", True)
        assert hidden_images(library).tolist() == hidden_images(other).tolist()
        assert len(hidden_images(library)) == 2
        mark(other, [red, blue], "hidden", False)
    assert hidden_images(library).dtype == np.int64
    assert hidden_images(library).tolist() == []


def test_copies_share_a_mark_and_moves_keep_it(library, scan, pictures):
    mark(library, [digest(pictures / "red.png")], "favourite", True)
    shutil.copyfile(pictures / "red.png", pictures / "red copy.png")
    (pictures / "red.png").rename(pictures / "rouge.png")
    scan()
    assert named(library, "favourites") == ["red copy.png", "rouge.png"]
    assert verify(library).problems == []


def test_a_removed_folder_that_returns_has_its_marks(library, scan, pictures):
    for kind, name in zip(MARKS, ("red.png", "blue.png"), strict=True):
        mark(library, [digest(pictures / name)], kind, True)
    [root] = library.roots()
    forget_root(library, root.id)
    assert library.counts().images == 0
    assert named(library, "favourites") == named(library, "hidden") == []
    assert library.rows("SELECT count(*) FROM favourites") == [(0,)]
    assert verify(library).problems == []
    scan(pictures)
    assert named(library, "favourites") == ["red.png"]
    assert named(library, "hidden") == ["blue.png"]


def test_an_edited_picture_is_another_one(library, scan, pictures):
    mark(library, [digest(pictures / "red.png")], "favourite", True)
    before = (pictures / "red.png").read_bytes()
    (pictures / "red.png").write_bytes(encoded("red", 99))
    scan()
    assert named(library, "favourites") == []
    (pictures / "red.png").write_bytes(before)
    scan()
    assert named(library, "favourites") == ["red.png"]


def test_another_model_changes_no_mark(library, scan, pictures):
    mark(library, [digest(pictures / "red.png")], "hidden", True)
    library.set_model("another", "f" * 64, 3, "test")
    assert named(library, "hidden") == ["red.png"]


def test_backups_and_salvage_keep_marks(library, scan, pictures, tmp_path):
    red = digest(pictures / "red.png")
    mark(library, [red, b"\1" * 32], "favourite", True)
    switch(library, False)  # names of places
    before = library.rows("SELECT * FROM marks ORDER BY id")
    back_up(library, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored")
    report = salvage(library.folder, tmp_path / "saved")
    assert report.kept["marks"] == 2 and report.lost["marks"] == 0
    for place in ("backup", "restored", "saved"):
        with Library.open(tmp_path / place) as other:
            assert other.rows("SELECT * FROM marks ORDER BY id") == before
            assert named(other, "favourites") == ["red.png"]
            assert data_of(other) == OFF


def test_a_mark_that_the_images_do_not_have_is_found(library, scan, pictures):
    mark(library, [digest(pictures / "red.png")], "hidden", True)
    with library.transaction() as conn:
        conn.execute("DELETE FROM hidden")
    assert any("whether they are hidden" in line for line in verify(library).problems)


def test_a_library_that_cannot_be_written_shows_its_marks(library, scan, pictures):
    red = digest(pictures / "red.png")
    mark(library, [red], "favourite", True)
    folder = library.folder
    library.close()
    with read_only(folder), Library.open(folder) as opened:
        assert named(opened, "favourites") == ["red.png"]
        for hashes in ([red], []):
            with pytest.raises(LibraryReadOnly):
                mark(opened, hashes, "favourite", False)
