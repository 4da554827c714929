"""Which analyses were made of which pictures, and which are to be made."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fovea.search.library.facts.analyses import OFF, switch_key
from fovea.search.library.library import PAGE, Library

__all__ = [
    "AnalysisCounts",
    "Done",
    "Pending",
    "analysis_counts",
    "failures",
    "is_off",
    "pending",
    "store",
    "switch",
]


@dataclass(frozen=True, slots=True)
class Pending:
    """A searchable picture to analyse, not a video, and its files that can be reached now."""

    image_id: int
    hash: bytes
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one picture: plain data that its kind stores, or why it failed."""

    image_id: int
    result: Any = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AnalysisCounts:
    """Searchable pictures, by what one kind of analysis has made of them."""

    done: int
    failed: int
    pending: int  # not analysed yet, or by another version
    is_off: bool


def is_off(library: Library, kind: str) -> bool:
    """Whether a kind of analysis is switched off."""
    key = switch_key(kind)
    return library.rows("SELECT value FROM library WHERE key = ?", [key]) == [(OFF,)]


def switch(library: Library, kind: str, on: bool) -> None:
    """Switch a kind of analysis on or off; off forgets what it has found."""
    if on != is_off(library, kind):
        return
    with library.transaction() as conn:
        conn.execute("DELETE FROM library WHERE key = ?", (switch_key(kind),))
        if not on:
            conn.execute("DELETE FROM analyses WHERE kind = ?", (kind,))
            conn.execute("INSERT INTO library VALUES (?, ?)", (switch_key(kind), OFF))


def analysis_counts(library: Library, kind: str, version: str | None) -> AnalysisCounts:
    """Count the searchable pictures; with a version of None, any counts as the current one."""
    [(shown, done, failed)] = library.rows(
        "SELECT count(*), coalesce(sum(kind NOT NULL AND reason IS NULL), 0), count(reason) "
        "FROM shown LEFT JOIN analyses ON analyses.image_id = shown.image_id AND kind = ?1 "
        "AND (?2 IS NULL OR version = ?2)",
        [kind, version],
    )
    [(videos,)] = library.rows(
        "SELECT count(*) FROM images JOIN shown ON image_id = images.id "
        "WHERE duration_ms IS NOT NULL"
    )
    shown, off = shown - videos, is_off(library, kind)
    return AnalysisCounts(done, failed, 0 if off else shown - done - failed, off)


def failures(library: Library) -> dict[bytes, str]:
    """Return the indexed files at whose picture an analysis failed, with its kind and reason."""
    rows = library.rows(
        "SELECT path, kind, analyses.reason FROM analyses JOIN files USING (image_id) "
        "WHERE analyses.reason NOT NULL AND state = 'indexed' ORDER BY kind DESC"
    )
    return {path: f"{kind} not found: {reason}" for path, kind, reason in rows}


def pending(library: Library, kind: str, version: str) -> Iterator[Pending]:
    """Yield the searchable pictures to analyse, oldest first; those of offline folders wait.

    What is stored meanwhile is noticed a page at a time.
    """
    last = 0
    while True:
        rows = library.rows(
            "SELECT shown.image_id, hash FROM shown JOIN images ON images.id = shown.image_id "
            "WHERE shown.image_id > ? AND duration_ms IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM analyses "
            "WHERE analyses.image_id = shown.image_id AND kind = ? AND version = ?) "
            "ORDER BY shown.image_id LIMIT ?",
            [last, kind, version, PAGE],
        )
        if not rows:
            return
        last = rows[-1][0]
        paths: dict[int, list[bytes]] = {}
        for image_id, path in library.rows(
            "SELECT image_id, path FROM files WHERE state = 'indexed' "
            "AND image_id IN (SELECT value FROM json_each(?)) "
            "AND root_id NOT IN (SELECT value FROM json_each(?)) ORDER BY id",
            [json.dumps([row[0] for row in rows]), json.dumps(library.offline())],
        ):
            paths.setdefault(image_id, []).append(path)
        for image_id, content in rows:
            if image_id in paths:
                yield Pending(image_id, content, tuple(paths[image_id]))


def store(
    library: Library,
    kind: str,
    version: str,
    done: Iterable[Done],
    write: Callable[[sqlite3.Connection, int, Any], None],
) -> None:
    """Write what was found in some pictures, in one transaction; ``write`` stores one result.

    Pictures that are gone since are left out; so is everything where the kind is off.
    """
    with library.transaction() as conn:
        key = switch_key(kind)
        if conn.execute("SELECT value FROM library WHERE key = ?", (key,)).fetchall() == [(OFF,)]:
            return
        for one in done:
            conn.execute(
                "DELETE FROM analyses WHERE image_id = ? AND kind = ?", (one.image_id, kind)
            )
            is_there = conn.execute(
                "INSERT INTO analyses SELECT id, ?2, ?3, ?4 FROM images WHERE id = ?1",
                (one.image_id, kind, version, one.reason),
            ).rowcount
            if is_there and one.reason is None:
                write(conn, one.image_id, one.result)
