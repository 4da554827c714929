"""Find images by the names of their files and folders."""

import re
import unicodedata

import numpy as np

from .library import Library

__all__ = ["named_images"]

LOOKED_AT = 20_000  # files whose names hold the words, the newest first
PAGE = 500  # files read at a time
CANDIDATES = 4  # times as many as are wanted are compared with each other

Ids = np.ndarray

# Writing without spaces between words: a run of it is one token to SQLite. Thai, Lao and Khmer,
# kana, Chinese characters, and Hangul, whose words carry their endings.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def named_images(library: Library, words: str, limit: int, allowed: Ids | None = None) -> list[int]:
    """At most ``limit`` visible images of which one file's name and folders hold all the words.

    Images whose file's own name holds them all come first, the shortest name ahead; then those
    found by their folders, the newest file ahead. ``allowed``, ascending ids, limits them.
    """
    tokens = re.findall(r"\w+", unicodedata.normalize("NFC", words).replace("_", " "))
    if not tokens:
        return []
    by_name = _candidates(library, tokens, ("name",), CANDIDATES * limit, allowed)
    found = [image_id for image_id, _ in sorted(by_name.items(), key=lambda entry: entry[1])]
    if len(found) < limit:
        found += _candidates(library, tokens, ("name", "folder"), CANDIDATES * limit, allowed)
    return list(dict.fromkeys(found))[:limit]


def _candidates(
    library: Library, tokens: list[str], columns: tuple[str, ...], most: int, allowed: Ids | None
) -> dict[int, int]:
    """Images whose names hold all tokens in some columns, and the shortest of these names."""
    where, values = _condition(tokens, columns)
    sql = (
        "SELECT image_id, length(name) FROM names CROSS JOIN files ON files.id = names.rowid "
        f"WHERE state = 'indexed' AND {where} ORDER BY names.rowid DESC LIMIT ?"
    )
    found: dict[int, int] = {}
    with library.reading() as conn:
        rows = conn.execute(sql, [*values, LOOKED_AT])
        while len(found) < most and (some := rows.fetchmany(PAGE)):
            for image_id, length in _permitted(some, allowed):
                found[image_id] = min(length, found.get(image_id, length))
    return found


def _permitted(rows: list[tuple[int, int]], allowed: Ids | None) -> list[tuple[int, int]]:
    if allowed is None:
        return rows
    if not len(allowed):
        return []
    ids = np.array([image_id for image_id, _ in rows])
    at = np.minimum(np.searchsorted(allowed, ids), len(allowed) - 1)
    return [row for row, kept in zip(rows, allowed[at] == ids, strict=True) if kept]


def _condition(tokens: list[str], columns: tuple[str, ...]) -> tuple[str, list[str]]:
    """Words as SQLite tells them apart; characters of unspaced writing wherever they stand."""
    spaced = " ".join(f'"{token}"' for token in tokens if not _UNSPACED.search(token))
    parts, values = [], []
    if spaced:
        parts.append("names MATCH ?")
        values.append(f"{{{' '.join(columns)}}} : ({spaced})")
    for token in filter(_UNSPACED.search, tokens):
        parts.append(f"({' OR '.join(f'{column} LIKE ?' for column in columns)})")
        values += [f"%{token}%"] * len(columns)
    return " AND ".join(parts), values
