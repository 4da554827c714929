"""Scans for files that were found changed look at these alone, whatever lies around them."""

import os

import pytest
from PIL import Image

from fovea.indexer.scanning import changes
from fovea.indexer.walking.ignore import Ignore
from fovea.indexer.walking.walk import Closed, look
from scanner import counts, many


@pytest.fixture
def albums(scan, tmp_path):
    """A library of photos/album/, and a folder beside it that nobody indexed."""
    (tmp_path / "photos").mkdir()
    many(tmp_path / "photos" / "album", 3)
    many(tmp_path / "private", 3, start=50)
    scan(tmp_path / "photos")
    return tmp_path / "photos"


def drawn(path, colour):
    Image.new("RGB", (4, 4), colour).save(path)


def reasons(report):
    return {os.path.basename(problem.path): problem.reason for problem in report.problems}


def untouched(scan, photos):
    assert [root.path for root in scan.library.roots()] == [os.fsencode(photos)]
    [(private,)] = scan.library.rows("SELECT count(*) FROM files WHERE path LIKE '%private%'")
    assert private == 0


@pytest.mark.parametrize("way", ["changed", "reread"])
@pytest.mark.parametrize("target", ["private", "private/050.png"])
def test_a_file_that_became_a_link_adds_nothing(scan, albums, way, target):
    path = albums / "album" / "001.png"
    path.unlink()
    path.symlink_to(albums.parent / target)
    drawn(albums / "album" / "000.png", "pink")
    report = scan(albums / "album" / "000.png", path, **{way: True})
    assert report.embedded == 1
    untouched(scan, albums)
    if way == "changed":
        assert reasons(report) == {b"001.png": "not a file but a symbolic link"}


@pytest.mark.parametrize("way", ["changed", "reread"])
def test_a_folder_that_became_a_link_adds_nothing(scan, albums, way):
    (albums / "album").rename(albums / "other")
    (albums / "album").symlink_to(albums.parent / "private")
    report = scan(albums / "album" / "050.png", **{way: True})
    untouched(scan, albums)
    if way == "changed":
        assert reasons(report) == {b"050.png": "not a file: its folder is a symbolic link"}
        assert report.found == 0


def test_a_link_to_a_root_still_names_what_is_in_it(scan, albums, tmp_path):
    (tmp_path / "short").symlink_to(albums)
    drawn(albums / "album" / "000.png", "pink")
    assert scan(tmp_path / "short" / "album" / "000.png", reread=True).embedded == 1
    untouched(scan, albums)


def test_nothing_else_is_looked_at(scan, albums, monkeypatch):
    drawn(albums / "album" / "000.png", "pink")
    (albums / "album" / "001.png").unlink()
    drawn(albums / "album" / "new.png", "lime")
    monkeypatch.setattr(changes, "pieces", None)
    assert counts(scan(albums / "album" / "000.png", changed=True)) == {"found": 1, "embedded": 1}
    assert scan.files()[b"001.png"] == ("indexed", None) and b"new.png" not in scan.files()
    monkeypatch.undo()
    assert counts(scan()) == {"found": 3, "embedded": 1, "unchanged": 2, "deleted": 1}


def test_one_that_cannot_be_read_does_not_keep_the_others(scan, albums):
    paths = {name: albums / "album" / name for name in ("000.png", "001.png", "002.png")}
    drawn(paths["000.png"], "pink")
    paths["001.png"].unlink()
    (albums / ".foveaignore").write_text("002.png\n")
    text = albums / "album" / "notes.txt"
    text.touch()
    outside = albums.parent / "private" / "051.png"
    report = scan(*paths.values(), text, outside, albums, changed=True)
    assert counts(report) == {"found": 1, "embedded": 1}
    assert reasons(report) == {
        b"001.png": "unreadable: No such file or directory",
        b"002.png": "ignored: matches an ignore pattern",
        b"notes.txt": "not a picture by its name",
        b"051.png": "in no folder of the library",
        b"photos": "not a file but a folder",
    }
    untouched(scan, albums)


@pytest.mark.parametrize("place", [".", "album"])
def test_ignore_files_on_the_way_count(scan, albums, place):
    (albums / place / ".foveaignore").write_bytes(b"\xff\xff")
    drawn(albums / "album" / "000.png", "pink")
    report = scan(albums / "album" / "000.png", changed=True)
    assert report.found == report.embedded == 0 and report.barred == 1
    assert list(reasons(report)) == [b".foveaignore"]


def test_folders_that_a_walk_leaves_out_are_left_out(albums):
    root, path = os.fsencode(albums), os.fsencode(albums / "album" / "000.png")
    [entry] = look(root, [path], Ignore(), {os.path.dirname(path)})
    assert entry == Closed(path, "its folder is left out")


def test_a_dry_run_counts_the_same(scan, albums):
    drawn(albums / "album" / "000.png", "pink")
    report = scan(albums / "album" / "000.png", changed=True, dry_run=True)
    assert counts(report) == {"found": 1, "embedded": 1}


# A root inside another one


@pytest.mark.parametrize("place", ["photos", "photos/album"])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_root_below_a_bad_ignore_file_is_barred_too(scan, albums, place, is_known):
    inner = albums / "album" / "inner"
    many(inner, 2, start=20)
    if is_known:
        scan(inner)
        drawn(inner / "020.png", "pink")
    (albums.parent / place / ".foveaignore").write_bytes(b"\xff\xff")
    report = scan(inner)
    assert report.found == 0 and report.barred == 1
    assert list(reasons(report)) == [b".foveaignore"]
    report = scan()
    assert (report.embedded, report.deleted, report.held) == (0, 0, 0)
