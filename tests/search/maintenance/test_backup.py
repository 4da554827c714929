"""A library is backed up while it is written, and restored whole or not at all."""

import os
import random
import subprocess
import sys
import threading
from unittest.mock import Mock

import pytest

import fovea
from commands import run
from damaging import flip, made
from fovea.indexer.scanning.verify import verify
from fovea.search.errors import LibraryBusy, LibraryDamaged, LibraryError
from fovea.search.library import schema
from fovea.search.library.connection import connect
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.locks import exclusive
from fovea.search.maintenance import backup as module
from fovea.search.maintenance.backup import back_up, restore
from fovea.search.maintenance.salvage import salvage
from places import CHECKOUT
from scanner import Scanner


def rows(folder):
    with Library.open(folder) as library:
        return [
            library.rows(f"SELECT * FROM {table} ORDER BY 1")
            for table in ("roots", "images", "files", "models", "embeddings", "library", "shown")
        ]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("original"))


@pytest.fixture
def own(original, tmp_path):
    """A library to be changed, of the pictures of ``original``."""
    folder = tmp_path / "library"
    with Library.open(original / "library") as library:
        back_up(library, folder)
    return folder


def test_a_backup_has_every_row_and_is_a_library_itself(own, tmp_path):
    told = []
    with Library.open(own) as library:
        report = back_up(library, tmp_path / "b" / "c", lambda *now: told.append(now))
    assert (report.images, report.files) == (40, 41)
    assert os.listdir(tmp_path / "b" / "c") == [DATABASE]
    assert told[-1] == (report.bytes, report.bytes)
    assert rows(tmp_path / "b" / "c") == rows(own)


