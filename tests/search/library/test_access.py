"""Libraries that cannot be written: on read-only disks, of other users, copies of live ones."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from fovea.search.errors import LibraryError, LibraryReadOnly
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.library import access, copies, schema
from fovea.search.library.connection import new_file
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.locks import exclusive, holder_of
from places import CHECKOUT, contents, read_only

FILES = {"closed": (), "copied": ("-wal",), "live": ("-wal", "-shm")}


@pytest.fixture
def late_root(colour_library):
    """A library in use: its newest root is in the ``-wal`` alone."""
    colour_library.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    colour_library.add_root(b"/late")
    return colour_library


def copy_of(library, tmp_path, endings):
    """Copy a library in use, with the database and those of the files beside it."""
    place = tmp_path / "copy"
    place.mkdir()
    for ending in ("", *endings):
        shutil.copyfile(library.folder / f"{DATABASE}{ending}", place / f"{DATABASE}{ending}")
    return place


@pytest.mark.parametrize("state", FILES)
def test_a_read_only_library_is_searched_with_all_that_it_holds(late_root, tmp_path, state):
    late_root.rows("PRAGMA wal_checkpoint(PASSIVE)") if state == "closed" else None
    place = copy_of(late_root, tmp_path, FILES[state])
    with read_only(place), Library.open(place) as library, Library.open(place) as second:
        assert not library.is_writable and not library.has_changed_unnoticed
        assert [root.path for root in library.roots()][-1] == b"/late"
        assert library.roots() == second.roots()
        index = VectorIndex.open(library, library.model().id, options=IndexOptions(at_once=1))
        assert len(index) == 8 and index.save() is False
        [found] = index.search(np.eye(1, 3, dtype=np.float32), 8).ids
        assert sorted(found) == list(range(1, 9))
        assert index.check() == []


@pytest.mark.parametrize(
    "write",
    [
        lambda library: library.add_root(b"/p"),
        lambda library: library.set_model("m", "a" * 64, 3, "test"),
        lambda library: library.delete_files([b"/p/a"]),
        lambda library: library.writing().__enter__(),
    ],
)
def test_what_must_write_says_so_in_one_line(colour_library, write):
    place = colour_library.folder
    colour_library.close()
    with read_only(place), Library.open(place, create=True) as library:
        with pytest.raises(LibraryReadOnly) as told:
            write(library)
        library.compact()  # tries in vain, and says nothing
    assert str(told.value) == (
        f"{place / DATABASE} is read-only; check its permissions, or copy the library to a folder "
        "of your own"
    )


def test_an_interrupted_write_is_undone_in_a_copy(colour_library, tmp_path, monkeypatch):
    colour_library.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    place = tmp_path / "hot"
    place.mkdir()
    shutil.copyfile(colour_library.folder / DATABASE, place / DATABASE)
    conn = sqlite3.connect(place / DATABASE, isolation_level=None)
    conn.execute("PRAGMA journal_mode = DELETE")
    conn.execute("PRAGMA cache_size = 1")
    conn.execute("BEGIN")
    conn.execute("CREATE TABLE half AS SELECT randomblob(3000) FROM files, files AS others")
    stopped = tmp_path / "stopped"
    shutil.copytree(place, stopped)  # as a power failure leaves it
    conn.close()
    assert (stopped / f"{DATABASE}-journal").stat().st_size
    with read_only(stopped), Library.open(stopped) as library:
        assert library.counts().images == 8 and not library.is_writable
        assert library.rows("SELECT name FROM sqlite_master WHERE name = 'half'") == []
        with pytest.raises(LibraryReadOnly):
            library.add_root(b"/p")
        monkeypatch.setattr(access.os, "access", lambda path, mode: False)
        assert not library.has_changed_unnoticed
    with Library.open(stopped) as library:
        monkeypatch.undo()
        assert not library.has_changed_unnoticed
        with Library.open(stopped) as owner:  # who undoes the write where it is
            owner.add_root(b"/p")
        assert library.has_changed_unnoticed


def older(folder, steps):
    """Make the database of an empty library as an earlier fovea did."""
    folder.mkdir()
    conn = new_file(folder / DATABASE)
    conn.execute("PRAGMA journal_mode = WAL")
    for statement in (one for step in schema.MIGRATIONS[:steps] for one in step):
        conn.execute(statement)
    conn.execute("INSERT INTO roots (path, added_at) VALUES (x'2f70', '2024-01-01')")
    conn.execute(f"PRAGMA user_version = {steps}")
    conn.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    conn.close()
    return folder


@pytest.mark.parametrize("steps", range(1, schema.VERSION))
def test_an_older_library_is_searched_as_a_migrated_copy(tmp_path, caplog, steps):
    folder = older(tmp_path / "old", steps)
    with read_only(folder), caplog.at_level(logging.WARNING):
        with Library.open(folder) as library, Library.open(folder) as second:
            assert [root.path for root in library.roots()] == [b"/p"]
            assert library.counts() == second.counts()
            assert library.rows("PRAGMA user_version") == [(schema.VERSION,)]
            with pytest.raises(LibraryReadOnly):
                library.add_root(b"/q")
            with pytest.raises(LibraryError, match="is read-only"):
                library.rows("DELETE FROM roots")
    [told] = caplog.messages
    assert told.startswith(f"{folder / DATABASE} was written by an older fovea and is read-only")
    with Library.open(folder) as library:  # it can be written again
        assert library.is_writable and library.add_root(b"/q")


def test_a_copy_needs_room(tmp_path, monkeypatch):
    folder = older(tmp_path / "old", 1)
    monkeypatch.setattr(copies, "free_bytes", lambda folder: 1000)
    with read_only(folder), pytest.raises(LibraryError, match="takes .* kB, but .* has 1.0 kB"):
        Library.open(folder)


def test_copies_of_dead_processes_are_deleted_and_ones_own_at_the_end(tmp_path):
    folder = older(tmp_path / "old", 1)
    places = tmp_path / "temporary"
    dead = places / f"{copies.PREFIX}{2**22 + 1}-x"
    dead.mkdir(parents=True)
    script = f"""if True:
        import os
        from fovea.search.library.library import Library
        library = Library.open({str(folder)!r})
        [(number, name, file)] = library.rows("PRAGMA database_list")
        print(file, library.counts().images)
    """
    with read_only(folder):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=CHECKOUT, capture_output=True, text=True, check=True,
            env=os.environ | {"TMPDIR": str(places)},
        )  # fmt: skip
    assert done.stdout.startswith(str(places)) and done.stdout.endswith(" 0\n")
    assert os.listdir(places) == []


def test_a_database_of_another_program_or_a_newer_fovea_is_refused(tmp_path):
    folder = older(tmp_path / "newer", 1)
    for change, told in (("user_version = 99", "upgrade fovea"), ("application_id = 7", "another")):
        conn = sqlite3.connect(folder / DATABASE)
        conn.execute(f"PRAGMA {change}")
        conn.close()
        with read_only(folder), pytest.raises(LibraryError, match=told):
            Library.open(folder)


def test_a_change_that_sqlite_does_not_notice_is_noticed(colour_library, monkeypatch):
    place = colour_library.folder
    colour_library.close()
    monkeypatch.setattr(access.os, "access", lambda path, mode: False)
    with Library.open(place) as library:
        assert "immutable" in access.access_of(library.conn).uri
        monkeypatch.undo()
        with Library.open(place) as owner:
            owner.add_root(b"/new")
            assert library.has_changed_unnoticed
            monkeypatch.setattr(access.os, "access", lambda path, mode: False)
            with Library.open(place) as again:  # while its owner has it open
                assert len(again.roots()) == 2 and not again.has_changed_unnoticed
                monkeypatch.undo()
                owner.add_root(b"/newer")
                assert len(again.roots()) == 3


OWNER = """if True:
    import sys
    from fovea.search.library.library import Library
    with Library.open(sys.argv[1]) as library:
        library.add_root(b"/first")
        print("open", flush=True)
        sys.stdin.readline()
        library.add_root(b"/second")
    print("closed", flush=True)
    sys.stdin.readline()
    with Library.open(sys.argv[1]) as library:
        library.add_root(b"/third")
