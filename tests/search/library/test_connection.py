"""One opener: who may run a checkpoint, and which journal a file system gets."""

import ast
import logging
import sqlite3
import struct
import subprocess
import sys
import threading

import pytest

from fovea.search.errors import LibraryError
from fovea.search.library import connection, network
from fovea.search.library.connection import connect, immediate
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.locks import briefly, exclusive
from places import CHECKOUT
from vectors import paths, put

pytestmark = pytest.mark.usefixtures("nothing_is_unreachable")

OPENER = "search/library/connection.py"
OF_OTHERS = {
    "bench/rivals/rclip_side.py",  # the database of another program
    "search/cluster/copying.py",  # notes on the disk that end with the copy
}


def test_every_connection_comes_from_the_one_opener():
    found = set()
    for room in ("bench", "data", "docs", "fovea/cli", "indexer", "search", "web"):
        for file in (CHECKOUT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                opens = isinstance(node, ast.Attribute) and node.attr in ("connect", "dbapi2")
                if opens and isinstance(node.value, ast.Name) and node.value.id == "sqlite3":
                    found.add(file.relative_to(CHECKOUT).as_posix())
                if isinstance(node, ast.ImportFrom) and node.module == "sqlite3":
                    found.add(file.relative_to(CHECKOUT).as_posix())
    assert found - OF_OTHERS == {OPENER}


# Checkpoints


def state(folder):
    """The database's bytes, and how often its WAL was begun anew (the header's third number)."""
    wal = (folder / f"{DATABASE}-wal").read_bytes()
    return (folder / DATABASE).read_bytes(), struct.unpack_from(">I", wal, 12) if wal else None


@pytest.fixture
def busy(tmp_path):
    """A library that another connection holds open, with something in its WAL."""
    folder = tmp_path / "library"
    with Library.open(folder, create=True) as first:
        root = first.add_root(b"/photos")
        put(first, root.id, b"/photos/a.jpg", 1)
        yield folder, root


def put_many(library, root, start, count):
    for number in range(start, start + count):
        library.note([b"/photos/a.jpg"], f"{number} " + "x" * 4000)


def test_no_connection_without_the_writers_lock_runs_a_checkpoint(busy, monkeypatch):
    folder, root = busy
    monkeypatch.setattr(connection, "WAL_BYTES", 4096)
    before = state(folder)
    with Library.open(folder) as other:
        put_many(other, root, 0, 1500)  # more pages than SQLite's own limit of 1,000
        assert other.counts().images == 1
        assert (folder / f"{DATABASE}-wal").stat().st_size > 1000 * 4096
    with connect(folder / DATABASE) as plain, immediate(plain):
        plain.execute("INSERT INTO library VALUES ('x', 1)")
    plain.close()
    assert state(folder) == before


def test_the_holder_of_the_writers_lock_runs_checkpoints(busy, monkeypatch):
    folder, root = busy
    monkeypatch.setattr(connection, "WAL_BYTES", 4096)
    before = state(folder)
    with Library.open(folder) as other, other.writing():
        put_many(other, root, 0, 3)
        assert state(folder) != before
        assert (folder / f"{DATABASE}-wal").stat().st_size < 20 * 4096
    assert (folder / f"{DATABASE}-wal").stat().st_size == 0


def test_the_last_connection_leaves_the_wal_alone_while_another_process_has_the_lock(tmp_path):
    folder = tmp_path / "library"
    Library.open(folder, create=True).close()
    with exclusive(folder, connection.WRITER):
        library = Library.open(folder)
        library.add_root(b"/photos")
        before = state(folder)
        library.close()
        assert state(folder) == before
    with Library.open(folder) as library:
        assert [root.path for root in library.roots()] == [b"/photos"]
    assert not (folder / f"{DATABASE}-wal").exists()  # closed with the lock, by the last one


def test_a_huge_wal_is_moved_by_whoever_writes_once_the_lock_is_free(busy, monkeypatch):
    folder, root = busy
    monkeypatch.setattr(connection, "WAL_MOST", 4096)
    before = state(folder)
    with Library.open(folder) as other:
        with exclusive(folder, connection.WRITER):
            put_many(other, root, 0, 3)
            assert state(folder) == before
        put_many(other, root, 3, 1)
        assert state(folder) != before


def test_no_checkpoint_runs_while_another_connection_writes(busy):
    folder, root = busy
    running = threading.Event()
    with Library.open(folder) as other:
        before = state(folder)
        with other.transaction() as conn:
            conn.execute("INSERT INTO library VALUES ('x', 1)")

            def take_turns():
                with Library.open(folder) as writer, writer.writing():
                    running.set()  # the checkpoint at the end waits for the transaction

            thread = threading.Thread(target=take_turns)
            thread.start()
            assert running.wait(30)
            thread.join(0.3)
            assert thread.is_alive()
            assert state(folder) == before
        thread.join(30)
        assert state(folder) != before


def test_compacting_waits_for_whoever_writes(busy, monkeypatch):
    folder, root = busy
    monkeypatch.setattr(connection, "BUSY_S", 0.05)
    with Library.open(folder) as library:
        put_many(library, root, 0, 1)
        library.rows("CREATE TABLE filler AS SELECT zeroblob(100000)")
        library.rows("DROP TABLE filler")
        before = library.rows("PRAGMA freelist_count")
        version = library.rows("PRAGMA schema_version")
        with briefly(folder, connection.COMMIT):
            wal = (folder / f"{DATABASE}-wal").read_bytes()
            library.compact()
            assert (folder / f"{DATABASE}-wal").read_bytes() == wal
            assert library.rows("PRAGMA freelist_count") == before != [(0,)]
        library.compact()
        assert library.rows("PRAGMA freelist_count") == [(0,)]
        assert library.rows("PRAGMA schema_version") != version


@pytest.mark.parametrize("left", [None, '{"pid": 999999999}', '{"pid": "x"}', "{"])
def test_a_lock_that_is_held_for_a_moment_makes_nobody_busy(tmp_path, left):
    Library.open(tmp_path, create=True).close()
    if left is not None:  # by an indexer that was killed
        (tmp_path / "writer.pid").write_text(left)
    code = (
        "import sys, time; from pathlib import Path; "
        "from fovea.search.library.locks import briefly\n"
        "with briefly(Path(sys.argv[1]), 'writer') as held:\n"
        "    print(held, flush=True); time.sleep(0.5)"
    )
    with (
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=CHECKOUT
        ) as holder,
        Library.open(tmp_path) as library,
    ):
        assert holder.stdout.readline() == b"True\n"
        with library.writing():
            pass


