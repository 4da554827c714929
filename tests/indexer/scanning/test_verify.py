"""Verify accounts for every file, and says where the library contradicts itself."""

import contextlib
import os
import re
import sqlite3
from collections import Counter

import pytest

from fovea.indexer.scanning.verify import FileAccount, verify
from fovea.search.library import checks
from fovea.search.library.facts.folded import register
from fovea.search.library.files import HELD_REASON
from fovea.search.library.library import DATABASE
from fovea.search.library.rows import FileWrite, WriteBatch


def test_an_empty_library_is_in_order(library):
    report = verify(library)
    assert (report.ok, report.files, report.problems) == (True, [], [])


def test_every_file_is_accounted_for(colour_library, photos):
    library = colour_library
    [root] = library.roots()
    red, lime, blue, odd = (
        os.fsencode(photos / name) for name in ("red.png", "lime.png", "blue.png", "x")
    )
    library.write_batch(
        WriteBatch(files=[FileWrite(odd + b"\xff.jpg", root.id, 1, 1, None, "failed", "broken")])
    )
    library.mark_missing([red], "deleted")
    library.note([blue], HELD_REASON)
    report = verify(library)
    assert report.ok and report.problems == []
    states = {file.path: file for file in report.files}
    assert len(states) == 9
    assert states[os.fsdecode(red)] == FileAccount(os.fsdecode(red), "missing", "deleted")
    assert states[os.fsdecode(blue)] == FileAccount(os.fsdecode(blue), "missing", HELD_REASON)
    assert states[os.fsdecode(lime)] == FileAccount(os.fsdecode(lime), "indexed", None)
    assert states[os.fsdecode(odd + b"\xff.jpg")].state == "failed"
    assert library.counts().files == Counter(file.state for file in report.files)
    library.set_root_state(root.id, "offline")
    assert library.counts().files == Counter(file.state for file in verify(library).files)
    assert {file.state for file in verify(library).files} == {"offline", "failed", "missing"}


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM embeddings WHERE id = 1", "1 indexed images that no model has embedded"),
        ("UPDATE files SET image_id = NULL WHERE id = 1", "1 indexed files without an image"),
        ("DELETE FROM files WHERE id = 1", "1 images without a file"),
        ("INSERT INTO embeddings VALUES (99, 98, 1, x'000000000000')", "1 embeddings without an"),
        ("INSERT INTO models VALUES (2, 'm', 'i', 9, 's'); INSERT INTO embeddings VALUES "
         "(99, 1, 2, x'0000')", "1 embeddings of the wrong length"),
        ("UPDATE files SET root_id = 77 WHERE id = 1", "1 files of no root"),
        ("DELETE FROM folded WHERE file_id = 2", "1 files whose names cannot be compared"),
        ("INSERT INTO folded VALUES (99, 'a', '/')", "1 compared names of no file"),
        ("UPDATE folded SET name = 'other' WHERE file_id = 2", "1 names are not compared as"),
        ("UPDATE folded SET folder = '/x/' WHERE file_id = 2", "1 names are not compared as"),
        ("UPDATE folded SET name = CAST(x'61ff' AS TEXT) WHERE file_id = 2", "a text of folded"),
        ("UPDATE folded SET name = x'61' WHERE file_id = 2", "1 rows of folded have impossible"),
        ("UPDATE files SET named_at = x'ff' WHERE id = 1", "1 rows of files have impossible"),
        ("UPDATE shown SET date_source = x'ff'", "8 rows of shown have impossible"),
    ],
)  # fmt: skip
def test_contradictions_are_found(colour_library, sql, problem):
    colour_library.conn.execute("PRAGMA foreign_keys = OFF")
    colour_library.conn.executescript(sql)
    report = verify(colour_library)
    assert not report.ok
    assert any(found.startswith(problem) for found in report.problems), report.problems


def test_damaged_pictures_are_counted_and_named(colour_library, photos):
    colour_library.conn.execute(
        "UPDATE images SET damaged = 'the lower 40 % is missing' WHERE id = 1"
    )
    colour_library.conn.commit()
    report = verify(colour_library)
    assert report.ok and report.damaged == 1
    [named] = [file.reason for file in report.files if file.reason]
    assert named == "damaged: the lower 40 % is missing"


def test_a_lost_name_is_noticed_before_every_search(colour_library):
    assert [*checks.everyday(colour_library.conn)] == []
    colour_library.conn.execute("DELETE FROM folded WHERE file_id = 2")
    assert next(checks.everyday(colour_library.conn)).endswith("can be compared")


@pytest.mark.parametrize(
    ("index", "sql"),
    [
        ("embeddings_model_id", "DELETE FROM embeddings WHERE id = 2"),
        ("files_image_id", "DELETE FROM files WHERE id = 2"),
        ("files_root_id", "DELETE FROM files WHERE id = 2"),
        ("shown_date", "DELETE FROM shown WHERE image_id = 2"),
    ],
)
def test_an_sql_index_of_another_length_is_noticed_without_sqlites_own_check(
    colour_library, index, sql
):
    path = colour_library.folder / DATABASE
    [row] = colour_library.rows("SELECT * FROM sqlite_master WHERE name = ?", (index,))
    colour_library.close()
    for statement, values in (
        ("DELETE FROM sqlite_master WHERE name = ?", (index,)),
        (sql, ()),  # of which an SQL index that SQLite does not know learns nothing
        ("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row),
    ):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("PRAGMA writable_schema = ON")
            register(conn)
            conn.execute(statement, values)
    told = f"{sql.split()[2]} has . rows by one way and . by another"
    with contextlib.closing(sqlite3.connect(path)) as conn:
        assert any(re.fullmatch(told, problem) for problem in checks.counts(conn))


def test_nothing_is_written(colour_library):
    before = wal_of(colour_library)
    assert verify(colour_library).ok
    assert wal_of(colour_library) == before
    assert not colour_library.conn.in_transaction


def wal_of(library):
    return (library.folder / "library.db-wal").read_bytes()


def test_a_damaged_index_of_names_is_found(colour_library):
    colour_library.conn.execute("DELETE FROM names_data WHERE id > 10")
    assert "the index of the files' names is damaged" in verify(colour_library).problems