def test_a_folder_that_holds_anything_is_refused(own, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    with Library.open(own) as library:
        with pytest.raises(LibraryError, match="not empty; choose a new folder"):
            back_up(library, tmp_path / "full")
        with pytest.raises(LibraryError, match="cannot use"):
            back_up(library, tmp_path / "full" / "x")
        back_up(library, tmp_path / "empty")
        with pytest.raises(LibraryError, match="not empty"):
            back_up(library, tmp_path / "empty")
    assert os.listdir(tmp_path / "full") == ["x"]


def test_a_backup_made_while_another_writes_is_one_state(own, tmp_path, monkeypatch):
    """Every transaction of the writer adds a file and changes all others."""
    monkeypatch.setattr(module, "PAGES", 1)
    writing, done = threading.Event(), threading.Event()

    def write():
        with Library.open(own) as other, other.writing():
            number = 0
            while not done.is_set():
                number += 1
                with other.transaction() as conn:
                    conn.execute("UPDATE files SET reason = ?", (str(number),))
                    conn.execute(
                        "INSERT INTO files (path, root_id, size, mtime_ns, state, reason) "
                        "VALUES (?, 1, 1, 1, 'failed', ?)",
                        (b"/x/%d" % number, str(number)),
                    )
                writing.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert writing.wait(30)
        seen = 0

        def wait(done_bytes, all_bytes):
            nonlocal seen
            seen += 1
            if seen % 20 == 1:
                writing.clear()
                assert writing.wait(30)  # something is committed between two pages

        with Library.open(own) as library:
            report = back_up(library, tmp_path / "backup", wait)
    finally:
        done.set()
        thread.join()
    with Library.open(tmp_path / "backup") as library:
        [(number,)] = library.rows("SELECT DISTINCT CAST(reason AS INTEGER) FROM files")
        assert report.files == 41 + number
        assert verify(library).problems == []
    with Library.open(own) as library:
        assert library.rows("SELECT count(*) FROM files")[0][0] > report.files


def test_a_damaged_library_is_not_backed_up(own, tmp_path):
    conn = connect(own / DATABASE)
    conn.execute("UPDATE images SET hash = 'x' WHERE id = 3")
    conn.close()
    with Library.open(own) as library, pytest.raises(LibraryDamaged, match="impossible values"):
        back_up(library, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_restored_library_is_as_it_was(own, tmp_path):
    with Library.open(own) as library:
        back_up(library, tmp_path / "backup")
        before = rows(own)
        library.remove_root(library.roots()[0].id)
    after = rows(own)
    report = restore(tmp_path / "backup", own)
    assert (report.images, report.files) == (40, 41)
    assert rows(own) == before
    assert rows(report.aside) == after
    assert report.aside.parent == own
    again = restore(tmp_path / "backup", own)  # within one second
    assert again.aside != report.aside
    assert not list(own.glob("*.tmp*"))
    with fovea.Library.open(own) as library:
        assert len(library.search("", k=100).hits) == 40


def test_a_library_is_made_of_a_backup(own, tmp_path):
    report = restore(own, tmp_path / "new" / "library")
    assert report.aside is None
    assert rows(tmp_path / "new" / "library") == rows(own)


def add_a_root(folder):
    """A killed process leaves a WAL behind, with a root in it."""
    code = (
        "import os, sys; from fovea.search.library.library import Library\n"
        "library = Library.open(sys.argv[1]); library.add_root(b'/left/behind'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=CHECKOUT, check=True)


@pytest.mark.parametrize("wal", [False, True])
def test_a_backup_is_only_read(own, tmp_path, wal):
    if wal:
        add_a_root(own)
        (own / f"{DATABASE}-shm").unlink()
    before = {path: path.stat().st_mtime_ns for path in own.iterdir()}
    os.chmod(own, 0o500)
    try:
        restore(own, tmp_path / "new")
    finally:
        os.chmod(own, 0o700)
    assert {path: path.stat().st_mtime_ns for path in own.iterdir()} == before
    with Library.open(tmp_path / "new") as library:
        assert len(library.roots()) == 1 + wal
    if wal:
        salvage(own, tmp_path / "saved")
        assert {path: path.stat().st_mtime_ns for path in own.iterdir()} == before


def test_what_killed_runs_have_left_is_deleted(own, tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    for place in (own, tmp_path / "new"):
        place.mkdir(exist_ok=True)
        for ending in ("", "-journal"):
            (place / f"{DATABASE}.{gone.pid}.tmp{ending}").touch()
    (own / f"{DATABASE}.{os.getppid()}.tmp").touch()
    with Library.open(own) as library:
        back_up(library, tmp_path / "new")
    assert os.listdir(tmp_path / "new") == [DATABASE]
    restore(tmp_path / "new", own)
    assert [path.name for path in own.glob("*.tmp*")] == [f"{DATABASE}.{os.getppid()}.tmp"]


def test_what_cannot_be_read_is_named_not_its_copy(own, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / DATABASE).write_text("no database " * 1000)
    with pytest.raises(LibraryError) as raised:
        restore(tmp_path / "text", own)
    assert str(raised.value).startswith(str(tmp_path / "text" / DATABASE))
    assert ".tmp" not in str(raised.value)


def test_without_links_the_library_keeps_its_name_until_it_is_replaced(own, tmp_path, monkeypatch):
    with Library.open(own) as library:
        back_up(library, tmp_path / "backup")
    monkeypatch.setattr(module.os, "link", Mock(side_effect=OSError(1, "no links")))
    moved = []
    replace = os.replace
    monkeypatch.setattr(
        module.os, "replace", lambda old, new: (moved.append(os.fspath(old)), replace(old, new))
    )
    report = restore(tmp_path / "backup", own)
    assert os.fspath(own / DATABASE) not in moved
    assert rows(report.aside) == rows(own)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_backup_changes_nothing(own, tmp_path, seed):
    chance, place = random.Random(seed), tmp_path / "backup"
    place.mkdir()
    data = bytearray((own / DATABASE).read_bytes())
    page = chance.randrange(1, len(data) // 4096)
    data[page * 4096 : (page + 1) * 4096] = chance.randbytes(4096)
    (place / DATABASE).write_bytes(data)
    before, names = rows(own), sorted(os.listdir(own))
    with pytest.raises(LibraryError, match=r"backup.*(damaged|not a library)"):
        restore(place, own)
    assert rows(own) == before
    assert {name for name in os.listdir(own) if not name.endswith(".lock")} <= set(names)


def test_what_is_no_backup_is_refused(own, tmp_path):
    with pytest.raises(LibraryError, match="no backup in"):
        restore(tmp_path, own)
    with pytest.raises(LibraryError, match="is the library itself"):
        restore(own, own)
    other = tmp_path / "other"
    other.mkdir()
    conn = connect(other / DATABASE)
    conn.execute("CREATE TABLE mine (x)")
    conn.close()
    with pytest.raises(LibraryError, match="another program"):
        restore(other, own)
    with Library.open(own) as library:
        back_up(library, tmp_path / "newer")
    conn = connect(tmp_path / "newer" / DATABASE)
    conn.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    conn.close()
    with pytest.raises(LibraryError, match="newer fovea"):
        restore(tmp_path / "newer", own)


def test_nothing_is_restored_while_the_library_is_in_use(own, tmp_path):
    with Library.open(own) as library:
        back_up(library, tmp_path / "backup")
        before = rows(own)
        with pytest.raises(LibraryBusy, match="is in use; stop the fovea"):
            restore(tmp_path / "backup", own)
    for name in ("writer", "switch"):
        name = module.CHANGE if name == "switch" else name
        with exclusive(own, name), pytest.raises(LibraryBusy):
            restore(tmp_path / "backup", own)
    assert rows(own) == before
    restore(tmp_path / "backup", own)


HOLD = """
import sys
from fovea.search.library.connection import connect
from pathlib import Path
conn = connect(Path(sys.argv[1]))
print(conn.execute("SELECT count(*) FROM files").fetchone()[0], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("damage", [False, True])
def test_nothing_is_restored_while_another_process_has_it_open(own, tmp_path, damage):
    with Library.open(own) as library:
        back_up(library, tmp_path / "backup")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(own / DATABASE)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT,
    ) as holder:  # fmt: skip
        assert holder.stdout.readline() == b"41\n"
        if damage:
            with open(own / DATABASE, "r+b") as file:
                file.write(b"x" * 16)
        with pytest.raises(LibraryBusy, match="in use"):
            restore(tmp_path / "backup", own)
        holder.stdin.close()
    restore(tmp_path / "backup", own)
    assert rows(own) == rows(tmp_path / "backup")


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_library_is_replaced_and_kept_aside(own, tmp_path, seed):
    with Library.open(own) as library:
        back_up(library, tmp_path / "backup")
    data = bytearray((own / DATABASE).read_bytes())
    for _ in range(200):
        flip(data, random.Random(seed))
    data[: 100 if seed % 2 else 0] = bytes(100 if seed % 2 else 0)
    (own / DATABASE).write_bytes(data)
    report = restore(tmp_path / "backup", own)
    assert (report.aside / DATABASE).stat().st_size == len(data)
    assert rows(own) == rows(tmp_path / "backup")


def test_a_stale_wal_is_never_taken_for_that_of_the_backup(own, tmp_path):
    """A killed process leaves a WAL behind; the database under it is damaged afterwards."""
    with Library.open(own) as library:
        back_up(library, tmp_path / "backup")
    code = (
        "import os, sys; from fovea.search.library.library import Library\n"
        "library = Library.open(sys.argv[1]); library.add_root(b'/left/behind'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(own)], cwd=CHECKOUT, check=True)
    assert (own / f"{DATABASE}-wal").stat().st_size
    with open(own / DATABASE, "r+b") as file:
        file.write(b"x" * 100)
    report = restore(tmp_path / "backup", own)
    assert rows(own) == rows(tmp_path / "backup")
    assert (report.aside / f"{DATABASE}-wal").exists() or (report.aside / DATABASE).exists()


@pytest.mark.parametrize("step", ["replace", "link"])
def test_a_restore_that_fails_half_way_leaves_the_library(own, tmp_path, monkeypatch, step):
    with Library.open(own) as library:
        back_up(library, tmp_path / "backup")
        library.note([library.rows("SELECT path FROM files")[0][0]], "newer")
    before = rows(own)
    monkeypatch.setattr(
        module.os,
        "replace",
        lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    if step == "link":
        monkeypatch.setattr(
            module.os, "link", lambda *names: (_ for _ in ()).throw(OSError(1, "no links"))
        )
    with pytest.raises(LibraryError, match="No space left"):
        restore(tmp_path / "backup", own)
    monkeypatch.undo()
    assert rows(own) == before


def test_an_older_backup_is_brought_up_to_date(own, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        patched.setattr(schema, "VERSION", 2)
        Library.open(tmp_path / "old", create=True).close()
    restore(tmp_path / "old", own)
    with Library.open(own) as library:
        assert schema.version_of(library.conn) == schema.VERSION
        assert library.counts().images == 0


def test_indexing_goes_on_after_a_restore(own, original):
    with Library.open(own) as library:
        scan = Scanner(library)
        assert scan(original / "photos").embedded == 0


def test_commands_back_up_and_restore(own, tmp_path):
    done = run("library", "backup", tmp_path / "backup", "--library", own)
    assert done.code == 0 and done.out.startswith("backed up 40 pictures in 41 files, ")
    again = run("library", "backup", tmp_path / "backup", "--library", own)
    assert again.code == 1 and "not empty" in again.err
    with Library.open(own) as library:
        library.remove_root(library.roots()[0].id)
    done = run("library", "restore", tmp_path / "backup", "--library", own)
    assert done.code == 0 and done.out == "restored 40 pictures in 41 files\n"
    assert "the library before is in" in done.err
    assert run("status", "--library", own, "--json").json["images"] == 40
    done = run("library", "restore", tmp_path / "backup", "--library", own, "--json")
    assert done.json["images"] == 40 and done.json["aside"].startswith(str(own))
    done = run("library", "backup", tmp_path / "c", "--library", own, "--json")
    assert done.json["bytes"] == (tmp_path / "c" / DATABASE).stat().st_size
