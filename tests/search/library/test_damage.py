"""Which errors are put down to a damaged database, and what finding out costs."""

import contextlib
import os
import sqlite3

import pytest

import fovea
from fovea.search.errors import LibraryDamaged
from fovea.search.library import access, checks, damage
from fovea.search.library.library import DATABASE, Library


@pytest.fixture
def checks_run(monkeypatch):
    """The parts of each check of the whole database, as they are run."""
    run, real = [], damage._first_problem

    def first_problem(path, parts):
        run.append(parts)
        return real(path, parts)

    monkeypatch.setattr(damage, "_first_problem", first_problem)
    monkeypatch.setattr(damage, "_checked", {})
    return run


@pytest.mark.parametrize(
    "sql", ["SELECT nonsense FROM files", "SELEC 1", "SELECT * FROM nothing", "SELECT nothing()"]
)
def test_a_mistake_in_sql_is_no_matter_of_the_library(library, sql):
    with pytest.raises(sqlite3.OperationalError):
        library.rows(sql)


def test_sql_that_does_not_fit_damaged_tables_is_damage(library, checks_run):
    library.conn.execute("DROP TABLE tombstones")
    with pytest.raises(LibraryDamaged, match="the definition of the .*tombstones.* has changed"):
        library.rows("SELECT * FROM tombstones")


def refused(library):
    with pytest.raises(sqlite3.IntegrityError), library.transaction() as conn:
        conn.execute("INSERT INTO roots (path, added_at) VALUES (NULL, NULL)")


def test_a_run_that_is_refused_many_rows_checks_the_library_once(library, checks_run, monkeypatch):
    for number in range(5):
        library.add_root(f"/{number}")  # so the file is another one each time
        refused(library)
    assert checks_run == [damage.FULL]
    monkeypatch.setattr(damage, "KEPT_S", -1.0)
    refused(library)
    assert checks_run == [damage.FULL, damage.QUICK]


def test_after_a_quick_check_another_error_has_a_full_one(library, checks_run, monkeypatch):
    refused(library)
    path = library.folder / DATABASE
    with monkeypatch.context() as later:
        later.setattr(damage, "KEPT_S", -1.0)
        refused(library)
    assert damage.damage_of(path) is None and damage.damage_of(path) is None
    assert checks_run == [damage.FULL, damage.QUICK, damage.FULL]


def test_damage_is_found_between_refusals(library, checks_run, monkeypatch):
    refused(library)
    library.conn.execute("DROP TABLE tombstones")
    monkeypatch.setattr(damage, "KEPT_S", -1.0)
    with pytest.raises(LibraryDamaged), library.transaction() as conn:
        conn.execute("INSERT INTO roots (path, added_at) VALUES (NULL, NULL)")


def test_a_callers_mistake_checks_nothing(tmp_path, checks_run):
    with fovea.Library.open(tmp_path / "library", create=True) as library:
        with pytest.raises(TypeError, match="ignore is a list"):
            library.index(ignore="*.png")
        with pytest.raises(TypeError):
            library.index(nonsense=1)
        with pytest.raises(TypeError):
            library.index(7)
    assert checks_run == []


def test_an_empty_database_that_can_only_be_read_is_damaged(tmp_path, monkeypatch):
    (tmp_path / DATABASE).write_bytes(b"")
    monkeypatch.setattr(access.os, "access", lambda path, mode: False)
    with pytest.raises(LibraryDamaged, match="is empty; go back to a backup with fovea library"):
        Library.open(tmp_path)


@pytest.fixture
def everyday_run(monkeypatch):
    """How often the everyday checks were made."""
    run, real = [], damage.checks.everyday

    def everyday(conn):
        run.append(conn)
        return real(conn)

    monkeypatch.setattr(damage.checks, "everyday", everyday)
    monkeypatch.setattr(damage, "SETTLED_S", -1.0)
    return run


def opened_anew(library):
    """Check the library as each process does that searches it."""
    with Library.open(library.folder) as opened:
        opened.refuse_damaged_once()


