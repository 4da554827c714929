"""Which errors are put down to a damaged database, and what finding out costs."""

import sqlite3

import pytest

import fovea
from fovea.search.errors import LibraryDamaged
from fovea.search.library import access, damage
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
