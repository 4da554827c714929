"""What people have added to a library, as JSON: favourites, hidden pictures, tags, searches.

The document names pictures by the SHA-256 of their content, so that it fits any library that has
them, now or later. ``path`` in it is for people and other programs; it is not read.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fovea.search.errors import LibraryError, QueryError
from fovea.search.library.library import Library
from fovea.search.library.marks import MARKS, Mark, set_marks
from fovea.search.library.paths import path_fields
from fovea.search.query.saved import kept_likes, restore_searches, saved_searches
from fovea.search.tags.stored import Lesson, checked_name, lessons, restore

__all__ = ["VERSION", "ImportReport", "exported", "imported"]

VERSION = 1  # of the document
MEMBERS: dict[Mark, str] = {"favourite": "favourites", "hidden": "hidden"}
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What a document added to a library; ``absent`` are marked pictures it does not have now."""

    favourites: int
    hidden: int
    searches: int
    absent: int
    tags: int = 0  # pictures of which it was said whether they have a tag


def exported(library: Library) -> dict[str, Any]:
    """Return favourites, hidden pictures, tags and saved searches as members of a document."""
    with library.reading():
        pictures = {MEMBERS[kind]: list(_pictures(library, kind)) for kind in MARKS}
        likes = kept_likes(library)
        stored = dict(library.rows("SELECT id, query FROM searches"))
        searches = [
            {"name": one.name, "query": stored[one.id], "pictures": likes[one.id]}
            for one in saved_searches(library)
        ]
        taught = [_tag(lesson) for lesson in lessons(library)]
    return {"fovea": VERSION, **pictures, "searches": searches, "tags": taught}


def imported(library: Library, document: object) -> ImportReport:
    """Add what a document has to the library; what is there already stays.

    Raise ``LibraryError`` for anything but a document that ``exported`` could have written;
    nothing is added then, nor where there would be too many tags or searches.
    """
    hashes, searches, taught = _read(document)
    with library.transaction() as conn:
        try:
            added = restore_searches(library, searches)
        except QueryError as exc:
            raise LibraryError(f"a search in this document cannot be read: {exc}") from exc
        numbers = {kind: len(set_marks(conn, hashes[kind], kind, True)) for kind in MARKS}
        said = sum(len(restore(conn, lesson)) for lesson in taught)
    wanted = {content for contents in hashes.values() for content in contents}
    wanted |= {content for lesson in taught for content in (*lesson.yes, *lesson.no)}
    absent = len(wanted) - len(library.image_by_hash(wanted))
    return ImportReport(numbers["favourite"], numbers["hidden"], added, absent, said)


def _pictures(library: Library, kind: Mark) -> Iterator[dict[str, str]]:
    rows = library.rows(
        "SELECT hash, (SELECT min(path) FROM files JOIN images ON images.id = image_id "
        "WHERE images.hash = marks.hash AND state = 'indexed') FROM marks WHERE mark = ? "
        "ORDER BY id",
        [kind],
    )
    for content, path in rows:
        place = {} if path is None else path_fields(os.fsdecode(path))
        yield {"sha256": content.hex(), **place}


def _tag(lesson: Lesson) -> dict[str, Any]:
    said = {"yes": lesson.yes, "no": lesson.no, "answers": lesson.answers}
    return {"name": lesson.name, **{key: [one.hex() for one in said[key]] for key in said}}


Searches = list[tuple[str, str, Mapping[str, str]]]


def _read(document: object) -> tuple[dict[Mark, list[bytes]], Searches, list[Lesson]]:
    """Check a document and return the contents of each mark, the searches, and what was taught."""
    if not isinstance(document, dict) or "fovea" not in document:
        raise LibraryError("this is not a document of fovea's marks; name one that it exported")
    if document["fovea"] != VERSION or document["fovea"] is True:
        raise LibraryError(
            f"this document has version {str(document['fovea'])[:20]!r}; this fovea reads "
            f"{VERSION}; upgrade fovea"
        )
    hashes = {
        kind: [_content(entry, name) for entry in _entries(document, name)]
        for kind, name in MEMBERS.items()
    }
    searches = [_search(entry) for entry in _entries(document, "searches")]
    return hashes, searches, [_lesson(entry) for entry in _entries(document, "tags")]


def _entries(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = document.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LibraryError(f"{name} in this document is not a list of objects")
    return entries


def _content(entry: dict[str, Any], name: str) -> bytes:
    content = entry.get("sha256")
    if not isinstance(content, str) or not SHA256.fullmatch(content):
        raise LibraryError(f"{name} has {str(content)[:70]!r}, not a SHA-256 (64 hex digits)")
    return bytes.fromhex(content)


def _search(entry: dict[str, Any]) -> tuple[str, str, Mapping[str, str]]:
    name, query, likes = entry.get("name"), entry.get("query"), entry.get("pictures", {})
    if not isinstance(name, str) or not isinstance(query, str) or not _is_text(name + query):
        raise LibraryError("a search in this document lacks its name or its query")
    is_map = isinstance(likes, dict) and all(
        re.fullmatch("[0-9]{1,19}", key) and isinstance(value, str) and SHA256.fullmatch(value)
        for key, value in likes.items()
    )
    if not is_map:
        raise LibraryError(f"the pictures of the search {name!r} are not SHA-256s by number")
    return name, query, likes


def _lesson(entry: dict[str, Any]) -> Lesson:
    name, said = entry.get("name"), [entry.get(key, []) for key in ("yes", "no", "answers")]
    if not isinstance(name, str) or not _is_text(name):
        raise LibraryError("a tag in this document lacks its name")
    checked_name(name)
    if not all(isinstance(some, list) for some in said):
        raise LibraryError(f"the examples of the tag {name[:60]!r} are not lists of SHA-256s")
    return Lesson(name, *([_content({"sha256": one}, "tags") for one in some] for some in said))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return True
