"""A walk that is merged with the library's rows finds what a plain comparison of both finds."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fovea.indexer.walking.walk
from fovea.indexer.decoding.formats import EXTENSIONS
from fovea.indexer.scanning import known
from fovea.indexer.scanning.changes import Survey, known_files
from fovea.indexer.scanning.known import Known, OrderedRows
from fovea.indexer.walking.ignore import IGNORED_NAMES
from fovea.indexer.walking.walk import Closed, Found, found, pieces, walk
from fovea.search.errors import LibraryDamaged
from fovea.search.library.files import below
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, NewImage, WriteBatch
from scanner import counts

# Names around the slash, which is between "." and "0"; of the same letters in two forms and two
# cases; and such as are no UTF-8 or are another order as code points than as bytes.
NAMES = [
    b"a", b"a.jpg", b"a.b", b"a/", b"a0.jpg", b"a.jpg.jpg", b"a-.jpg", b"A.jpg", b"b", b"b.jpg",
    "\u00e9.jpg".encode(), "e\u0301.jpg".encode(), b"\xe9.jpg", b"\xff", b"\xed\xb3\xbf.jpg",
    "\uffff.jpg".encode(), "\U00010000.jpg".encode(), b"\n.jpg", b"..jpg", b".h.jpg", b"z.txt",
]  # fmt: skip
name = st.sampled_from(sorted({entry.rstrip(b"/") for entry in NAMES}))
path = st.lists(name, min_size=1, max_size=4).map(b"/".join)
step = st.tuples(st.sampled_from(["file", "folder", "link", "touch", "delete", "index"]), path)


def plainly(root, stops=()):
    """List the pictures under a root by the plainest means: path -> stamps, or what it is not."""
    listed = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [
            sub for sub in folders
            if not sub.startswith(b".") and os.path.join(folder, sub) not in stops
            and not os.path.islink(os.path.join(folder, sub))
        ]  # fmt: skip
        for each in [*names, *(sub for sub in os.listdir(folder) if sub not in names)]:
            entry = os.path.join(folder, each)
            if os.path.isdir(entry) and not os.path.islink(entry):
                continue
            if each[each.rfind(b".") :].lower() in EXTENSIONS and each.rfind(b".") > 0:
                status = os.lstat(entry)
                refused = each.startswith(b".") or os.path.islink(entry)
                stamps = status.st_size, status.st_mtime_ns, status.st_ctime_ns
                listed[entry] = stamps if not refused else None
    return listed


def apply(root, verb, relative):
    """Do one thing to a path, whatever is there; nothing where that is not possible."""
    place = os.path.join(root, relative)
    with suppress(OSError):
        if verb in ("file", "folder", "link"):
            os.makedirs(os.path.dirname(place), exist_ok=True)
        if verb == "file":
            with open(place, "ab") as file:
                file.write(b".")
        elif verb == "folder":
            if os.path.isfile(place):
                os.unlink(place)  # a file becomes a folder
            os.makedirs(place, exist_ok=True)
        elif verb == "link":
            os.symlink(b"a.jpg", place)
        elif verb == "touch":
            os.utime(place, ns=(1, os.lstat(place).st_mtime_ns + 1))
        elif os.path.isdir(place) and not os.path.islink(place):
            os.rename(place, place + b"0")  # all below it moves
        else:
            os.unlink(place)


def store(library, root, paths, number):
    """Write the rows of some files as if they had been indexed just now."""
    model = library.set_model("m", "0" * 64, 2, "test")
    hash = number.to_bytes(32, "big")
    rows = [
        FileWrite(entry, root.id, status.st_size, status.st_mtime_ns, hash,
                  ctime_ns=status.st_ctime_ns)
        for entry in paths for status in [os.lstat(entry)]
    ]  # fmt: skip
    if rows:
        image = NewImage(hash, 1, vector=[1.0, 0.0])
        library.write_batch(WriteBatch([image], rows, model.id))


def rows_of(library):
    rows = library.rows("SELECT path, size, mtime_ns, ctime_ns FROM files")
    return {entry: tuple(stamps) for entry, *stamps in rows}


def check(library, roots, piece, page):
    """Survey the roots, and compare all that it says with what a plain comparison says."""
    with (
        patch.object(fovea.indexer.walking.walk, "PIECE", piece),
        patch.object(known, "PAGE", page),
    ):
        survey = Survey(roots, known_files(library, roots, 1))
        changes = list(survey.changes())
    assert not survey.closed
    before = rows_of(library)
    paths = {root.path for root in roots}
    disk = {}
    for root in roots:
        if root.id not in survey.offline:
            disk |= plainly(root.path, paths)
    of_offline = [below(root.path) for root in roots if root.id in survey.offline]
    here = {
        entry for entry in before if not any(low <= entry < high for low, high in of_offline)
    }  # no root is drawn inside an offline one
    same = {entry for entry, stamps in disk.items() if stamps and before.get(entry) == stamps}
    assert survey.found == len(disk)
    assert {change.path for change in changes} | {
        entry.path for entry in survey.refused
    } == disk.keys() - same
    assert survey.unchanged == len(disk) - len(changes)
    assert set(survey.known.files) == here - disk.keys()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(step, max_size=30),
    inner=st.none() | path,
    piece=st.integers(1, 4),
    page=st.integers(1, 5),
)
@example([("file", b"a/b.jpg"), ("file", b"a.jpg"), ("file", b"a0.jpg"), ("index", b"a"),
          ("delete", b"a")], None, 1, 1)  # fmt: skip
@example([("file", b"b/a.jpg"), ("file", b"b0"), ("file", b"b.jpg"), ("index", b"a")], b"b", 2, 2)
def test_what_differs_is_found_whatever_the_order(steps, inner, piece, page):
    with tempfile.TemporaryDirectory() as folder:
        place = os.fsencode(Path(folder).resolve())
        top = os.path.join(place, b"photos")
        os.mkdir(top)
        with open(os.path.join(top, b"notes.txt"), "wb"):
            pass  # an empty root would be offline
        with Library.open(Path(folder) / "library", create=True) as library:
            library.set_model("m", "0" * 64, 2, "test")
            library.add_root(top)
            for number, (verb, relative) in enumerate(steps):
                if verb != "index":
                    apply(top, verb, relative)
                    continue
                good = [entry for entry, stamps in plainly(top).items() if stamps]
                store(library, library.roots()[0], good, number)
                check(library, library.roots(), piece, page)
            if inner is not None:
                library.add_root(os.path.join(top, inner))
            check(library, library.roots(), piece, page)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(["file", "folder"]), path), max_size=30),
       st.integers(1, 4))  # fmt: skip
def test_a_walk_goes_in_the_order_of_the_bytes(steps, piece):
    with tempfile.TemporaryDirectory() as folder:
        for verb, relative in steps:
            apply(os.fsencode(folder), verb, relative)
        with patch.object(fovea.indexer.walking.walk, "PIECE", piece):
            walked = list(pieces(os.fsencode(folder)))
        assert all(len(part) <= piece for part in walked)
        paths = [picture[0] for part in walked for picture in part]
        assert paths == sorted(paths) and set(paths) == set(plainly(os.fsencode(folder)))
        assert [entry.path for entry in walk(os.fsencode(folder))] == paths


@pytest.fixture
def numbered(library):
    """A function that stores rows of some paths below /p, which nobody looks at on the disk."""

    def put(*paths):
        root = library.add_root(b"/p")
        files = [FileWrite(each, root.id, 1, 2, None, "failed", "no") for each in paths]
        library.write_batch(WriteBatch(files=files))
        return library

    return put


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_rows_below_a_folder_are_not_those_of_its_namesakes(numbered, monkeypatch, page):
    monkeypatch.setattr(known, "PAGE", page)
    library = numbered(b"/p/a/1", b"/p/a b/2", b"/p/a-/3", b"/p/a0", b"/p/a0/4", b"/p/a", b"/p/b")

    def paths(*folders):
        rows = OrderedRows(Known(library).ask, *folders)
        return [row[0] for _ in range(9) for row in rows.rest()]

    assert paths(b"/p/a") == paths(b"/p/a/") == [b"/p/a/1"]
    assert len(paths(b"/")) == 7
    assert paths(b"/p", [b"/p/a"]) == [
        b"/p/a", b"/p/a b/2", b"/p/a-/3", b"/p/a0", b"/p/a0/4", b"/p/b",
    ]  # fmt: skip
    assert paths(b"/p", [b"/p/a0", b"/p/a", b"/p/a/1", b"/q"]) == [
        b"/p/a", b"/p/a b/2", b"/p/a-/3", b"/p/a0", b"/p/b",
    ]  # fmt: skip


@pytest.mark.parametrize("page", [1, 3])
def test_rows_in_no_order_come_to_an_end(page, monkeypatch):
    monkeypatch.setattr(known, "PAGE", page)
    damaged = [(each, 1, 2, 3) for each in (b"/p/c", b"/p/a", b"/p/b", b"/p/d")]

    def ask(sql, parameters):
        low, high, count = parameters
        page = [row for row in damaged if low <= row[0] < high][:count]
        columns = [list(column) for column in zip(*page, strict=True)] or [None] * 4
        return lambda: [(columns[0] and b"\0".join(columns[0]), *map(json.dumps, columns[1:]))]

    ordered = OrderedRows(ask, b"/p")
    assert not ordered.take([(b"/p/a", 1, 2, 3)] * 9)
    assert ordered.until(b"/p/z")


def test_a_path_with_a_null_byte_is_damage(numbered):
    library = numbered(b"/p/a\0b", b"/p/c")
    with pytest.raises(LibraryDamaged, match="null byte"):
        OrderedRows(Known(library).ask, b"/p").rest()


def tables(library):
    """All rows of all tables, but not when the roots were scanned."""
    names = library.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
    found = {each: library.rows(f"SELECT * FROM {each}") for (each,) in names if each != "roots"}
    return found, library.rows("SELECT id, path, state, added_at FROM roots")


def test_nothing_is_written_where_nothing_has_changed(scan, photos):
    (photos / "broken.png").write_bytes(b"?")
    (photos / ".hidden.png").write_bytes(b"?")
    scan(photos)
    scan()  # which notes when the one before it ended
    folder = scan.library.folder
    before, changes = tables(scan.library), scan.library.conn.total_changes
    others = {each: each.stat() for each in folder.iterdir() if "library.db" not in each.name}
    assert any(each.name.endswith(".snapshot") for each in others)
    assert counts(scan()) == {"found": 10, "unchanged": 10}
    assert scan.library.conn.total_changes == changes + 1  # when the root was scanned
    assert tables(scan.library) == before
    for each, status in others.items():
        assert (each.stat().st_ino, each.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_a_damaged_database_is_refused_before_anything_is_written(scan, photos):
    scan(photos)
    (photos / "red.png").unlink()
    with scan.library.transaction() as conn:
        conn.execute("DELETE FROM shown")
    changes = scan.library.conn.total_changes
    for folders, source in (((), "test"), ((photos,), "test"), ((), "elsewhere")):
        scan.model.source = source  # which is written, too
        with pytest.raises(LibraryDamaged, match="searchable"):
            scan(*folders)
    assert scan.library.conn.total_changes == changes
    assert scan.files()[b"red.png"] == ("indexed", None)


def test_many_rows_are_read_whole_at_once(numbered):
    paths = [b"/p/%d" % number for number in range(1234)]
    library = numbered(*paths)
    found_rows = Known(library).rows_of([*paths, b"/p/none"])
    assert set(found_rows) == set(paths) and found_rows[b"/p/0"].state == "failed"


def test_no_ignored_name_is_a_pictures():
    """A walk asks about a picture's name only where it begins with a dot."""
    assert not any(os.path.splitext(each)[1].lower() in EXTENSIONS for each in IGNORED_NAMES)


def test_times_that_no_library_can_store_are_those_of_the_row():
    assert found((b"/a.jpg", 1, 2**70, -(2**70))) == Found(b"/a.jpg", 1, 2**63 - 1, None, -(2**63))
    assert found((b"/a.jpg", 1, 2, 0)).ctime_ns is None


def test_a_folder_that_fails_half_way_keeps_its_place(tmp_path, monkeypatch):
    for each in ("a.jpg", "b/c.jpg", "d.jpg"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).touch()
    real = os.scandir

    class Failing:
        def __init__(self, path):
            self._entries, self._fails = real(path), path == os.fsencode(tmp_path / "b")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._entries.close()

        def __iter__(self):
            yield from self._entries
            if self._fails:
                raise OSError(5, "Input/output error")

    monkeypatch.setattr(fovea.indexer.walking.walk.os, "scandir", Failing)
    entries = list(walk(os.fsencode(tmp_path)))
    [closed] = [entry for entry in entries if isinstance(entry, Closed)]
    assert closed.path == os.fsencode(tmp_path / "b")
    pictures = [os.path.basename(entry.path) for entry in entries if isinstance(entry, Found)]
    assert pictures == [b"a.jpg", b"c.jpg", b"d.jpg"]