@pytest.mark.parametrize("is_gone", [True, False])
def test_closing_does_not_bring_back_a_folder_that_is_gone(tmp_path, is_gone):
    place, elsewhere = tmp_path / "mount" / "library", tmp_path / "unmounted"
    library = Library.open(place, create=True)
    library.add_root(b"/photos")
    place.parent.rename(elsewhere)
    if not is_gone:
        place.parent.mkdir()  # the empty mount point
    library.close()
    assert place.parent.exists() is not is_gone and not place.exists()
    with pytest.raises(LibraryError, match="cannot lock"), exclusive(place, connection.WRITER):
        raise AssertionError("it was locked")
    assert not place.exists()
    with Library.open(elsewhere / "library") as again:
        assert len(again.roots()) == 1


# Network file systems


def test_a_library_on_a_network_file_system_has_no_wal_and_says_so_once(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(connection, "remote_kind", lambda folder: "nfs4")
    with caplog.at_level(logging.WARNING, "fovea"):
        for _ in range(2):
            with Library.open(tmp_path, create=True) as library:
                root = library.add_root(b"/photos")
                put(library, root.id, b"/photos/a.jpg", 1)
                assert library.rows("PRAGMA journal_mode") == [("delete",)]
                assert not list(tmp_path.glob("*-wal")) and not list(tmp_path.glob("*-shm"))
    [record] = caplog.records
    assert "network file system (nfs4)" in record.getMessage()


def test_a_library_that_is_moved_to_another_file_system_changes_its_journal(
    tmp_path, monkeypatch, caplog
):
    with Library.open(tmp_path, create=True) as library:
        root = library.add_root(b"/photos")
        put(library, root.id, b"/photos/a.jpg", 1)
        rows = paths(library)
    for kind, mode in (("cifs", "delete"), (None, "wal"), ("fuse.sshfs", "delete")):
        monkeypatch.setattr(connection, "remote_kind", lambda folder, kind=kind: kind)
        with Library.open(tmp_path) as library:
            assert library.rows("PRAGMA journal_mode") == [(mode,)]
            assert paths(library) == rows
    assert len(caplog.records) == 2


MOUNTS = b"""\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:40 / /mnt/nas rw shared:5 - nfs4 nas:/export rw
3 1 0:41 / /mnt/with\\040space rw - cifs //nas/share rw
4 1 8:2 / /mnt/nas/local rw - btrfs /dev/sdb rw
5 1 0:42 / /mnt/far rw - fuse.sshfs me@there: rw
6 1 0:43 / /mnt/near rw - fuse.mergerfs a:b rw
7 1 0:44 / /mnt/twice rw - ext4 /dev/sdc rw
8 1 0:45 / /mnt/twice rw - 9p host rw
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the table of mounts is Linux's")
@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/library", None),
        ("/mnt/nas", "nfs4"),
        ("/mnt/nas/a/library", "nfs4"),
        ("/mnt/nas2/library", None),
        ("/mnt/nas/local/library", None),
        ("/mnt/with space/library", "cifs"),
        ("/mnt/far/library", "fuse.sshfs"),
        ("/mnt/near/library", None),
        ("/mnt/twice/library", "9p"),
    ],
)
def test_the_innermost_mount_decides_what_is_a_network_file_system(
    tmp_path, monkeypatch, folder, kind
):
    (tmp_path / "mountinfo").write_bytes(MOUNTS)
    monkeypatch.setattr(network, "MOUNTS", tmp_path / "mountinfo")
    assert network.remote_kind(folder) == kind


def test_a_system_that_does_not_tell_counts_as_local(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "MOUNTS", tmp_path / "absent")
    assert network.remote_kind(tmp_path) is None


def test_sqlite_itself_checks_cells_and_waits(tmp_path):
    conn = connect(tmp_path / DATABASE)
    assert conn.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert conn.execute("PRAGMA cell_size_check").fetchone() == (1,)
    assert isinstance(conn, sqlite3.Connection)
    conn.close()