"""


@pytest.fixture
def owner(colour_library):
    """Another process that has the library open, writes when it is told to, and closes it."""
    colour_library.close()
    command = [sys.executable, "-c", OWNER, str(colour_library.folder)]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout.readline() == "open\n"
        yield process


def roots(library):
    return [root.path for root in library.roots()][1:]


def tell(owner, answer):
    owner.stdin.write("\n")
    assert owner.stdout.readline() == answer


def only_read(monkeypatch):
    monkeypatch.setattr(access.os, "access", lambda path, mode: False)


def test_opening_a_second_time_keeps_the_first_ones_locks(colour_library, owner, monkeypatch):
    only_read(monkeypatch)
    place = colour_library.folder
    with Library.open(place) as reader, Library.open(place) as second:
        assert roots(reader) == roots(second) == [b"/first"]
        second.close()
        copies.copied_files(place / DATABASE)
        without_locks = f"file:{place / DATABASE}?mode=ro&vfs={access._vfs_without_locks()}"
        third = sqlite3.connect(without_locks, uri=True, factory=access.Connection)
        third.joined(access.Access(without_locks, keeps_locks=False), place / DATABASE)
        third.execute("PRAGMA locking_mode = EXCLUSIVE")
        third.execute("PRAGMA user_version").fetchall()
        third.close()
        tell(owner, "closed\n")
        assert (place / f"{DATABASE}-wal").exists(), "it was taken from under its reader"
        assert roots(reader) == [b"/first", b"/second"]
        owner.communicate("\n")
        assert roots(reader) == [b"/first", b"/second", b"/third"]
        assert not reader.has_changed_unnoticed


def test_a_connection_without_locks_is_closed_if_there_is_none_with(late_root, tmp_path):
    place = copy_of(late_root, tmp_path, FILES["copied"])
    with read_only(place):
        with Library.open(place) as library:
            assert not access.access_of(library.conn).keeps_locks
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            library.conn.execute("SELECT 1")


def test_files_that_are_replaced_are_noticed(colour_library, owner, tmp_path, monkeypatch):
    only_read(monkeypatch)
    place = colour_library.folder
    with Library.open(place) as reader:
        assert access.access_of(reader.conn).sees_writes and not reader.has_changed_unnoticed
        copy = tmp_path / "restored"
        shutil.copyfile(place / DATABASE, copy)
        os.replace(copy, place / DATABASE)
        assert reader.has_changed_unnoticed
    owner.kill()


def test_a_writable_folder_that_refuses_writes_is_read(colour_library, monkeypatch):
    place = colour_library.folder
    colour_library.close()
    monkeypatch.setattr(access.os, "access", lambda path, mode: True)  # a server that squashes root
    with read_only(place), Library.open(place) as library:
        assert len(library.roots()) == 1
        with pytest.raises(LibraryReadOnly):
            library.check_writable()


def test_the_holder_of_a_lock_is_known_where_it_can_only_be_read(library):
    with exclusive(library.folder, "odd"):
        with read_only(library.folder):
            assert holder_of(library.folder, "odd") == str(os.getpid())
    with read_only(library.folder):
        assert holder_of(library.folder, "odd") is None
        with pytest.raises(LibraryReadOnly, match="cannot lock .*; make the folder writable"):
            with exclusive(library.folder, "odd"):
                raise AssertionError("it was locked")


def test_opening_writes_nothing(colour_library):
    place = colour_library.folder
    colour_library.close()
    before = contents(place)
    with read_only(place):
        for _ in range(2):
            with Library.open(place) as library:
                library.counts()
    assert contents(place) == before
