"""Find images by the names of their files and folders."""

import re

import numpy as np

from fovea.search.library.facts.folded import words as words_of
from fovea.search.library.library import Library

__all__ = ["BEGINNING", "BEGUN", "UNSPACED", "named_images"]

LOOKED_AT = 20_000  # files whose names contain the words, the newest first
PAGE = 500  # files read at a time
CANDIDATES = 4  # times the limit: so many images are compared with each other
BEGINNING = 3  # characters from which a word may be the beginning of another one
BEGUN = 12  # images up to which such names are added

Ids = np.ndarray

# Scripts without spaces between words, where a run of characters is one token to SQLite: Thai, Lao,
# Burmese and Khmer, kana, Chinese characters, and Hangul, whose words carry their endings.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]"
)


def named_images(
    library: Library,
    words: str,
    limit: int,
    allowed: Ids | None = None,
    exclude: Ids | None = None,
) -> list[int]:
    """Return at most ``limit`` searchable images with a file whose name and folders have all words.

    Images whose file's own name has them all come first, shortest names first; then those found by
    their folders, newest files first. If these are few, some follow whose file's own name has
    a word that begins with the last one, which may be unfinished. ``allowed`` limits them and
    ``exclude`` keeps some out, both ascending ids.
    """
    among = allowed, exclude
    tokens = words_of(words)
    if not tokens:
        return []
    most = CANDIDATES * limit
    found = _by_length(_candidates(library, _condition(tokens, ("name",)), most, among))
    if len(found) < limit:
        found += _candidates(library, _condition(tokens, ("name", "folder")), most, among)
    found = list(dict.fromkeys(found))[:limit]
    *others, last = tokens
    if len(found) < min(limit, BEGUN) and len(last) >= BEGINNING and not UNSPACED.search(last):
        begun = _condition(others, ("name", "folder"), begun=last)
        found += _by_length(_candidates(library, begun, CANDIDATES * BEGUN, among))
        found = list(dict.fromkeys(found))[: min(limit, BEGUN)]
    return found


def _by_length(lengths: dict[int, int]) -> list[int]:
    return [image_id for image_id, _ in sorted(lengths.items(), key=lambda entry: entry[1])]


def _candidates(
    library: Library,
    condition: tuple[str, list[str]],
    most: int,
    among: tuple[Ids | None, Ids | None],
) -> dict[int, int]:
    """Find images with files that meet a condition, and the length of their shortest name."""
    where, values = condition
    sql = (
        "SELECT image_id, length(name) FROM names CROSS JOIN files ON files.id = names.rowid "
        f"WHERE state = 'indexed' AND {where} ORDER BY names.rowid DESC LIMIT ?"
    )
    found: dict[int, int] = {}
    with library.reading() as conn:
        rows = conn.execute(sql, [*values, LOOKED_AT])
        while len(found) < most and (some := rows.fetchmany(PAGE)):
            for image_id, length in _permitted(some, *among):
                found[image_id] = min(length, found.get(image_id, length))
    return found


def _permitted(
    rows: list[tuple[int, int]], allowed: Ids | None, exclude: Ids | None
) -> list[tuple[int, int]]:
    ids = np.array([image_id for image_id, _ in rows])
    kept = np.ones(len(ids), bool) if allowed is None else _in(ids, allowed)
    if exclude is not None:
        kept &= ~_in(ids, exclude)
    return [row for row, is_kept in zip(rows, kept, strict=True) if is_kept]


def _in(ids: Ids, ascending: Ids) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(ids), bool)
    at = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    found: np.ndarray = ascending[at] == ids
    return found


def _condition(
    tokens: list[str], columns: tuple[str, ...], *, begun: str = ""
) -> tuple[str, list[str]]:
    """Make SQL that finds words in some columns, and the beginning of one in the name.

    Characters of scripts without spaces are found anywhere.
    """
    spaced = " ".join(f'"{token}"' for token in tokens if not UNSPACED.search(token))
    matches, parts, values = [], [], []
    if spaced:
        matches.append(f"{{{' '.join(columns)}}} : ({spaced})")
    if begun:
        matches.append(f'name : "{begun}" *')
    if matches:
        parts.append("names MATCH ?")
        values.append(" AND ".join(matches))
    for token in filter(UNSPACED.search, tokens):
        parts.append(f"({' OR '.join(f'{column} LIKE ?' for column in columns)})")
        values += [f"%{token}%"] * len(columns)
    return " AND ".join(parts), values
