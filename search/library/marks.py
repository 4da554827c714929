"""Favourites and hidden pictures: marks on contents, which copies share and which outlast files.

A mark belongs to a SHA-256, not to a row of ``images``: a picture that is moved, indexed again or
away for a year keeps it. Functions take a library; those that change it raise ``LibraryReadOnly``
where it cannot be changed.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from .library import Library

__all__ = [
    "MARKS",
    "TABLES",
    "Mark",
    "contents",
    "hidden_count",
    "hidden_images",
    "mark",
    "marked",
    "marks_of",
    "set_marks",
]

Mark = Literal["favourite", "hidden"]

MARKS: tuple[Mark, Mark] = ("favourite", "hidden")
TABLES: dict[str, str] = {"favourite": "favourites", "hidden": "hidden"}  # ids of marked images
ASKED = 500  # contents in one statement

_known: WeakKeyDictionary[Library, tuple[tuple[int, int], np.ndarray, int]] = WeakKeyDictionary()


def contents(library: Library, image_ids: Iterable[int]) -> dict[int, bytes]:
    """Return the SHA-256 of each image's content, by id; ids that are not there are left out."""
    ids = [int(image_id) for image_id in image_ids]
    sql = "SELECT id, hash FROM images WHERE id IN (SELECT value FROM json_each(?))"
    known = dict(library.rows(sql, [json.dumps(ids)]))
    return {image_id: known[image_id] for image_id in ids if image_id in known}


def mark(library: Library, hashes: Iterable[bytes], mark: Mark, on: bool) -> list[bytes]:
    """Give contents a mark, or take it away; return those for which that was a change.

    The contents need not be in the library now.
    """
    wanted = list(dict.fromkeys(hashes))
    if not wanted:
        library.check_writable()
        return []
    with library.transaction() as conn:
        return set_marks(conn, wanted, mark, on)


def set_marks(
    conn: sqlite3.Connection, hashes: Iterable[bytes], mark: Mark, on: bool
) -> list[bytes]:
    """Do as ``mark`` does, within a transaction."""
    wanted = list(dict.fromkeys(hashes))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    having = _having(conn, wanted, mark)
    changed = [content for content in wanted if (content in having) != on]
    if changed:  # a statement that changes nothing could count as a change
        ordered = sorted(changed)  # as in SQL indexes, of which few pages are needed then
        if on:
            sql = "INSERT INTO marks (hash, mark, marked_at) VALUES (?, ?, ?)"
            conn.executemany(sql, ((content, mark, now) for content in ordered))
        else:
            sql = "DELETE FROM marks WHERE hash = ? AND mark = ?"
            conn.executemany(sql, ((content, mark) for content in ordered))
    return changed


def _having(conn: sqlite3.Connection, hashes: Sequence[bytes], mark: Mark) -> set[bytes]:
    """Return which of the contents have a mark."""
    found: set[bytes] = set()
    for first in range(0, len(hashes), ASKED):
        part = hashes[first : first + ASKED]
        sql = f"SELECT hash FROM marks WHERE mark = ? AND hash IN ({','.join('?' * len(part))})"
        found.update(content for (content,) in conn.execute(sql, [mark, *part]))
    return found


def marked(library: Library, mark: Mark) -> list[tuple[bytes, str]]:
    """Return all contents with a mark, and when each got it (ISO 8601, UTC), oldest first."""
    return library.rows("SELECT hash, marked_at FROM marks WHERE mark = ? ORDER BY id", [mark])


def marks_of(library: Library, image_ids: Collection[int]) -> dict[int, dict[str, bool]]:
    """Return which marks each image has, by id; also of ids that are not there, which have none."""
    ids = json.dumps([int(image_id) for image_id in image_ids])
    sql = "SELECT image_id FROM {} WHERE image_id IN (SELECT value FROM json_each(?))"
    having = {
        mark: {image_id for (image_id,) in library.rows(sql.format(table), [ids])}
        for mark, table in TABLES.items()
    }
    return {key: {mark: key in having[mark] for mark in MARKS} for key in image_ids}


def hidden_images(library: Library) -> np.ndarray:
    """Return the ids of all hidden images, int64 (n,), ascending; read again once they may change.

    Do not write to the result.
    """
    return _hidden(library)[0]


def hidden_count(library: Library) -> int:
    """Return how many searchable images are hidden: those of folders that are there."""
    return _hidden(library)[1]


def _hidden(library: Library) -> tuple[np.ndarray, int]:
    [(version,)] = library.rows("PRAGMA data_version")  # changes with the commits of others
    state = (version, library.conn.total_changes)
    known = _known.get(library)
    if known is None or known[0] != state:
        rows = library.rows("SELECT image_id FROM hidden ORDER BY image_id")
        ids = np.fromiter((image_id for (image_id,) in rows), dtype=np.int64, count=len(rows))
        # A CROSS JOIN begins with the table that has fewer rows.
        [(count,)] = library.rows("SELECT count(*) FROM hidden CROSS JOIN shown USING (image_id)")
        known = _known[library] = (state, ids, int(count))
    return known[1:]
