"""Saved searches: queries with names, in an order of people's own.

A query is kept as it was typed. A picture of the library in it (``like:12``) is also kept by its
content, so that the search still means that picture when its number has changed.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fovea.search.errors import LibraryError
from fovea.search.library.facts.folded import fold
from fovea.search.library.library import Library
from fovea.search.library.marks import contents

from .language import LARGEST_ID, parse

__all__ = [
    "LONGEST_NAME",
    "LONGEST_QUERY",
    "MOST",
    "SavedSearch",
    "REFUSALS",
    "SearchRefused",
    "delete_search",
    "edit_search",
    "restore_searches",
    "save_search",
    "saved_searches",
]

LONGEST_NAME = 100  # characters
LONGEST_QUERY = 2000
MOST = 1000  # searches of one library
NO_IMAGE = LARGEST_ID  # no image ever has it

# Why a search is not saved, by code; the page translates them.
REFUSALS = {
    "name": "a search needs a name of 1 to {most} characters on one line",
    "query": "a saved search has at most {most:,} characters; this one has {found:,}",
    "taken": "there is a search named {name!r} already; choose another name",
    "full": "there are {most:,} saved searches, which is the most; delete one first",
    "unknown": "there is no saved search {name!r}",
    "utf8": "a saved search cannot have bytes that are not UTF-8",
}


class SearchRefused(LibraryError):
    """A search that cannot be saved, or is not there; ``code`` and ``params`` say why."""

    def __init__(self, reason: str, **params: str | int) -> None:
        super().__init__(REFUSALS[reason].format_map(params))
        self.code, self.params = f"search.{reason}", params


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A query under a name."""

    id: int
    name: str
    query: str  # as typed; numbers of pictures are those they have now
    saved_at: str  # ISO 8601, UTC


def saved_searches(library: Library) -> list[SavedSearch]:
    """Return all saved searches, in their order."""
    rows = library.rows(
        "SELECT id, name, query, saved_at, likes FROM searches ORDER BY place, id LIMIT ?", [MOST]
    )
    found = [SavedSearch(*row[:4]) for row in rows]
    kept = [_likes(row[4]) for row in rows]
    numbers = _numbers(library, kept)
    return [
        replace(search, query=_renumbered(search.query, likes, numbers)) if likes else search
        for search, likes in zip(found, kept, strict=True)
    ]


def save_search(
    library: Library, name: str, query: str, *, place: int | None = None
) -> SavedSearch:
    """Save a query under a name, at the end of the list, or before the one at ``place``, from 0.

    Raise ``QueryError`` for a query that cannot be read, ``SearchRefused`` for a name that is
    empty, too long or taken (names that differ in case or accents alone are the same), and where
    there are ``MOST`` searches.
    """
    name, likes = _checked(library, name, query)
    with library.transaction() as conn:
        if len(_order(library)) >= MOST:
            raise SearchRefused("full", most=MOST)
        _refuse_taken(library, name)
        made = conn.execute(
            "INSERT INTO searches (name, folded, query, likes, place, saved_at) "
            "VALUES (?, ?, ?, ?, (SELECT coalesce(max(place), 0) + 1 FROM searches), ?) "
            "RETURNING id",
            (name, fold(name), query, json.dumps(likes), _now()),
        ).fetchall()
        [(search_id,)] = made
        if place is not None:
            _move(library, search_id, place)
    return _by_id(library, search_id)


def edit_search(
    library: Library,
    search_id: int,
    *,
    name: str | None = None,
    query: str | None = None,
    place: int | None = None,
) -> SavedSearch:
    """Change a search's name, its query or its place in the list, from 0; raise as for saving."""
    before = _by_id(library, search_id)
    [(stored, text)] = library.rows("SELECT query, likes FROM searches WHERE id = ?", [search_id])
    new_name = before.name if name is None else name
    new_query = before.query if query is None else query
    new_name, likes = _checked(library, new_name, new_query)
    if new_query == before.query:  # its pictures may be away, and are not to be forgotten
        new_query, likes = stored, _likes(text)
    with library.transaction() as conn:
        _refuse_taken(library, new_name, but=search_id)
        changed = conn.execute(
            "UPDATE searches SET name = ?, folded = ?, query = ?, likes = ? WHERE id = ?",
            (new_name, fold(new_name), new_query, json.dumps(likes), search_id),
        )
        if not changed.rowcount:
            raise SearchRefused("unknown", name=str(search_id))
        if place is not None:
            _move(library, search_id, place)
    return _by_id(library, search_id)


def delete_search(library: Library, search_id: int) -> None:
    """Delete a search. Raise ``SearchRefused`` if it is not there."""
    with library.transaction() as conn:
        if not conn.execute("DELETE FROM searches WHERE id = ?", [search_id]).rowcount:
            raise SearchRefused("unknown", name=str(search_id))