def test_a_library_is_checked_once_for_each_state_of_its_files(colour_library, everyday_run):
    for checks_made in (1, 1):
        opened_anew(colour_library)
        assert len(everyday_run) == checks_made
    colour_library.add_root("/more")
    for checks_made in (2, 2):
        opened_anew(colour_library)
        assert len(everyday_run) == checks_made


def test_damage_is_noticed_although_the_library_was_sound(colour_library, everyday_run):
    opened_anew(colour_library)
    folder = colour_library.folder
    colour_library.close()
    with sqlite3.connect(folder / DATABASE) as conn:
        conn.execute("PRAGMA writable_schema = ON")
        conn.execute("DELETE FROM sqlite_master WHERE name = 'files_root_id'")
    conn.close()
    status = (folder / DATABASE).stat()
    os.utime(folder / DATABASE, ns=(status.st_atime_ns, status.st_mtime_ns - 10**12))
    for _ in range(2):  # and it is not remembered as sound
        with Library.open(folder) as opened, pytest.raises(LibraryDamaged):
            opened.refuse_damaged_once()
    assert len(everyday_run) == 3


def test_what_a_connection_read_before_a_change_is_not_remembered(colour_library, monkeypatch):
    """SQLite notices no change of a database that it opened as immutable."""
    folder = colour_library.folder
    colour_library.close()
    monkeypatch.setattr(access.os, "access", lambda path, mode: False)
    with Library.open(folder) as reading:
        assert list(checks.structure(reading.conn)) == []
        monkeypatch.undo()
        with contextlib.closing(sqlite3.connect(folder / DATABASE)) as conn, conn:
            conn.execute("PRAGMA writable_schema = ON")
            conn.execute("DELETE FROM sqlite_master WHERE name = 'files_root_id'")
        monkeypatch.setattr(damage, "SETTLED_S", -1.0)
        reading.refuse_damaged_once()
    with Library.open(folder) as opened, pytest.raises(LibraryDamaged):
        opened.refuse_damaged_once()


@pytest.mark.parametrize("content", [b"", b"[", b"null", b"[[1, 2, 3, 4]]", b"\xff", b"[" * 10**5])
def test_what_was_remembered_is_not_believed_if_it_is_odd(colour_library, everyday_run, content):
    opened_anew(colour_library)
    (colour_library.folder / damage.CHECKED).write_bytes(content)
    opened_anew(colour_library)
    assert len(everyday_run) == 2


def test_a_file_that_was_just_written_is_not_remembered(colour_library, everyday_run, monkeypatch):
    """It may be written again at what its clock calls the same time."""
    monkeypatch.setattr(damage, "SETTLED_S", 60.0)
    opened_anew(colour_library)
    assert not (colour_library.folder / damage.CHECKED).exists()
    opened_anew(colour_library)
    assert len(everyday_run) == 2


def test_what_cannot_be_remembered_is_checked_each_time(colour_library, everyday_run, monkeypatch):
    (colour_library.folder / damage.CHECKED).mkdir()
    for _ in range(2):
        opened_anew(colour_library)
    assert len(everyday_run) == 2
    assert not list(colour_library.folder.glob("*.part"))


@pytest.mark.parametrize("ask", ["search", "similar"])
@pytest.mark.parametrize(("k", "error"), [(-1, ValueError), ("5", TypeError), (2.5, TypeError)])
def test_a_number_of_hits_is_looked_at_before_anything_else(
    colour_library, checks_run, everyday_run, ask, k, error
):
    with fovea.Library.open(colour_library.folder) as library, pytest.raises(error, match="k is"):
        getattr(library, ask)(1 if ask == "similar" else "red", k=k)
    assert not checks_run and not everyday_run


def test_a_query_that_is_no_text_is_refused_without_a_check(colour_library, checks_run):
    with fovea.Library.open(colour_library.folder) as library:
        with pytest.raises(TypeError, match="a query is a text, not int"):
            library.search(5)
    assert not checks_run