def restore_searches(library: Library, searches: list[tuple[str, str, Mapping[str, str]]]) -> int:
    """Add searches, each a name, a query and the contents of its pictures; return how many.

    Inside a transaction. Those that are there already, name and query, are left as they are; one
    whose name is taken by another query gets a number. Raise as for saving.
    """
    added = 0
    there = {fold(search.name): search.query for search in saved_searches(library)}
    for name, query, likes in searches:
        name, own = _checked(library, name, query)
        likes = {key: likes[key] for key in map(str, _liked(query)) if key in likes}
        numbers = _numbers(library, [likes])
        if there.get(fold(name)) in (query, _renumbered(query, likes, numbers)):
            continue
        if len(there) >= MOST:
            raise SearchRefused("full", most=MOST)
        number, free = 1, name
        while fold(free) in there:
            number += 1
            free = f"{name[: LONGEST_NAME - 8]} ({number})"
        library.conn.execute(
            "INSERT INTO searches (name, folded, query, likes, place, saved_at) "
            "VALUES (?, ?, ?, ?, (SELECT coalesce(max(place), 0) + 1 FROM searches), ?)",
            (free, fold(free), query, json.dumps(likes or own), _now()),
        )
        there[fold(free)] = query
        added += 1
    return added


def kept_likes(library: Library) -> dict[int, dict[str, str]]:
    """Return, by search, the SHA-256 of each picture that its stored query names, by number."""
    return {key: _likes(text) for key, text in library.rows("SELECT id, likes FROM searches")}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _checked(library: Library, name: str, query: str) -> tuple[str, dict[str, str]]:
    """Return a name in its written form, and the contents of the pictures in a query."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    is_text = not re.search("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", name)
    if not is_text or not 0 < len(name) <= LONGEST_NAME:
        raise SearchRefused("name", most=LONGEST_NAME)
    if len(query) > LONGEST_QUERY:
        raise SearchRefused("query", most=LONGEST_QUERY, found=len(query))
    try:
        query.encode()
    except UnicodeEncodeError as exc:
        raise SearchRefused("utf8") from exc
    known = contents(library, _liked(query))
    return name, {str(key): value.hex() for key, value in known.items()}


def _liked(query: str) -> list[int]:
    """Return the numbers of the pictures that a query names."""
    return [int(term.value) for term in parse(query).terms if term.kind == "like"]


def _refuse_taken(library: Library, name: str, but: int | None = None) -> None:
    sql = "SELECT name FROM searches WHERE folded = ? AND id IS NOT ?"
    if taken := library.rows(sql, [fold(name), but]):
        raise SearchRefused("taken", name=taken[0][0])


def _by_id(library: Library, search_id: int) -> SavedSearch:
    found = next((one for one in saved_searches(library) if one.id == search_id), None)
    if found is None:
        raise SearchRefused("unknown", name=str(search_id))
    return found


def _order(library: Library) -> list[int]:
    return [row[0] for row in library.rows("SELECT id FROM searches ORDER BY place, id")]


def _move(library: Library, search_id: int, place: int) -> None:
    """Put a search at a place among the others, inside a transaction."""
    order = [key for key in _order(library) if key != search_id]
    order.insert(place, search_id)
    library.conn.executemany(
        "UPDATE searches SET place = ? WHERE id = ?",
        [(number, key) for number, key in enumerate(order, start=1)],
    )


def _likes(text: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(text)
    return found


class _Numbers(NamedTuple):
    now: Mapping[bytes, int]  # of the images with these contents
    others: Collection[int]  # those of absent contents that other images have


def _numbers(library: Library, kept: Sequence[Mapping[str, str]]) -> _Numbers:
    hashes = {bytes.fromhex(content) for likes in kept for content in likes.values()}
    now = library.image_by_hash(hashes) if hashes else {}
    absent = {
        int(key)
        for likes in kept
        for key, content in likes.items()
        if bytes.fromhex(content) not in now
    }
    return _Numbers(now, contents(library, absent) if absent else ())


def _renumbered(query: str, likes: Mapping[str, str], known: _Numbers) -> str:
    """Write a query with the numbers that its pictures have now; as it was if those are the same.

    A picture that is not in the library keeps its number, or is ``NO_IMAGE`` where another picture
    has that, as after an import.
    """
    numbers: dict[Any, int] = {
        int(key): known.now.get(
            bytes.fromhex(content), NO_IMAGE if int(key) in known.others else int(key)
        )
        for key, content in likes.items()
    }
    if all(key == number for key, number in numbers.items()):
        return query
    read = parse(query)
    terms = [
        replace(term, value=numbers.get(term.value, term.value)) if term.kind == "like" else term
        for term in read.terms
    ]
    return str(replace(read, terms=tuple(terms)))
